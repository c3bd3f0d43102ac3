"""Commands that open a model, on a model of a few nodes; the exporter itself is tested in tests/export."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_model import SPEC, write_toy

from edgemask.cli import main
from edgemask.cli.predict import image_files, image_ids, picture_paths
from edgemask.errors import DatasetError, UsageError


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


def test_export_passes_its_options_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgemask.checkpoints
    import edgemask.export

    calls: list[Any] = []

    def load_model(source: str, **options: Any) -> tuple[str, Any]:
        calls.append((source, options))
        return "the model", SPEC

    def export_onnx(model: str, path: Path, **options: Any) -> Any:
        calls.append((model, path, options))
        return edgemask.export.ExportReport(str(path), SPEC, 12, 34_000, 5.6, None)

    monkeypatch.setattr(edgemask.checkpoints, "load_model", load_model)
    monkeypatch.setattr(edgemask.export, "export_onnx", export_onnx)
    (tmp_path / "classes.txt").write_text("dot\nline\n")
    words = ["export", "package.module:make", "-o", str(tmp_path / "m.onnx"), "--weights", "w.pth"]
    words += ["--classes", str(tmp_path / "classes.txt"), "--for-image", "48x100", "--batch", "dynamic", "--no-verify"]
    words += ["--precision", "fp16"]
    assert main([*words, "--target", "openvino", "--proposals", "50", "--score-threshold", "0.3"]) == 0
    source, options = calls[0]
    assert source == "package.module:make"
    assert options == {"weights": "w.pth", "class_names": ["dot", "line"], "num_classes": None}
    assert calls[1][:2] == ("the model", tmp_path / "m.onnx")
    assert calls[1][2] == {
        "shape": (64, 128),
        "precision": "fp16",
        "batch": "dynamic",
        "spec": SPEC,
        "target": "openvino",
        "proposals": 50,
        "max_detections": None,
        "score_threshold": 0.3,
        "verify": False,
    }
    shown = capsys.readouterr().out
    assert "0.0 MB, 12 nodes" in shown
    assert "--reference package.module:make" in shown


@pytest.mark.slow
def test_export_prints_one_json_object_and_nothing_else(tmp_path: Path, repository: Path) -> None:
    """The real exporter, whose libraries like to print."""
    from narrow import ARGUMENTS, narrow

    from edgemask.checkpoints import save_checkpoint
    from edgemask.description import spec_of

    model = narrow()
    spec = spec_of(model, builder="maskrcnn_compact_fpn", builder_arguments=ARGUMENTS)
    save_checkpoint(tmp_path / "narrow.safetensors", model, spec)
    output = tmp_path / "narrow.onnx"
    command = [sys.executable, "-m", "edgemask", "export", str(tmp_path / "narrow.safetensors"), "-o", str(output)]
    command += ["--shape", "64x96", "--no-verify", "--json"]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["path"] == str(output)
    assert record["spec"]["canvas"] == [64, 96]
    assert record["bytes"] == output.stat().st_size
