"""`--proposals`: a model exported without its RPN, fed with boxes from a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import narrow_c4
from PIL import Image

from edgemask.cli import main
from edgemask.detections import Detections
from edgemask.export import export_onnx
from edgemask.reference import ReferenceDetector
from edgemask.runtimes import read_model
from edgemask.scenes import draw_scene

MODEL = f"{narrow_c4.__module__}:{narrow_c4.__name__}"
SIZES = {"a.png": 120, "b.png": 90}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = narrow_c4()
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    export_onnx(model, path, shape=(96, 96), proposals="input", verify=False)
    return model, path


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    """Pixels of two scenes by name; the files lie in the folder `in`."""
    (tmp_path / "in").mkdir()
    pixels = {name: draw_scene(index, seed=5, size=size).image for index, (name, size) in enumerate(SIZES.items())}
    for name, values in pixels.items():
        Image.fromarray(values).save(tmp_path / "in" / name)
    return pixels


def records_of(boxes: Any, name: str) -> list[dict[str, Any]]:
    """As `predict --coco` writes them."""
    scores = np.linspace(1, 0.5, len(boxes), dtype=np.float32)
    found = Detections(boxes, scores, np.ones(len(boxes), np.int64), image_size=(SIZES[name],) * 2)
    return [record | {"file_name": name} for record in found.to_coco(1)]


def test_predict_scores_the_boxes_of_the_file(
    exported: tuple[Any, Path], images: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = exported
    reference = ReferenceDetector(model, read_model(path).spec)
    boxes = {name: reference.propose(pixels)[: 30 if name == "a.png" else 5] for name, pixels in images.items()}
    given, coco = tmp_path / "boxes.json", tmp_path / "results.json"
    given.write_text(json.dumps(records_of(boxes["b.png"], "b.png") + records_of(boxes["a.png"], "a.png")))
    words = ["predict", str(path), str(tmp_path / "in"), "--device", "cpu", "--coco", str(coco), "--json"]
    assert main([*words, "--proposals", str(given)]) == 0
    record = json.loads(capsys.readouterr().out)
    results = json.loads(coco.read_text())
    for one, (name, pixels) in zip(record["images"], images.items(), strict=True):
        expected = reference.predict(pixels, proposals=boxes[name])
        found = [result for result in results if result["file_name"] == name]
        assert one["detections"] == len(expected) == len(found) > 3
        np.testing.assert_allclose([result["score"] for result in found], expected.scores, atol=1e-4)
        corners = np.array([result["bbox"] for result in found])
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(corners, expected.boxes, atol=0.01)


def test_an_image_without_boxes_has_no_detection(
    exported: tuple[Any, Path], images: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "boxes.json"
    given.write_text(json.dumps(records_of(np.array([[10, 10, 60, 70]], np.float32), "a.png")))
    words = ["predict", str(exported[1]), str(tmp_path / "in"), "--device", "cpu", "--json"]
    assert main([*words, "--proposals", str(given)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["detections"] > 0 for one in record["images"]] == [True, False]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (None, "proposals: expected boxes for each image, got None"),
        ([{"file_name": "c.png", "bbox": [1, 2, 3, 4]}], "has no box for"),
        ([{"file_name": "a.png", "bbox": [1, 2, 3]}], "is no list of boxes"),
        ([{"file_name": "a.png", "bbox": [100, 100, 40, 10]}], "inside the image of 120 x 120 pixels"),
    ],
)
def test_predict_refuses_other_boxes(
    exported: tuple[Any, Path],
    images: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    entries: Any,
    words: str,
) -> None:
    options = []
    if entries is not None:
        (tmp_path / "boxes.json").write_text(json.dumps(entries))
        options = ["--proposals", str(tmp_path / "boxes.json")]
    assert main(["predict", str(exported[1]), str(tmp_path / "in"), "--device", "cpu", *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_boxes_for_a_model_that_finds_its_own(
    images: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from toy_model import write_toy

    (tmp_path / "boxes.json").write_text(json.dumps([{"file_name": "a.png", "bbox": [1, 2, 3, 4]}]))
    words = ["predict", str(write_toy(tmp_path / "toy.onnx")), str(tmp_path / "in"), "--device", "cpu"]
    assert main([*words, "--proposals", str(tmp_path / "boxes.json")]) == 2
    assert "this model finds its own" in capsys.readouterr().err


def test_export_without_the_rpn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m.onnx"
    words = ["export", MODEL, "-o", str(output), "--shape", "96x96", "--proposals", "input", "--no-verify"]
    assert main(words) == 0
    assert "given by the caller" in capsys.readouterr().out
    file = read_model(output)
    assert (file.spec.proposals, file.spec.outputs) == ("input", "flat")
    assert [value.name for value in file.proto.graph.input] == ["images", "image_sizes", "proposals"]
    assert not any(node.name.startswith("rpn") for node in file.proto.graph.node)
    assert main(["inspect", str(output)]) == 0
    assert "given by the caller" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem", "remedy"),
    [
        (["--proposals", "0"], "--proposals is '0'", "expected a number of boxes, such as 300, or input"),
        (["--proposals", "-1"], "--proposals is '-1'", "such as 300, or input"),
        (["--proposals", "all"], "--proposals is 'all'", "such as 300, or input"),
        (["--proposals", "100000"], "--proposals is '100000'", "such as 300, or input"),
        (["--target", "tensorrt"], "needs a fixed canvas, got a dynamic one", "--shape HxW"),
        (["--target", "tensorrt", "--shape", "96x96", "--batch", "dynamic"], "needs a fixed batch", "--batch N"),
        (
            ["--target", "tensorrt", "--shape", "96x96", "--proposals", "3841"],
            "chooses at most 3840 at a time, the model asks for 3841 proposals",
            "lower that number",
        ),
    ],
)
def test_export_refuses_before_the_work(
    options: list[str], problem: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", MODEL, "-o", str(tmp_path / "m.onnx"), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert problem in printed.err
    assert remedy in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []
