"""Images over the workers of a cluster, which are in this process here; over Ray itself: tests/soak/test_ray.py."""

import json
import os
import socket
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spreading_files import predicted, write_images, write_model_that_moves
from tiny_model import write_tiny
from toy_model import SPEC, busy_proto

import edgemask
from edgemask.cli import main
from edgemask.cli.engines import cluster_of
from edgemask.cluster import Cluster, ClusterDetector, Connection, connection
from edgemask.cluster import detector as cluster_detector
from edgemask.errors import (
    BrokenOutput,
    DependencyMissing,
    DeviceUnavailable,
    EdgemaskError,
    ImageError,
    ModelFileError,
    UsageError,
)
from edgemask.runtimes import write_model
from edgemask.validation import spreading, validate

WORKERS = 2


class Here:
    """A connection whose workers are in this process, and take the items of a table in turns."""

    def __init__(self, given: Cluster) -> None:
        self.version = edgemask.__version__

    def spread(
        self, items: Sequence[Any], opening: Callable[[], Any], work: Callable[[Any, Any], Any], **placing: Any
    ) -> Generator[Any, None, None]:
        workers = [connection._Worker(opening, work, os.getcwd(), self.version) for _ in range(WORKERS)]
        for number, item in enumerate(items):
            batch = {"number": np.array([number]), "job": np.array([connection._Sealed(item)], object)}
            yield workers[number % WORKERS](batch)["result"][0].opened()

    def has_gpus(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_that_moves(tmp_path)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_detector, "Connection", Here)
    monkeypatch.setattr(spreading, "Connection", Here)


@pytest.mark.usefixtures("here")
def test_predict_writes_what_one_process_writes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", 5)
    assert predicted(model, images, tmp_path / "one.json", "-o", tmp_path / "one", "--json") == 0
    one = json.loads(capsys.readouterr().out)
    assert predicted(model, images, tmp_path / "ray.json", "-o", tmp_path / "ray", "--json", "--engine", "ray") == 0
    ray = json.loads(capsys.readouterr().out)
    assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert len({record["score"] for record in json.loads((tmp_path / "one.json").read_text())}) > 2, "images differ"
    for picture in (tmp_path / "one").iterdir():
        assert (tmp_path / "ray" / picture.name).read_bytes() == picture.read_bytes()
    assert ray["device"] == one["device"] == "cpu"
    assert [image["file"] for image in ray["images"]] == [image["file"] for image in one["images"]]


@pytest.mark.usefixtures("here")
def test_an_error_comes_in_its_images_place(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images", 4)
    (images / "002.png").write_bytes(b"broken")
    assert predicted(model, images, tmp_path / "one.json") == 2
    one = capsys.readouterr().err
    assert predicted(model, images, tmp_path / "ray.json", "--engine", "ray") == 2
    ray = capsys.readouterr().err
    assert ray.splitlines()[1:] == one.splitlines()[1:], "the first line names the device"
    assert "001.png: " in ray
    assert "002.png: no sound JPEG" in ray
    assert not (tmp_path / "ray.json").exists()


@pytest.mark.usefixtures("here")
def test_pixels_are_read_again_where_they_are_drawn(model: Path, tmp_path: Path) -> None:
    paths = sorted(write_images(tmp_path / "images", 2).iterdir())
    with ClusterDetector(model, cluster=Cluster(), device="cpu") as detector:
        assert [pixels.shape for pixels, _ in detector.stream(paths)] == [(96, 96, 3), (96, 97, 3)]
    with ClusterDetector(model, cluster=Cluster(), device="cpu", pictures=False) as detector:
        assert [pixels.shape for pixels, _ in detector.stream(paths)] == [(0, 0, 3)] * 2
        with pytest.raises(UsageError, match="proposals"):
            next(detector.stream(paths, proposals=[[], []]))


@pytest.mark.usefixtures("here")
def test_workers_refuse_other_files_releases_and_devices(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(write_images(tmp_path / "images", 2).iterdir())
    detector = ClusterDetector(model, cluster=Cluster(), device="cpu")
    with monkeypatch.context() as changed:
        devices = iter(["cpu", "cuda:0"])
        changed.setattr(cluster_detector, "_found", lambda detector, job: (next(devices), (), None))
        with pytest.raises(DeviceUnavailable, match="some workers run the model on cpu, others on cuda:0"):
            list(detector.stream(paths))
    with monkeypatch.context() as changed:
        changed.setattr(detector._connection, "version", "0.0.1")
        with pytest.raises(DependencyMissing, match=r"not 0\.0\.1"):
            list(detector.stream(paths))
    write_model(busy_proto(), SPEC.replace(score_threshold=0.5), model)
    with pytest.raises(ModelFileError, match="another file on a node"):
        list(detector.stream(paths))


@pytest.mark.usefixtures("here")
def test_validate_finds_what_one_process_finds(tmp_path: Path) -> None:
    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 3)
    alone, spread = (
        validate(files.path, files.checkpoint, images, device="cpu", cluster=given).reports[0]
        for given in (None, Cluster())
    )
    assert not alone.parity.is_empty
    assert repr(spread.parity) == repr(alone.parity)
    assert repr(spread.coco) == repr(alone.coco)
    assert spread.images == alone.images
    assert np.isnan(spread.latency.ratio), "workers slow each other down"
    assert alone.latency.ratio > 0
    assert any("workers of a cluster" in note for note in spread.notes)


@pytest.mark.usefixtures("here")
def test_validate_goes_on_and_keeps_runs_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 4)
    look, asked = spreading._look, list[str]()

    def stopping(sides: Any, job: Any) -> Any:
        asked.append(job[0].name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return look(sides, job)

    monkeypatch.setattr(spreading, "_look", stopping)
    where: dict[str, Any] = {"device": "cpu", "cluster": Cluster(), "journal": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        validate(files.path, files.checkpoint, images, **where)
    report = validate(files.path, files.checkpoint, images, resume=True, save_run=tmp_path / "run.npz", **where)
    assert report.reports[0].images.compared == 4
    assert report.reports[0].images.resumed == 2
    assert asked == ["000.png", "001.png", "002.png", "002.png", "003.png"]
    stored = validate(files.path, tmp_path / "run.npz", images, device="cpu", cluster=Cluster()).reports[0]
    assert stored.parity.passed == report.reports[0].parity.passed


@pytest.mark.usefixtures("here")
def test_a_broken_result_on_a_cluster_is_one_of_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 3)
    look = spreading.FileSide.look

    def breaking(self: Any, image: Any, *arguments: Any) -> Any:
        if image.name == "001.png":
            raise BrokenOutput("the model gave nothing")
        return look(self, image, *arguments)

    monkeypatch.setattr(spreading.FileSide, "look", breaking)
    report = validate(files.path, files.checkpoint, images, device="cpu", cluster=Cluster()).reports[0]
    assert report.images.broken == (("001.png", "the model gave nothing"),)


@pytest.mark.usefixtures("here")
def test_another_image_on_a_node_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 2)
    monkeypatch.setattr(spreading, "file_digest", lambda path: "0" * 64)
    with pytest.raises(ImageError, match="another file on a node"):
        validate(files.path, files.checkpoint, images, device="cpu", cluster=Cluster())


@pytest.mark.usefixtures("here")
def test_what_cannot_travel_is_refused(tmp_path: Path) -> None:
    from tiny_model import tiny_model

    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 1)
    with pytest.raises(UsageError, match="cannot go to a cluster"):
        validate(files.path, tiny_model(), images, device="cpu", cluster=Cluster())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("rya", None, None), "--engine is 'rya'"),
        (("local", "a:1", None), "--address goes with a cluster"),
        (("local", None, 2), "--workers goes with a cluster"),
        (("ray", "auto", None), "address: expected HOST:PORT"),
        (("ray", "ray://head:10001", None), "address: expected HOST:PORT"),
        (("ray", None, 0), "workers: expected a whole number"),
    ],
)
def test_options_that_cannot_be_meant(given: tuple[str, str | None, int | None], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cluster_of(*given)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["clip.mp4"], "--engine ray goes with images, and clip.mp4 is a video"),
        (["a.png", "--fallback"], "--fallback goes with one process"),
        (["a.png", "--device", "cuda:1"], "cuda:1 is one GPU of one machine"),
        (["a.png", "--device", "torch"], "the device torch runs a PyTorch model"),
    ],
)
def test_uses_of_predict_that_a_cluster_has_not(
    words: list[str],
    problem: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "a.png"):
        (tmp_path / name).write_bytes(b"")
    assert main(["predict", str(model), *words, "--engine", "ray"]) == 2
    assert problem in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyMissing, match="package ray") as caught:
        Connection(Cluster())
    assert caught.value.remedy == "pip install 'edgemask[cluster]'"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


class FakeRay:
    """Ray, as far as it is asked before any work."""

    def __init__(self, **resources: float) -> None:
        self.resources = resources

    def is_initialized(self) -> bool:
        return bool(self.resources)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}, {"Alive": False, "Resources": {"CPU": 64.0}}]


def test_where_nothing_answers_the_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_import_ray", lambda **_: FakeRay())
    with socket.socket() as listening:  # bound, and does not listen
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(DeviceUnavailable, match=f"no Ray cluster answers at {address}: .*refused") as caught:
            Connection(Cluster(address=address))
    assert "ray start --head" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("resources", "asked", "threads", "on_gpu", "workers"),
    [
        ({"CPU": 8.0}, None, 1, False, 8),
        ({"CPU": 8.0}, None, 3, False, 2),
        ({"CPU": 8.0}, 5, 1, False, 5),
        ({"CPU": 8.0, "GPU": 2.0}, None, 1, True, 2),
        ({"CPU": 1.0, "GPU": 2.0}, None, 1, True, 1),
    ],
)
def test_as_many_workers_as_there_is_room_for(
    resources: dict[str, float],
    asked: int | None,
    threads: int,
    on_gpu: bool,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_import_ray", lambda **_: FakeRay(**resources))
    assert Connection(Cluster(workers=asked))._workers(threads, on_gpu=on_gpu) == workers


def test_more_workers_than_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_import_ray", lambda **_: FakeRay(CPU=4.0))
    with pytest.raises(UsageError, match="5 workers of 1 processor each are more than the 4"):
        Connection(Cluster(workers=5))._workers(1, on_gpu=False)
    with pytest.raises(DeviceUnavailable, match="no room for a worker of 1 processor and a GPU each"):
        Connection(Cluster())._workers(1, on_gpu=True)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("ModuleNotFoundError: No module named 'edgemask'"), DependencyMissing, "has no edgemask"),
        (RuntimeError("The actor died unexpectedly"), DeviceUnavailable, "workers died"),
        (ValueError("something\nelse"), EdgemaskError, "ValueError: something ... else"),
    ],
)
def test_what_it_means_that_ray_gives_no_more_rows(error: Exception, kind: type[EdgemaskError], words: str) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"number": 0}
        raise error

    taken = connection._rows(rows())
    assert next(taken) == {"number": 0}
    with pytest.raises(kind, match=words):
        next(taken)
