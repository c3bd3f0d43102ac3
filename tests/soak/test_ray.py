"""Images over Ray itself: starting it takes 10 s of a processor, and as long for its workers."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from spreading_files import predicted, write_images, write_model_that_moves
from tiny_model import write_tiny

PATIENCE = 240  # seconds for a command over Ray on a busy machine
pytestmark = [pytest.mark.soak, pytest.mark.slow]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_that_moves(tmp_path)


@contextlib.contextmanager
def running(command: str, *words: object, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process of its own, ended with all that it has started."""
    whole = [sys.executable, "-m", "edgemask", command, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}  # Ray keeps a token at home
    process = subprocess.Popen(whole, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        for one in [*started_by(process.pid), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()


def started_by(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for process in started_by(pid):
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            if process.cmdline()[0].startswith("ray::") and "_Worker" in process.cmdline()[0]:
                found.append(process)
    return found


def wait_for(holds: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, (process.communicate()[1] or b"").decode()
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_worker_loses_nothing(model: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 80, side=900)
    assert predicted(model, images, tmp_path / "one.json") == 0
    out, coco = tmp_path / "out", tmp_path / "ray.json"
    words = [model, images, "--device", "cpu", "--coco", coco, "-o", out, "--json", "--engine", "ray"]
    with running("predict", *words, "--workers", 2, folder=tmp_path) as process:
        wait_for(lambda: out.is_dir() and any(out.glob("*.png")), process)
        (killed, _) = workers_of(process.pid)
        killed.kill()
        before = len(list(out.glob("*.png")))
        answer, errors = process.communicate(timeout=PATIENCE)
    assert before < 60, "it was killed amid the work"
    assert process.returncode == 0, errors.decode()
    assert coco.read_bytes() == (tmp_path / "one.json").read_bytes()
    files = [image["file"] for image in json.loads(answer)["images"]]
    assert files == [str(path) for path in sorted(images.iterdir())]


def test_ctrl_c_leaves_no_process_of_ray(model: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 200, side=900)
    out = tmp_path / "out"
    words = [model, images, "--device", "cpu", "-o", out, "--engine", "ray"]
    with running("predict", *words, folder=tmp_path) as process:
        wait_for(lambda: out.is_dir() and any(out.glob("*.png")), process)
        started = started_by(process.pid)
        assert {"raylet", "gcs_server"} <= {one.name() for one in started}
        process.send_signal(signal.SIGINT)
        process.wait(10)
        assert process.returncode == 130
        _, alive = psutil.wait_procs(started, timeout=30)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert not [path for path in out.iterdir() if path.suffix != ".png"]


def test_a_cluster_that_runs_is_joined_and_left(model: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 12)
    assert predicted(model, images, tmp_path / "one.json") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port)]
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [*ray, "--num-cpus", "2", "--include-dashboard", "false"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it ends its whole process group
    ) as head:
        try:
            wait_for(lambda: "raylet" in {one.name() for one in started_by(head.pid)}, process=head)
            time.sleep(5)
            address = f"127.0.0.1:{port}"
            words = [model, images, "--device", "cpu", "--coco", tmp_path / "ray.json", "--engine", "ray"]
            with running("predict", *words, "--address", address, folder=tmp_path) as process:
                _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors.decode()
            assert head.poll() is None, "it was not ours to end"
        finally:
            for one in [*started_by(head.pid), head]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
    assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_validate_over_ray_finds_what_one_process_finds(tmp_path: Path) -> None:
    files, images = write_tiny(tmp_path), write_images(tmp_path / "images", 6)
    words = [files.path, "--reference", files.checkpoint, "--images", images, "--device", "cpu", "--json"]
    records = []
    for engine in ("local", "ray"):
        with running("validate", *words, "--engine", engine, folder=tmp_path) as process:
            answer, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 1), errors.decode()
        records.append(json.loads(answer)["reports"][0])
    alone, spread = records
    assert spread["parity"] == alone["parity"]
    assert spread["coco"] == alone["coco"]
    assert spread["images"] == alone["images"]
