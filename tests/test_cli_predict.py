"""`edgemask predict`, on a model of a few nodes: images, folders and videos."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_model import write_toy

from edgemask.cli import main, predict
from edgemask.cli.predict_sources import Source, image_files, image_ids, picture_paths, sources_of
from edgemask.errors import DatasetError, UsageError
from edgemask.runtimes.options import parse_options
from edgemask.video import Video, VideoWriter, video_facts


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


def write_images(folder: Path, *names: str) -> list[Path]:
    """Writes grey images of 256 x 256 pixels, each of another brightness; the toy sees them at a quarter of that."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((256, 256, 3), 40 * index + 40, np.uint8)).save(folder / name)
    return [folder / name for name in names]


def test_predict_writes_pictures_and_all_results(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "in", "b.png", "a.jpg")
    out, coco = tmp_path / "out", tmp_path / "results.json"
    words = ["predict", str(toy), str(tmp_path / "in"), "-o", str(out), "--device", "cpu", "--json"]
    assert main([*words, "--coco", str(coco)]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["device"] == "cpu"
    assert [(one["file"], one["image_id"], one["detections"]) for one in record["images"]] == [
        (str(images[1]), 1, 2),
        (str(images[0]), 2, 2),
    ]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.png"]
    with Image.open(out / "b.png") as picture:
        pixels = np.asarray(picture)
    assert (pixels[100:200, 20:110] != 40).any(), "the sure object is drawn"
    assert (pixels[100:200, 140:250] == 40).all(), "the one below --score is not"
    results = json.loads(coco.read_text())
    assert [(r["image_id"], r["file_name"], r["category_id"]) for r in results] == [
        (1, "a.jpg", 7),
        (1, "a.jpg", 9),
        (2, "b.png", 7),
        (2, "b.png", 9),
    ]
    assert f"{images[0]}: 1 of 2 from score 0.5 on (1 dot)" in printed.err


@pytest.mark.parametrize(
    ("words", "options", "threads", "streams"),
    [
        (["a.png", "b.png"], {"device": "cpu"}, 2, 2),
        (["a.png", "b.png"], {"device": "openvino"}, 2, 2),
        (["clip.mp4"], {"device": "cpu"}, 2, 2),
        (["a.png"], {"device": "cpu"}, 2, 1),
        (["a.png", "b.png"], {"device": "cpu"}, 1, 1),
        (["a.png", "b.png"], {"device": "cpu", "texts": ["streams=1"]}, 2, 1),
        (["a.png", "b.png"], {"device": "cpu", "texts": ["streams=3"]}, 2, 3),
        (["a.png", "b.png"], {"device": "cpu", "texts": ["threads=1"]}, 2, 1),
        (["a.png", "b.png"], {"device": "cuda"}, 2, 1),
        (["a.png", "b.png"], {"device": "torch"}, 2, 1),
        (["clip.mp4", "camera:0"], {"device": "cpu"}, 2, 1),
        (["a.png", "b.png"], {"device": "cpu", "bytes": predict._SMALL + 1}, 2, 1),
    ],
)
def test_two_images_at_a_time_where_many_wait_and_it_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], options: Any, threads: int, streams: int
) -> None:
    monkeypatch.setattr(predict, "thread_count", lambda: threads)
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(options.get("bytes", 10))
    sources = [Source(word, tmp_path / word, word.endswith(".mp4") or ":" in word) for word in words]
    asked = parse_options(options.get("texts", []))
    chosen = predict._for_many(asked, sources, tmp_path / "m.onnx", options["device"])
    assert (chosen.streams or 1) == streams


def test_results_score_against_the_annotations(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids come from the annotations, and a COCO library takes what predict writes."""
    from edgemask.evaluation import coco_metrics

    images = write_images(tmp_path / "in", "a.png", "b.png")
    boxes = {7: [16, 16, 96, 224], 9: [144, 16, 96, 224]}
    document = {
        "images": [
            {"id": 40, "file_name": "b.png", "height": 256, "width": 256},
            {"id": 50, "file_name": "in/a.png", "height": 256, "width": 256},
        ],
        "categories": [{"id": 7, "name": "dot"}, {"id": 9, "name": "line"}],
        "annotations": [
            {"id": 10 * image + category, "image_id": image, "category_id": category, "bbox": box,
             "area": box[2] * box[3], "iscrowd": 0}
            for image in (40, 50) for category, box in boxes.items()
        ],
    }  # fmt: skip
    annotations, coco = tmp_path / "annotations.json", tmp_path / "results.json"
    annotations.write_text(json.dumps(document))
    options = ["--device", "cpu", "--coco", str(coco), "--annotations", str(annotations)]
    assert main(["predict", str(toy), *map(str, images), *options]) == 0
    assert "next: edgemask validate" in capsys.readouterr().out
    results = json.loads(coco.read_text())
    assert {r["file_name"]: r["image_id"] for r in results} == {"a.png": 50, "b.png": 40}
    assert coco_metrics(annotations, results, tasks=["boxes"])["boxes"].ap == pytest.approx(1)


def test_images_are_taken_from_folders_in_order(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "b.png", "a.JPG", "c.bmp")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "folder.png").mkdir()
    single = tmp_path / "in" / "notes.txt"  # named by the user: whether it is an image shows when it is opened
    found = image_files([single, tmp_path / "in"])
    assert [path.name for path in found] == ["notes.txt", "a.JPG", "b.png", "c.bmp"]
    with pytest.raises(UsageError, match="no file or folder"):
        image_files([tmp_path / "missing"])
    with pytest.raises(UsageError, match="no image in"):
        image_files([tmp_path / "in" / "folder.png"])


def test_pictures_neither_collide_nor_replace_an_image(tmp_path: Path) -> None:
    names = ["x/a.jpg", "y/a.jpeg", "y/A.jpg", "x/a.png", "x/a-2.jpg", "x/b.webp"]
    paths = picture_paths([tmp_path / name for name in names], tmp_path / "out")
    assert [path.name for path in paths if path] == ["a.jpg", "a-2.jpg", "A-3.jpg", "a.png", "a-2-2.jpg", "b.png"]
    assert picture_paths([tmp_path / "x/a.jpg"], None) == [None]
    with pytest.raises(UsageError, match="would replace the image"):
        picture_paths([tmp_path / "x/a.jpg"], tmp_path / "y/../x")


def test_an_image_that_the_annotations_do_not_list_is_refused(tmp_path: Path) -> None:
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}]}))
    assert image_ids([tmp_path / "a.png"], annotations) == [1]
    with pytest.raises(DatasetError, match=r"does not list .*b\.png"):
        image_ids([tmp_path / "b.png"], annotations)
    annotations.write_text("[]")
    with pytest.raises(DatasetError, match="no COCO annotation file"):
        image_ids([tmp_path / "a.png"], annotations)
    with pytest.raises(DatasetError, match="No such file"):
        image_ids([tmp_path / "a.png"], tmp_path / "missing.json")


def write_clip(path: Path, times: tuple[float, ...] = (0.0, 0.1, 0.2, 0.35, 0.4, 0.5)) -> Path:
    """A video of grey frames, 40 levels apart, at these seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, (64, 64), 10) as writer:
        for index, seconds in enumerate(times):
            writer.write(np.full((64, 64, 3), 40 * (index % 6) + 20, np.uint8), seconds)
    return path


def predicted(*words: object) -> None:
    assert main(["predict", *map(str, words), "--device", "cpu"]) == 0


def test_a_video_becomes_a_video_and_results(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between two images, whose ids it moves."""
    (image,) = write_images(tmp_path / "in", "a.png")
    clip = write_clip(tmp_path / "in" / "clip.mp4")
    out, coco = tmp_path / "out", tmp_path / "results.json"
    predicted(toy, image, clip, image, "-o", out, "--coco", coco, "--every", 2, "--json")
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert [one["image_id"] for one in record["images"]] == [1, 5]
    assert record["videos"] == [
        {
            "file": str(clip), "first_image_id": 2, "frames": 3, "height": 64, "width": 64,
            "detections": 6, "video": str(out / "clip.mp4"),
        }
    ]  # fmt: skip
    assert record["images_per_second"] == pytest.approx(5 / record["seconds"])
    assert f"{clip}: 3 frames, 6 found -> {out / 'clip.mp4'}" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["a-2.png", "a.png", "clip.mp4"]
    found = [one for one in json.loads(coco.read_text()) if one["file_name"] == "clip.mp4"]
    assert [(one["image_id"], one["frame"], round(one["time"], 3)) for one in found[::2]] == [
        (2, 0, 0.0), (3, 2, 0.2), (4, 4, 0.4),
    ]  # fmt: skip
    assert found[0].keys() >= {"bbox", "category_id", "score", "segmentation"}
    assert video_facts(out / "clip.mp4").rate == pytest.approx(5, abs=0.2)
    with Video(clip) as before, Video(out / "clip.mp4") as after:
        for old, new in zip(before.frames(every=2), after.frames(), strict=True):
            assert new.time == pytest.approx(old.time, abs=1e-3)
            assert new.pixels[44:, 44:].mean() == pytest.approx(old.pixels[44:, 44:].mean(), abs=6), "below --score"
            assert abs(new.pixels[20:50, 8:24].mean((0, 1)) - old.pixels[30, 15]).max() > 20, "the sure object is drawn"


def test_a_video_without_an_output(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    predicted(toy, clip, "--stop", 0.3)
    printed = capsys.readouterr()
    assert "frames      3" in printed.out
    assert printed.out.splitlines()[-1] == f"next: edgemask bench {toy}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "toy.onnx"]


def test_a_label_map_keeps_the_size_of_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its picture has a legend below, as high as the classes of that frame ask for."""
    from edgemask.cli.predict_outputs import drawn, drawn_frame
    from edgemask.semantic import SemanticMap

    labels = np.zeros((40, 60), np.uint8)
    labels[10:20] = 1
    found = SemanticMap(labels, np.ones((40, 60), np.float32))
    pixels = np.full((40, 60, 3), 100, np.uint8)
    assert drawn(pixels, found, ["sky"], 0.5).shape[0] > 40
    frame = drawn_frame(pixels, found, ["sky"], 0.5)
    assert frame.shape == (40, 60, 3)
    assert (frame[12:18] != 100).any()


def test_a_video_that_is_cut_leaves_nothing(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", tuple(index / 10 for index in range(40)))
    clip.write_bytes(clip.read_bytes()[:-200])
    out, coco = tmp_path / "out", tmp_path / "results.json"
    assert main(["predict", str(toy), str(clip), "-o", str(out), "--coco", str(coco), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, "clip.mp4: cannot be read as a video" in printed.err) == ("", True)
    assert list(out.iterdir()) == []
    assert not coco.exists()


def test_ctrl_c_leaves_no_half_video(toy: Path, tmp_path: Path, repository: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", tuple(index / 10 for index in range(3000)))
    out = tmp_path / "out"
    words = ["predict", str(toy), str(clip), "-o", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemask", *words], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 30
    while not (out.is_dir() and any(out.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.stdout is not None
    process.stdout.close()
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clip.mp4", "--annotations", "a.json"], "--annotations goes with images, and clip.mp4 is a video"),
        (["clip.mp4", "--proposals", "a.json"], "--proposals goes with images, and clip.mp4 is a video"),
        (["clip.mp4", "-o", "."], "the annotated copy of clip.mp4 would replace the video clip.mp4"),
        (["camera:997"], "camera:997 need not end by itself"),
        (["camera:997", "--stop", "5"], "camera:997: cannot be read as a video: No such file or directory"),
        (["gopher://a/b", "--stop", "5"], "gopher://a/b: no address that can be read"),
        (["folder"], "there is no image in folder"),
        (["clip.mp4", "--every", "0"], "--every"),
        (["clip.mp4", "--option", "threads"], "threads"),
    ],
)
def test_wrong_use_with_videos(
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4")
    write_clip(tmp_path / "folder" / "clip.mp4")
    assert main(["predict", toy.name, *words, "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "folder", "toy.onnx"]


def test_what_is_taken_for_a_video(tmp_path: Path) -> None:
    """Those that are named; of a folder, the images."""
    write_images(tmp_path / "in", "a.png")
    clip = write_clip(tmp_path / "in" / "CLIP.MP4")
    words = [str(tmp_path / "in"), str(clip), "camera:1", "rtsp://user@host:1/live?x=a/b.c", "http://host/a.mp4"]
    found = sources_of(words, stop=1, images_only=None)
    assert [(source.path.name, source.is_video) for source in found] == [
        ("a.png", False), ("CLIP.MP4", True), ("video1.mp4", True), ("live.mp4", True), ("a.mp4", True),
    ]  # fmt: skip
    assert [source.name for source in found[2:]] == words[2:]
    paths = picture_paths([source.path for source in found], tmp_path / "out")
    assert [path.name for path in paths if path] == ["a.png", "CLIP.mp4", "video1.mp4", "live.mp4", "a.mp4"]


def test_options_reach_the_runtime(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgemask

    calls: list[dict[str, Any]] = []
    load = edgemask.load
    monkeypatch.setattr(edgemask, "load", lambda path, **options: calls.append(options) or load(path, **options))
    predicted(toy, write_images(tmp_path, "a.png")[0], "--fallback", "--option", "threads=1", "--option", "cache=false")
    ((device, options, fallback),) = [tuple(call[name] for name in ("device", "options", "fallback")) for call in calls]
    assert (device, options.threads, options.cache, fallback) == ("cpu", 1, False, True)
