"""Every sample runs as its first lines say, and finds what `edgemask.load` finds."""

import ast
import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from following import write_follower
from known_times import known_times
from layered import write_layered
from narrow import ARGUMENTS, BUILDER, narrow
from numpy.typing import NDArray
from pictures import smooth, written
from PIL import Image
from toy_model import SPEC, busy_proto, toy_proto, write_toy

import edgemask
from edgemask.canvas import place_on_canvas
from edgemask.checkpoints import save_checkpoint
from edgemask.description import spec_of
from edgemask.errors import ParityError
from edgemask.images import load_image
from edgemask.quantization.accuracy import Accuracy, Judge, Kept
from edgemask.runtimes import write_model
from edgemask.scenes import draw_scene
from edgemask.video import VideoWriter

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "samples"
SAMPLES = sorted(FOLDER.glob("*.py"))
# Few detections, far from each other: of an untrained model with many, any rounding flips one.
FEW = {"rpn_post_nms_top_n_test": 30, "box_detections_per_img": 8, "box_score_thresh": 0.3}
NAMES = ("red one", "green", "blue")
BOX_TOLERANCE = 1e-3  # pixels

Found = list[tuple[str, list[float]]]


def run(sample: str, *words: str | Path) -> str:
    """What a sample prints, run as Python runs a script, in this process: PyTorch takes seconds to load."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [f"samples/{sample}", *map(str, words)])
        patch.syspath_prepend(FOLDER)
        runpy.run_path(str(FOLDER / sample), run_name="__main__")
    return said.getvalue()


def printed(lines: str) -> Iterator[tuple[str, list[float]]]:
    """Class name, and score with box, of each line that tells of an object."""
    for match in re.finditer(r"^(.*?)((?: -?\d+\.\d{4}){5})$", lines, re.MULTILINE):
        yield match[1], [float(number) for number in match[2].split()]


def expected(path: Path, image: Path, device: str = "cpu") -> Found:
    with edgemask.load(path, device=device) as detector:
        found = detector.predict(image)
        assert len(found) > 0
        numbers = np.column_stack([found.scores, found.boxes]).tolist()
        names = [detector.spec.label_name(int(label)) for label in found.labels]
        return list(zip(names, numbers, strict=True))


def assert_same(found: Found, wanted: Found) -> None:
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=BOX_TOLERANCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def picture(folder: Path) -> Path:
    path = folder / "scene.png"
    Image.fromarray(draw_scene(3, seed=8, size=200).image[:150]).save(path)
    return path


@pytest.fixture(scope="module")
def exported(folder: Path, picture: Path) -> tuple[Path, str]:
    """What `export_and_predict.py` wrote and printed."""
    model = narrow(4, **FEW)
    spec = spec_of(model, class_names=NAMES, builder=BUILDER, builder_arguments=ARGUMENTS | FEW)
    save_checkpoint(folder / "narrow.safetensors", model, spec)
    lines = run("export_and_predict.py", folder / "narrow.safetensors", picture, folder / "out")
    return folder / "out" / "model.onnx", lines


def write_clip(path: Path, frames: int = 4) -> Path:
    """A scene that goes by, two pixels a frame."""
    pixels = draw_scene(0, seed=3, size=128).image
    with VideoWriter(path, (96, 96), 10) as writer:
        for number in range(frames):
            writer.write(pixels[2 * number :][:96, :96])
    return path


@pytest.mark.slow
def test_export_and_predict(exported: tuple[Path, str], picture: Path) -> None:
    path, lines = exported
    (device,) = re.findall(r"^on (\S+)$", lines, re.MULTILINE)
    assert_same(list(printed(lines)), expected(path, picture, device))
    drawn = path.with_name("picture.png")
    assert lines.splitlines()[0].startswith(f"{path}: ")
    assert lines.splitlines()[-1] == str(drawn)
    assert load_image(drawn).shape == load_image(picture).shape
    assert not np.array_equal(load_image(drawn), load_image(picture))


@pytest.mark.slow
def test_onnxruntime_only(exported: tuple[Path, str], folder: Path, picture: Path) -> None:
    path, _ = exported
    turned, tall = folder / "turned.jpg", folder / "tall.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw_scene(4, seed=8, size=90).image[:70]).save(turned, exif=exif)
    Image.fromarray(draw_scene(5, seed=8, size=333).image[:, :101]).save(tall)
    lines = run("onnxruntime_only.py", path, picture, turned, tall)
    for image in (picture, turned, tall):
        found = [
            (name.removeprefix(f"{image}: "), numbers)
            for name, numbers in printed(lines)
            if name.startswith(str(image))
        ]
        assert_same(found, expected(path, image))


SPECS: dict[str, dict[str, Any]] = {
    "dynamic canvas": {"min_size": 100, "max_size": 150},
    "canvas that fits": {"canvas": (128, 160)},
    "low canvas": {"canvas": (64, 160)},
    "narrow canvas": {"canvas": (160, 64)},
    "fixed size": {"fixed_size": (50, 77)},
    "fixed size beyond the canvas": {"fixed_size": (150, 77), "canvas": (96, 96)},
    "batch": {"batch": 3},
    "another stride": {"size_divisible": 48},
}


@pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("size", [(60, 81), (240, 130), (7, 300), (64, 64)])
def test_onnxruntime_only_prepares_images_as_we_do(changes: dict[str, Any], size: tuple[int, int]) -> None:
    sample = runpy.run_path(str(FOLDER / "onnxruntime_only.py"))
    spec = SPEC.replace(**changes)
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    images, sizes = sample["prepared"](pixels, json.loads(spec.to_json()))
    canvas, placement = place_on_canvas(pixels, spec)
    assert sizes.tolist() == [list(placement.size)] * (spec.batch or 1)
    assert images.dtype == canvas.dtype
    np.testing.assert_array_equal(images, np.broadcast_to(canvas, (spec.batch or 1, *canvas.shape)), strict=True)


def test_golden_preprocessing(tmp_path: Path) -> None:
    """The picture and the hash that samples/README.md gives to whoever ports the sample."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (golden,) = re.findall(r"\b[0-9a-f]{64}\b", text)
    values: dict[str, Any] = {}
    exec(code, values)
    spec = SPEC.replace(min_size=800, max_size=1333)
    write_model(toy_proto(), spec, tmp_path / "m.onnx")
    Image.fromarray(values["picture"]).save(tmp_path / "golden.png")
    Image.fromarray(values["picture"] ^ (np.indices((480, 640, 3)).sum(0) == 0)).save(tmp_path / "other.png")
    lines = run("onnxruntime_only.py", tmp_path / "m.onnx", tmp_path / "golden.png", tmp_path / "other.png")
    hashes = re.findall(r"(\w+)\.png: canvas \[3, 800, 1088\] sha256 (\w+)", lines)
    assert hashes[0] == ("golden", golden)
    assert hashes[1][1] != golden  # by a single value of the picture


def test_onnxruntime_only_runs_by_itself_on_a_fixed_canvas(folder: Path, picture: Path) -> None:
    """In a process of its own: nothing that this one has loaded helps it."""
    path = folder / "busy.onnx"
    write_model(busy_proto(), SPEC.replace(canvas=(64, 96)), path)
    command = [sys.executable, "samples/onnxruntime_only.py", str(path), str(picture)]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    found = [(name.removeprefix(f"{picture}: "), numbers) for name, numbers in printed(lines)]
    assert_same(found, expected(path, picture))


def test_onnxruntime_only_is_true_to_its_name_and_short() -> None:
    source = (FOLDER / "onnxruntime_only.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}
    begin = tree.body[1].lineno  # behind the docstring
    assert len([line for line in source.splitlines()[begin - 1 :] if line.strip()]) <= 40


@pytest.mark.slow
def test_custom_backbone(tmp_path: Path) -> None:
    lines = run("custom_backbone.py", tmp_path / "m.onnx")
    assert re.search(r"operators, verified\n", lines)
    assert re.search(r"<Detections: 10 boxes with masks on 320 x 320 \(H x W\)> by \w+", lines)
    with edgemask.load(tmp_path / "m.onnx", device="cpu") as detector:
        assert (detector.spec.canvas, detector.spec.class_names) == ((256, 320), ("bolt", "nut"))
        assert detector.spec.parity is not None


@pytest.fixture
def quantizable(tmp_path: Path) -> list[Path]:
    """What `quantize_within_budget.py` is given: a model, two folders of images, annotations that fit the model."""
    model, training = write_layered(tmp_path / "model.onnx").path, tmp_path / "training"
    paths = written(tmp_path / "validation", [smooth(seed) for seed in range(3)])
    written(training, [smooth(seed) for seed in range(4)])
    with edgemask.load(model, device="cpu") as detector:
        found = [entry for n, path in enumerate(paths) for entry in detector.predict(path).to_coco(n, (7, 9))]
    document = {
        "images": [{"id": n, "file_name": path.name, "height": 48, "width": 64} for n, path in enumerate(paths)],
        "categories": [{"id": 7, "name": "dot"}, {"id": 9, "name": "line"}],
        "annotations": [entry | {"id": number} for number, entry in enumerate(found)],
    }
    (tmp_path / "val.json").write_text(json.dumps(document), encoding="utf-8")
    return [model, training, tmp_path / "validation", tmp_path / "val.json", tmp_path / "out" / "int8.onnx"]


def test_quantize_within_budget(quantizable: list[Path]) -> None:
    with known_times():
        lines = run("quantize_within_budget.py", *quantizable, "0.02")
    output = quantizable[-1]
    assert "cpu: box AP 1.0000 -> " in lines
    assert ", 2.0% may be lost\n" in lines
    assert re.search(rf"{output}: \d+\.\d MB -> \d+\.\d MB\n", lines)
    assert "000.png: <Detections: 2 boxes with masks on 48 x 64 (H x W)> by " in lines
    assert output.stat().st_size < quantizable[0].stat().st_size


def test_quantize_beyond_its_budget(quantizable: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(device="cpu", what="mask AP", reference=0.5, own=0.4, allowed=0.01)
    poor = Accuracy(kept=(kept,), failures=("cpu: mask AP is 0.4",))
    monkeypatch.setattr(Judge, "measure", lambda judge, candidate: poor)
    with known_times(), pytest.raises(ParityError, match=r"mask AP is 0\.4"):
        run("quantize_within_budget.py", *quantizable)
    assert not quantizable[-1].exists()


def test_folder_to_coco(tmp_path: Path) -> None:
    written(tmp_path / "images", [smooth(seed) for seed in range(6)])
    (tmp_path / "images" / "notes.txt").touch()
    toy = write_toy(tmp_path / "toy.onnx")
    lines = run("folder_to_coco.py", toy, tmp_path / "images", tmp_path / "out" / "results.json")
    assert re.search(r"results\.json: 12 objects in 6 images, \d+\.\d images/s \w+", lines)
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [record["file_name"] for record in records[::2]] == [f"00{number}.png" for number in range(6)]
    assert [record["image_id"] for record in records[1::2]] == [1, 2, 3, 4, 5, 6]
    with edgemask.load(toy, device="cpu") as detector:
        wanted = detector.predict(tmp_path / "images" / "003.png").to_coco(4, detector.spec.category_ids)
    for record, want in zip(records[6:8], wanted, strict=True):
        assert (record["category_id"], record["segmentation"]) == (want["category_id"], want["segmentation"])
        np.testing.assert_allclose(record["bbox"], want["bbox"], rtol=0, atol=BOX_TOLERANCE)


def test_video_with_tracker(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.onnx", scores=(0.9, 0.8))
    lines = run("video_with_tracker.py", toy, write_clip(tmp_path / "clip.mp4"))
    found = re.findall(r"frame (\d): #(\d) (\w+) at 6 6 42 90\n", lines)
    assert found == [(str(frame), "1", "dot") for frame in range(4)]
    assert re.search(r"^2 objects, by \w+", lines, re.MULTILINE)
    lines = run("video_with_tracker.py", toy, tmp_path / "clip.mp4", "0.15")
    assert re.findall(r"frame (\d): #1", lines) == ["0", "1"]


def test_the_tracker_keeps_numbers_where_boxes_overlap() -> None:
    sv = pytest.importorskip("supervision")
    tracker = runpy.run_path(str(FOLDER / "video_with_tracker.py"))["OverlapTracker"]()

    def numbers(*boxes: tuple[float, float, float, float]) -> list[int]:
        found = sv.Detections(xyxy=np.array(boxes, np.float32).reshape(-1, 4))
        return list(tracker.update(found).tracker_id.tolist())

    assert numbers((0, 0, 10, 10), (50, 0, 60, 10)) == [1, 2]
    assert numbers((48, 0, 58, 10), (2, 0, 12, 10)) == [2, 1]  # in another order
    assert numbers((46, 0, 56, 10), (90, 90, 99, 99), (4, 0, 14, 10)) == [2, 3, 1]  # one has come
    assert numbers((46, 0, 56, 10)) == [2]  # two have gone
    assert numbers() == []
    assert numbers((46, 0, 56, 10)) == [4]  # nothing in the last frame to overlap
    assert numbers((56, 10, 66, 20)) == [5]  # too far


def test_fast_rcnn_with_tracker(tmp_path: Path) -> None:
    follower, clip = write_follower(tmp_path / "fast.onnx"), write_clip(tmp_path / "clip.mp4", 5)
    lines = run("fast_rcnn_with_tracker.py", write_toy(tmp_path / "toy.onnx"), follower, clip, "3")
    assert lines.splitlines() == [
        "frame 0, searched: #1",
        "frame 1, followed: #1",
        "frame 2, followed: #1",
        "frame 3, searched: #1",
        "frame 4, followed: #1",
        "1 objects",
    ]
    unsure = write_toy(tmp_path / "unsure.onnx", scores=(0.1, 0.1))  # then there is nothing to follow
    assert "frame 4, followed:\n0 objects" in run("fast_rcnn_with_tracker.py", unsure, follower, clip, "3")


def test_proposals_are_the_boxes_with_a_margin_inside_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    grown = runpy.run_path(str(FOLDER / "fast_rcnn_with_tracker.py"))["grown"]
    boxes = grown(np.array([[10, 20, 30, 60], [0, 0, 100, 40]], np.float32), (50, 100))
    np.testing.assert_allclose(boxes, [[8, 16, 32, 50], [0, 0, 100, 44]])
    assert grown(np.zeros((0, 4), np.float32), (50, 100)).shape == (0, 4)


@pytest.mark.soak
def test_the_packaged_model_goes_the_whole_way(tmp_path: Path, folder: Path) -> None:
    """Trained, as a user's is: what it finds is right, and what moves keeps its number."""
    from edgemask.checkpoints import load_checkpoint
    from edgemask.export import export_onnx
    from edgemask.scenes import write_scenes

    checkpoint = Path(edgemask.__file__).parent / "assets" / "sample.safetensors"
    found = printed(run("export_and_predict.py", checkpoint, "", tmp_path))
    assert any(numbers[0] > 0.9 for _, numbers in found)
    assert load_image(tmp_path / "picture.png").shape == (320, 320, 3)
    model, spec = load_checkpoint(checkpoint)
    export_onnx(model, tmp_path / "fast.onnx", spec=spec, proposals="input", verify=False)
    pixels = draw_scene(3, seed=5, size=480, objects=6).image
    with VideoWriter(tmp_path / "clip.mp4", (320, 320), 10) as writer:
        for number in range(16):
            writer.write(pixels[40 + 4 * number :, 60 + 5 * number :][:320, :320])
    lines = run("video_with_tracker.py", tmp_path / "model.onnx", tmp_path / "clip.mp4")
    assert all(f"frame {number}: #{track} " in lines for number in range(16) for track in (1, 2, 3))
    words = [tmp_path / name for name in ("model.onnx", "fast.onnx", "clip.mp4")]
    lines = run("fast_rcnn_with_tracker.py", *words)
    assert len(re.findall(r"followed:.* #1 .*#2|followed:.* #2 #1", lines)) >= 12
    annotations = write_scenes(tmp_path / "val", 12, seed=9)
    write_scenes(tmp_path / "train", 100, seed=7)
    words = [tmp_path / "train" / "images", tmp_path / "val" / "images", annotations, tmp_path / "int8.onnx"]
    lines = run("quantize_within_budget.py", tmp_path / "model.onnx", *words, "0.05")
    assert "mask AP" in lines
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * (tmp_path / "model.onnx").stat().st_size


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_short_run_and_listed(path: Path) -> None:
    assert f'run("{path.name}"' in Path(__file__).read_text(encoding="utf-8")
    source = path.read_text(encoding="utf-8")
    assert f"    python samples/{path.name}" in source
    assert 15 <= len(source.splitlines()) <= 60
    assert f"python samples/{path.name}" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_everything_else_is_listed_too() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ".md", ".json", ""}}
    assert names == {"jetson_setup.sh", "nuclei.safetensors", "quickstart.ipynb"}
    assert all(f"samples/{name}" in text for name in [*names, "ci/gate.sh"])
