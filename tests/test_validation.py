"""Validation: images in, verdict out; with fake detectors that find coloured rectangles, and with real ones."""

import dataclasses
import json
import math
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemask.detections import Detections
from edgemask.errors import DatasetError, DependencyMissing, ImageError, ModelFileError, ParityError, UsageError
from edgemask.evaluation import read_truth
from edgemask.masks import bitmap_to_rle
from edgemask.parity import TOLERANCES
from edgemask.spec import ModelSpec
from edgemask.validation import (
    Reference,
    ValidationReport,
    check_categories,
    choose_images,
    compare_detectors,
    validate,
)

SPEC = ModelSpec(
    class_names=("red", "dark", "pale"), category_ids=(3, 5, 90), min_size=64, max_size=128, canvas=(128, 128)
)
SHAPES = ((64, 64), (64, 100), (80, 60), (96, 96), (64, 64))
Fault = Callable[[Detections], Detections]


class Finder:
    """Finds the rectangle of each colour: what a perfect detector would."""

    def __init__(self, spec: ModelSpec = SPEC, fault: Fault = lambda found: found, device: str = "fake") -> None:
        self.spec, self.fault, self.device = spec, fault, device
        self.seen: list[weakref.ref[NDArray[np.uint8]]] = []

    def predict(self, source: NDArray[np.uint8], /) -> Detections:
        self.seen.append(weakref.ref(source))
        boxes, scores, labels = [], [], []
        for label in range(1, 4):
            rows, columns = np.nonzero(source[..., 0] == 50 * label)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                scores.append(1 - label / 10)
                labels.append(label)
        found = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(labels, np.int64),
            np.full((len(labels), 28, 28), 0.99, np.float32),
            image_size=source.shape[:2],
        )
        return self.fault(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images with rectangles, the last without any, their annotations, and a text file."""
    rng = np.random.default_rng(0)
    images, objects = [], []
    (tmp_path / "images").mkdir()
    for index, (height, width) in enumerate(SHAPES):
        pixels = np.zeros((height, width, 3), np.uint8)
        for label in range(1, 4) if index < 4 else ():
            left = width // 3 * (label - 1)
            top, right, bottom = int(rng.integers(0, 20)), left + int(rng.integers(8, 19)), int(rng.integers(40, 60))
            pixels[top:bottom, left:right] = 50 * label
            objects.append(
                {
                    "id": len(objects),
                    "image_id": 40 + index,
                    "category_id": SPEC.category_ids[label - 1],
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": bitmap_to_rle(pixels[..., 0] == 50 * label),
                }
            )
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        images.append({"id": 40 + index, "file_name": f"{index}.png", "height": height, "width": width})
    (tmp_path / "images" / "notes.txt").write_text("no image", encoding="utf-8")
    categories = [{"id": i, "name": name} for i, name in zip(SPEC.category_ids, SPEC.class_names, strict=True)]
    document = {"images": images, "categories": categories, "annotations": objects}
    (tmp_path / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def changed(found: Detections, **changes: Any) -> Detections:
    kept = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.init}
    return Detections(**{**kept, **changes})


def run(
    folder: Path,
    fault: Fault = lambda found: found,
    *,
    spec: ModelSpec = SPEC,
    annotated: bool = True,
    **more: Any,
) -> ValidationReport:
    annotations = str(folder / "annotations.json") if annotated else None
    document = None if annotations is None else read_truth(annotations)
    return compare_detectors(
        Finder(spec, fault, "cpu"),
        Reference(Finder(SPEC, device="torch"), "trained.safetensors"),
        choose_images(folder / "images", document),
        model="m.onnx",
        annotations=annotations,
        **({"tolerance": TOLERANCES[spec.precision]} | more),
    )


def test_the_same_passes(folder: Path) -> None:
    report = run(folder)
    assert report.passed
    report.raise_for_failure()
    assert (report.parity.images, report.parity.images_without_objects, report.parity.matched) == (5, 1, 12)
    assert report.coco is not None
    for side in ("reference", "candidate"):
        assert report.coco[side]["boxes"].ap == pytest.approx(1)
        assert report.coco[side]["masks"].ap > 0.5
    assert (report.model, report.reference) == ("m.onnx", "trained.safetensors")
    assert (report.device, report.reference_device, report.precision) == ("cpu", "torch", "fp32")
    assert 0 < report.milliseconds < 1000
    assert 0 < report.reference_milliseconds < 1000
    assert [measure.name for measure in report.measures][-2:] == ["box AP difference", "mask AP difference"]


def test_without_annotations_the_reference_is_the_truth(folder: Path) -> None:
    report = run(folder, annotated=False)
    assert report.passed
    assert report.coco is None
    assert not run(folder, lambda found: found[1:], annotated=False).passed


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        pytest.param(
            lambda d: changed(d, labels=d.labels % 3 + 1),
            ["matched share", "mean mask IoU", "box AP difference", "mask AP difference"],
            id="labels shifted",
        ),
        pytest.param(
            lambda d: changed(d, masks=np.full_like(d.masks, 0.5)), ["mean mask IoU", "mask AP difference"], id="masks"
        ),
        pytest.param(
            lambda d: d[d.scores > 0.75],
            ["matched share", "box AP difference", "mask AP difference"],
            id="one class lost",
        ),
    ],
)
def test_faults_fail(folder: Path, fault: Fault, failing: list[str]) -> None:
    report = run(folder, fault)
    assert [measure.name for measure in report.measures if not measure.passed] == failing
    assert list(report.failures) == [measure.failure for measure in report.measures if not measure.passed]
    with pytest.raises(ParityError, match=failing[0]):
        report.raise_for_failure()


def test_precision_alone_can_fail(folder: Path) -> None:
    lenient = dataclasses.replace(TOLERANCES["fp32"], matched_share=None, mask_iou=None, ap_difference=0.05)
    report = run(folder, lambda d: changed(d, labels=d.labels % 3 + 1), tolerance=lenient)
    assert report.parity.passed
    assert report.failures[0] == "box AP difference 100 points is above 5 points"
    with pytest.raises(ParityError, match="box AP difference"):
        report.raise_for_failure()


def test_int8_is_judged_by_precision_where_there_are_annotations(folder: Path) -> None:
    int8 = SPEC.replace(precision="int8")
    report = run(folder, lambda d: changed(d, scores=d.scores * np.float32(0.2)), spec=int8)
    assert report.passed
    names = [measure.name for measure in report.measures if measure.limit is not None]
    assert names == ["box AP, share of the reference's", "mask AP, share of the reference's"]
    assert "matched share" in {measure.name for measure in report.measures}
    lossy = run(folder, lambda d: d[d.scores > 0.75], spec=int8)
    assert lossy.failures[0].startswith("box AP, share of the reference's 66.6")
    assert lossy.failures[0].endswith("is below 99 %")
    images_only = run(folder, lambda d: d[d.scores > 0.75], spec=int8, annotated=False)
    assert images_only.failures == ("matched share 80 % is below 97 %",)


def test_precision_that_cannot_be_measured_fails(folder: Path) -> None:
    path = folder / "annotations.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"annotations": []}), encoding="utf-8")
    report = run(folder)
    assert report.parity.passed
    assert "box AP difference could not be measured, 0.1 points is asked" in report.failures


def test_results_below_the_threshold_count_for_coco_alone(folder: Path) -> None:
    """COCO's curve goes down to score 0; parity starts at 0.05."""
    report = run(folder, lambda d: changed(d, scores=d.scores * np.float32(0.01)), annotated=True)
    assert report.coco is not None
    assert report.coco["candidate"]["boxes"].ap == pytest.approx(1)
    assert report.parity.candidate == 0


def test_images_too_large_for_the_canvas_are_left_out_by_name(folder: Path) -> None:
    narrow = SPEC.replace(canvas=(128, 96))
    report = run(folder, spec=narrow)  # 64 x 100 needs 64 x 100, which is wider than the canvas
    assert report.excluded == ("1.png",)
    assert report.parity.images == 4
    assert report.passed
    assert report.coco is not None
    assert report.coco["candidate"]["boxes"].ap == pytest.approx(1)


def test_no_image_left_fails(folder: Path) -> None:
    report = run(folder, spec=SPEC.replace(canvas=(32, 32)))
    assert len(report.excluded) == len(SHAPES)
    assert report.coco is None
    assert report.failures[0].startswith("nothing was compared: 0 images")
    assert math.isnan(report.milliseconds)


def test_images_are_released_one_by_one(folder: Path) -> None:
    class Counting(Finder):
        def predict(self, source: NDArray[np.uint8], /) -> Detections:
            assert [seen() for seen in self.seen] == [None] * len(self.seen)
            return super().predict(source)

    images = choose_images(folder / "images")
    reference = Counting()
    compare_detectors(Finder(), Reference(reference, "r"), images, model="m", tolerance=TOLERANCES["fp32"])
    assert len(reference.seen) == len(images)


def test_choosing_images(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    images = folder / "images"
    everything = [f"{index}.png" for index in range(5)]
    assert [image.name for image in choose_images(images)] == everything
    assert [image.identity for image in choose_images(images, document)] == [40, 41, 42, 43, 44]
    assert [image.name for image in choose_images(images, document, limit=2)] == everything[:2]
    paths = [images / "3.png", str(images / "1.png")]
    assert [image.path.name for image in choose_images(paths)] == ["3.png", "1.png"]
    assert [image.identity for image in choose_images(paths, document)] == [43, 41]
    assert [image.identity for image in choose_images(images / "2.png", document)] == [42]


def test_images_that_do_not_fit_are_refused(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    images = folder / "images"
    (folder / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "stranger.png")
    with pytest.raises(DatasetError, match=r"no image in .*empty"):
        choose_images(folder / "empty")
    with pytest.raises(DatasetError, match=r"no folder .*absent"):
        choose_images(folder / "absent")
    with pytest.raises(DatasetError, match=r"stranger\.png is not in the annotations"):
        choose_images([folder / "stranger.png"], document)
    with pytest.raises(DatasetError, match=r"1 of 2 images are missing: .*7\.png"):
        choose_images([images / "0.png", images / "7.png"])
    with pytest.raises(UsageError, match="expected 1 or more"):
        choose_images(images, limit=0)
    (images / "3.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 5 images are missing: .*3\.png"):
        choose_images(images, document)
    del document["images"][1]["file_name"]
    with pytest.raises(DatasetError, match="image 41 of the annotations has no file_name"):
        choose_images(images, document)


def test_an_unreadable_image_is_named(folder: Path) -> None:
    (folder / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"2\.png"):
        run(folder)


def test_an_image_too_narrow_for_the_model_is_named(folder: Path) -> None:
    Image.new("RGB", (2000, 1)).save(folder / "images" / "2.png")
    with pytest.raises(ImageError, match=r"2\.png: image of 1 x 2000 pixels"):
        run(folder, annotated=False)


def test_categories_must_be_the_models(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    check_categories(document, SPEC)
    check_categories(document | {"categories": document["categories"][:1]}, SPEC)
    check_categories(document, SPEC.replace(class_names=("class_1", "class_2", "class_3")))
    with pytest.raises(DatasetError, match=r"category 5 'dark', the model has 'blue'"):
        check_categories(document, SPEC.replace(class_names=("red", "blue", "pale")))
    with pytest.raises(DatasetError, match=r"category 90 'pale', the model has none with that id, but 3, 5, 6"):
        check_categories(document, SPEC.replace(category_ids=(3, 5, 6)))


def compact_model(**settings: Any) -> Any:
    torch = pytest.importorskip("torch")
    from edgemask.models import build

    torch.manual_seed(0)
    small = {"widths": (8, 16, 16, 16), "pyramid_channels": 16, "head_width": 16, "min_size": 64, "max_size": 128}
    return build("maskrcnn_compact_fpn", 4, **(small | settings))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A narrow model with random weights, as an ONNX file and as it is."""
    pytest.importorskip("onnxruntime")
    export_onnx = pytest.importorskip("edgemask.export").export_onnx
    model = compact_model()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    names = {"class_names": SPEC.class_names, "category_ids": SPEC.category_ids}
    export_onnx(model, path, shape="dynamic", verify=False, **names)
    return path, model


@pytest.mark.slow
def test_from_file_to_verdict(folder: Path, exported: tuple[Path, Any]) -> None:
    path, model = exported
    report = validate(path, model, folder / "images", annotations=folder / "annotations.json", device="cpu")
    assert report.parity.passed, report.failures
    assert report.parity.matched > 100
    assert report.coco is not None
    assert report.coco["candidate"]["boxes"].ap == pytest.approx(report.coco["reference"]["boxes"].ap, abs=1e-3)
    assert (report.device, report.reference_device, report.notes) == ("cpu", "torch", ())
    assert report.reference == "the MaskRCNN given"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A model file that finds the same two objects on every image."""
    pytest.importorskip("onnxruntime")
    from toy_model import write_toy

    return write_toy(tmp_path / "toy.onnx")


def test_another_file_as_reference(folder: Path, toy: Path) -> None:
    report = validate(toy, toy, folder / "images", device="cpu", limit=2)
    assert report.passed
    assert report.parity.images == 2
    assert report.reference_device == "cpu"


@pytest.mark.slow
def test_other_weights_fail_and_are_noted(folder: Path, exported: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    path, _ = exported
    other = compact_model()
    with torch.no_grad():
        other.roi_heads.box_predictor.cls_score.bias += torch.tensor([0, 3.0, 0, 0])
    report = validate(path, other, folder / "images", device="cpu", limit=2)
    assert not report.passed
    assert report.notes == ("the reference has other weights than those that the model was exported from",)


def test_a_reference_that_finds_something_else(folder: Path, toy: Path) -> None:
    from toy_model import write_toy

    other = write_toy(folder / "other.onnx", scores=(0.9, 0.3))
    report = validate(toy, other, folder / "images", device="cpu")
    assert report.failures == ("matched share 50 % is below 99.9 %",)


def test_annotations_of_other_classes_are_refused_before_any_image_is_run(folder: Path, toy: Path) -> None:
    with pytest.raises(DatasetError, match="the annotations have the category 3 'red'"):
        validate(toy, toy, folder / "images", annotations=folder / "annotations.json", device="cpu")


def test_without_pytorch_another_file_is_offered(folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgemask.checkpoints", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DependencyMissing, match="give another ONNX file as reference"):
        validate(toy, "trained.safetensors", folder / "images", device="cpu")
    assert validate(toy, toy, folder / "images", device="cpu").passed


def test_references_that_cannot_be_meant(folder: Path, toy: Path) -> None:
    torch = pytest.importorskip("torch")
    path, images = toy, folder / "images"
    with pytest.raises(UsageError, match="no file and no builder"):
        validate(path, "nothing", images, device="cpu")
    with pytest.raises(ModelFileError, match=r"absent\.safetensors"):
        validate(path, folder / "absent.safetensors", images, device="cpu")
    with pytest.raises(ModelFileError, match=r"absent\.onnx"):
        validate(path, folder / "absent.onnx", images, device="cpu")
    with pytest.raises(UsageError, match="expected a path, a name or a torchvision model, got Linear"):
        validate(path, torch.nn.Linear(1, 1), images, device="cpu")
    from edgemask.models import build

    with pytest.raises(UsageError, match="expected the model's number of classes, 2, got 1"):
        validate(path, build("maskrcnn_compact_fpn", 2, widths=(8, 8, 8, 8)), images, device="cpu")
