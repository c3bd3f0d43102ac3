"""FCN and DeepLab: on every runtime, alone, three sizes in a batch, and without an object."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, load
from family_proof import BATCH, DEVICES, EMPTY, OBJECTS, common_canvas
from PIL import Image
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.canvas import place_on_canvas
from edgemask.cli import main
from edgemask.description import spec_of
from edgemask.errors import UsageError
from edgemask.export import ExportReport, export_onnx
from edgemask.files import write_image
from edgemask.masks import rle_to_bitmap
from edgemask.parity import SEMANTIC_TOLERANCES, compare_maps
from edgemask.runtimes import Detector, read_model
from edgemask.runtimes.results import map_of
from edgemask.scenes import CLASS_NAMES, draw_scene, write_scenes
from edgemask.semantic import BACKGROUND
from edgemask.semantic_reference import SemanticReference
from edgemask.validation import validate

Exported = tuple[_SimpleSegmentationModel, ExportReport]
FAMILY_NAMES = [name for name, family in FAMILIES.items() if family.tasks == ("semantic",)]


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = load(request.param)
    spec = spec_of(model, class_names=CLASS_NAMES).replace(min_size=128, max_size=256)
    path = tmp_path_factory.mktemp("semantic") / "m.onnx"
    return model, export_onnx(model, path, spec=spec, batch="dynamic", verify=False)


@pytest.mark.parametrize("device", DEVICES)
def test_alone(exported: Exported, device: str) -> None:
    model, report = exported
    reference = SemanticReference(model, report.spec)
    images = OBJECTS | {"tall": draw_scene(4, seed=40, size=150).image[:, 30:110]}
    with Detector(read_model(report.path), device) as detector:
        pairs = [(name, reference.segment(image), detector.segment(image)) for name, image in images.items()]
    found = compare_maps(pairs, SEMANTIC_TOLERANCES["fp32"])
    found.raise_for_failure()
    assert len(found.labels) >= 4
    assert 0.2 < found.background_share < 0.95
    for name, _, got in pairs:
        assert got.image_size == images[name].shape[:2]


@pytest.mark.parametrize("device", DEVICES)
def test_three_sizes_in_a_batch(exported: Exported, device: str) -> None:
    model, report = exported
    spec = report.spec.replace(canvas=common_canvas(BATCH, report.spec))
    reference = SemanticReference(model, spec)
    placed = [place_on_canvas(image, spec) for image in BATCH.values()]
    with Detector(read_model(report.path), device) as detector:
        sizes = np.array([placement.size for _, placement in placed], np.int64)
        outputs = detector.run(np.stack([canvas for canvas, _ in placed]), sizes)
    pairs = [
        (name, reference.segment(image), map_of(outputs, index, placement, spec, device))
        for index, ((name, image), (_, placement)) in enumerate(zip(BATCH.items(), placed, strict=True))
    ]
    compare_maps(pairs, SEMANTIC_TOLERANCES["fp32"]).raise_for_failure()


@pytest.mark.parametrize("device", DEVICES)
def test_without_objects(exported: Exported, device: str) -> None:
    model, report = exported
    reference = SemanticReference(model, report.spec)
    with Detector(read_model(report.path), device) as detector:
        before = detector.segment(OBJECTS["square"])
        found = detector.segment(list(EMPTY.values()))
        after = detector.segment(OBJECTS["square"])
    for image, got in zip(EMPTY.values(), found, strict=True):
        expected = reference.segment(image)
        assert (got.labels == expected.labels).mean() >= 0.999
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.scores, before.scores)


def test_validated_and_refused(exported: Exported, tmp_path: Path) -> None:
    model, report = exported
    for name, image in OBJECTS.items():
        write_image(tmp_path / f"{name}.png", image)
    validation = validate(report.path, model, tmp_path, device="cpu")
    validation.raise_for_failure()
    assert validation.reports[0].parity.summary()["pixel_agreement"] >= 0.999
    worse = copy.deepcopy(model)
    with torch.no_grad():
        worse.classifier[-1].bias[1] += 2
    (other,) = validate(report.path, worse, tmp_path, device="cpu", pictures=2).reports
    assert (other.passed, other.culprit, len(other.gallery)) == (False, "head", 2)
    assert other.gallery[0].damage >= other.gallery[1].damage > 0
    with Detector(read_model(report.path), "cpu") as detector, pytest.raises(UsageError, match=r"segment\(\)"):
        detector.predict(OBJECTS["square"])


def test_predict_writes_maps(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = exported
    write_image(tmp_path / "square.png", OBJECTS["square"])
    words = ["predict", report.path, str(tmp_path / "square.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--coco", str(tmp_path / "stuff.json"), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["images"]
    with Detector(read_model(report.path), "cpu") as detector:
        found = detector.segment(OBJECTS["square"])
    results = json.loads((tmp_path / "stuff.json").read_text())
    assert record["detections"] == len(results) == len(found.present.keys() - {BACKGROUND}) > 0
    areas = {result["category_id"]: int(rle_to_bitmap(result["segmentation"]).sum()) for result in results}
    assert areas == {label: int(found.bitmap(label).sum()) for label in found.present if label != BACKGROUND}
    with Image.open(tmp_path / "out" / "square.png") as picture:
        assert picture.width == 128
        assert picture.height > 128, "a legend lies below the picture"


def test_inspect_and_annotations(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, report = exported
    assert main(["inspect", report.path, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["spec"]["tasks"] == ["semantic"]
    assert [output["name"] for output in record["outputs"]] == ["labels", "scores"]
    write_scenes(tmp_path, 1)
    with pytest.raises(UsageError, match="annotations list objects"):
        validate(report.path, model, tmp_path / "images", annotations=tmp_path / "annotations.json", device="cpu")
