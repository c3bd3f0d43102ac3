"""Every sample runs as its first lines say, and finds what `edgemask.load` finds."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import ARGUMENTS, BUILDER, narrow
from numpy.typing import NDArray
from PIL import Image
from toy_model import SPEC, busy_proto

import edgemask
from edgemask.canvas import place_on_canvas
from edgemask.checkpoints import save_checkpoint
from edgemask.description import spec_of
from edgemask.images import load_image
from edgemask.runtimes import write_model
from edgemask.scenes import draw_scene

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = sorted((REPOSITORY / "samples").glob("*.py"))
TESTED_ELSEWHERE = {"bench_resnet50.py": "benchmark/test_sample.py"}
# Few detections, far from each other: of an untrained model with many, any rounding flips one.
FEW = {"rpn_post_nms_top_n_test": 30, "box_detections_per_img": 8, "box_score_thresh": 0.3}
NAMES = ("red one", "green", "blue")
BOX_TOLERANCE = 1e-3  # pixels

Found = list[tuple[str, list[float]]]


def run(sample: str, *words: str | Path) -> str:
    """What a sample prints, started from the root of the repository as in its first lines."""
    result = subprocess.run(
        [sys.executable, f"samples/{sample}", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def printed(lines: str) -> Iterator[tuple[str, list[float]]]:
    """Class name, and score with box, of each line that tells of an object."""
    for match in re.finditer(r"^(.*?)((?: -?\d+\.\d{4}){5})$", lines, re.MULTILINE):
        yield match[1], [float(number) for number in match[2].split()]


def expected(path: Path, image: Path) -> Found:
    with edgemask.load(path, device="cpu") as detector:
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
    words: list[str | Path] = [
        picture,
        "--checkpoint",
        folder / "narrow.safetensors",
        "--device",
        "cpu",
        "-o",
        folder / "out",
    ]
    lines = run("export_and_predict.py", *words)
    return folder / "out" / "model.onnx", lines


@pytest.mark.slow
def test_export_and_predict(exported: tuple[Path, str], picture: Path) -> None:
    path, lines = exported
    assert_same(list(printed(lines)), expected(path, picture))
    assert "\non cpu\n" in lines
    drawn = path.with_name("picture.png")
    assert lines.splitlines()[0].startswith(f"{path}: ")
    assert lines.splitlines()[-1] == str(drawn)
    assert load_image(drawn).shape == load_image(picture).shape
    assert not np.array_equal(load_image(drawn), load_image(picture))


@pytest.mark.soak
def test_export_and_predict_of_the_packaged_model(tmp_path: Path) -> None:
    if not (resources.files("edgemask") / "assets" / "sample.safetensors").is_file():
        pytest.skip("edgemask/assets/sample.safetensors is absent")
    found = printed(run("export_and_predict.py", "--device", "cpu", "-o", tmp_path))
    assert any(numbers[0] > 0.5 for _, numbers in found)
    assert load_image(tmp_path / "picture.png").shape == (320, 320, 3)


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
@pytest.mark.parametrize("size", [(60, 81), (240, 130), (7, 300)])
def test_onnxruntime_only_prepares_images_as_we_do(changes: dict[str, Any], size: tuple[int, int]) -> None:
    sample = runpy.run_path(str(REPOSITORY / "samples" / "onnxruntime_only.py"))
    spec = SPEC.replace(**changes)
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    images, sizes = sample["prepared"](pixels, json.loads(spec.to_json()))
    canvas, placement = place_on_canvas(pixels, spec)
    assert sizes.tolist() == [list(placement.size)] * (spec.batch or 1)
    assert images.shape == (spec.batch or 1, *canvas.shape)
    np.testing.assert_allclose(images, np.broadcast_to(canvas, images.shape), rtol=0, atol=1e-4)


def test_onnxruntime_only_on_a_fixed_canvas(folder: Path, picture: Path) -> None:
    path = folder / "busy.onnx"
    write_model(busy_proto(), SPEC.replace(canvas=(64, 96)), path)
    lines = run("onnxruntime_only.py", path, picture)
    found = [(name.removeprefix(f"{picture}: "), numbers) for name, numbers in printed(lines)]
    assert_same(found, expected(path, picture))


def test_onnxruntime_only_is_true_to_its_name() -> None:
    source = (REPOSITORY / "samples" / "onnxruntime_only.py").read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}
    assert len(source.splitlines()) <= 60


@pytest.mark.slow
def test_custom_backbone(tmp_path: Path) -> None:
    lines = run("custom_backbone.py", "-o", tmp_path / "m.onnx")
    assert re.search(r"operators, [1-9]\d* detections as in PyTorch\n", lines)
    assert re.search(r"<Detections: 10 boxes with masks on 320 x 320 \(H x W\)> by \w+", lines)
    with edgemask.load(tmp_path / "m.onnx", device="cpu") as detector:
        assert (detector.spec.canvas, detector.spec.class_names) == ((256, 320), ("bolt", "nut"))
        assert detector.spec.parity is not None


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_run_and_listed(path: Path) -> None:
    test = (Path(__file__).parent / TESTED_ELSEWHERE.get(path.name, Path(__file__).name)).read_text(encoding="utf-8")
    call = f'"samples/{path.name}"' if path.name in TESTED_ELSEWHERE else f'run("{path.name}"'
    assert call in test
    assert f"python samples/{path.name}" in (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"    python samples/{path.name}" in path.read_text(encoding="utf-8")
