"""What is proven of every family that detects: on every runtime, alone, three sizes in a batch, without an object.

The models are narrow and trained (see `families`): what they detect is no tie, so that detections are compared, not
tensors. The files `test_families_*.py` hold the families, each with a class that takes its tests from `DetectionProof`
and a fixture `exported`; `scripts/readme_tables.py` makes the README's table of their results.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from families import load
from numpy.typing import NDArray
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.canvas import place_on_canvas, placement_of
from edgemask.detections import Detections
from edgemask.export import ExportReport, export_onnx
from edgemask.parity import TOLERANCES, ParityReport, compare
from edgemask.reference import ReferenceDetector
from edgemask.runtimes import Detector, read_model
from edgemask.runtimes.inputs import rois_of
from edgemask.runtimes.results import detections_of
from edgemask.scenes import CLASS_NAMES, draw_scene
from edgemask.spec import ModelSpec

CANVAS = (160, 192)
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
OBJECTS = {
    "square": draw_scene(0, seed=40, size=128, objects=5).image,
    "wide": draw_scene(1, seed=40, size=160, objects=6).image[10:150],
    "small": draw_scene(2, seed=40, size=100, objects=4).image,
}
# Textures: on a plain image every anchor has the same score, and any rounding decides between them.
EMPTY = {f"texture {index}": draw_scene(index, seed=40, size=128, objects=0).image for index in (3, 6)}
# Three sizes that nearly fill their common canvas: where it is empty, all anchors have the same scores, and PyTorch
# promises no order of equal ones.
BATCH = {"wide": OBJECTS["wide"], "square": OBJECTS["square"][:106], "low": EMPTY["texture 3"][:102, :127]}
KEYPOINT_DISTANCE = 0.01  # pixels, the median


@dataclass(frozen=True)
class Variant:
    """A family, and how it is exported: any canvas and any batch, unless said otherwise."""

    family: str
    options: dict[str, Any] = field(default_factory=lambda: {"batch": "dynamic"})


FIXED = {"shape": CANVAS, "batch": 3}
# Every way to build a graph once. The others differ from these in blocks, widths or heads that share their code, and
# are proven by `make soak`: each costs twenty seconds of export.
EVERY_DAY = {"mask_bottleneck", "mask_mobilenet_large", "mask_v2", "mask_c4", "mask_keypoint"}


def parameters(names: Iterable[str]) -> list[ParameterSet]:
    """Families as parameters of a fixture."""
    return [pytest.param(name, marks=[] if name in EVERY_DAY else pytest.mark.soak) for name in names]


def common_canvas(images: dict[str, NDArray[np.uint8]], spec: ModelSpec) -> tuple[int, int]:
    """The smallest canvas that holds all of them."""
    sides = [placement_of((image.shape[0], image.shape[1]), spec).canvas for image in images.values()]
    return max(height for height, _ in sides), max(width for _, width in sides)


def exported_variant(variant: Variant, path: Path) -> tuple[GeneralizedRCNN, ExportReport]:
    """The fitted model, and the file that it was exported to."""
    model = load(variant.family)
    assert isinstance(model, GeneralizedRCNN)
    return model, export_onnx(model, path, class_names=CLASS_NAMES, verify=False, **variant.options)


Pairs = list[tuple[str, Detections, Detections]]


def alone(model: GeneralizedRCNN, report: ExportReport, device: str, images: dict[str, NDArray[np.uint8]]) -> Pairs:
    """What PyTorch and the file find on each image by itself, through the API that users call."""
    reference = ReferenceDetector(model, report.spec)
    boxes = [reference.propose(image) if report.spec.proposals == "input" else None for image in images.values()]
    with Detector(read_model(report.path), device) as detector:
        return [
            (name, reference.predict(image, proposals=own), detector.predict(image, proposals=own))
            for (name, image), own in zip(images.items(), boxes, strict=True)
        ]


def together(model: GeneralizedRCNN, report: ExportReport, device: str, images: dict[str, NDArray[np.uint8]]) -> Pairs:
    """What PyTorch finds on each image by itself and the file on all of them in one run, on one canvas."""
    spec = report.spec.replace(canvas=common_canvas(images, report.spec))
    reference = ReferenceDetector(model, spec)
    placed = [place_on_canvas(image, spec) for image in images.values()]
    assert not any(placement.resized_beyond_reference for _, placement in placed)
    boxes = [reference.propose(image) if spec.proposals == "input" else None for image in images.values()]
    rois = None
    if spec.proposals == "input":
        rois = rois_of(boxes, [placement for _, placement in placed], len(placed), spec)
    with Detector(read_model(report.path), device) as detector:
        sizes = np.array([placement.size for _, placement in placed], np.int64)
        outputs = detector.run(np.stack([canvas for canvas, _ in placed]), sizes, rois)
    return [
        (name, reference.predict(image, proposals=own), detections_of(outputs, index, placement, spec, device))
        for index, ((name, image), own, (_, placement)) in enumerate(zip(images.items(), boxes, placed, strict=True))
    ]


def proven(pairs: Pairs, report: ExportReport) -> ParityReport:
    """The comparison, which held."""
    found = compare(pairs, TOLERANCES["fp32"], max_detections=report.spec.max_detections)
    found.raise_for_failure()
    assert found.tasks == report.spec.tasks
    if "keypoints" in report.spec.tasks:
        assert found.keypoint_distance_median <= KEYPOINT_DISTANCE
        for _, expected, got in pairs:
            if len(expected) == len(got):
                np.testing.assert_allclose(got.keypoint_scores, expected.keypoint_scores, atol=1e-3)
    return found


class DetectionProof:
    """The tests; a sub-class sees to the fixture `exported` of its module."""

    @pytest.mark.parametrize("device", DEVICES)
    def test_alone(self, exported: tuple[GeneralizedRCNN, ExportReport], device: str) -> None:
        pairs = alone(*exported, device, OBJECTS)
        found = proven(pairs, exported[1])
        assert found.matched >= 12
        assert sum(int((got.scores > 0.5).sum()) for _, _, got in pairs) >= 5, "the model is sure of what it finds"

    @pytest.mark.parametrize("device", DEVICES)
    def test_three_sizes_in_a_batch(self, exported: tuple[GeneralizedRCNN, ExportReport], device: str) -> None:
        pairs = together(*exported, device, BATCH)
        assert proven(pairs, exported[1]).matched >= 8

    @pytest.mark.parametrize("device", DEVICES)
    def test_without_objects(self, exported: tuple[GeneralizedRCNN, ExportReport], device: str) -> None:
        _, report = exported
        pairs = alone(*exported, device, EMPTY)
        assert any(len(expected) == 0 for _, expected, _ in pairs), "one image has no detection at all"
        for name, expected, got in pairs:
            assert got.image_size == EMPTY[name].shape[:2]
            assert len(got) == len(expected)
            assert (got.masks is None) == ("masks" not in report.spec.tasks)
            assert (got.keypoints is None) == ("keypoints" not in report.spec.tasks)

    @pytest.mark.parametrize("device", DEVICES)
    def test_an_empty_image_poisons_nothing(self, exported: tuple[GeneralizedRCNN, ExportReport], device: str) -> None:
        model, report = exported
        images = [OBJECTS["square"], EMPTY["texture 3"], OBJECTS["square"]]
        options: dict[str, Any] = {}
        if report.spec.proposals == "input":
            boxes = ReferenceDetector(model, report.spec).propose(images[0])
            options = {"proposals": [boxes, np.zeros((0, 4), np.float32), boxes]}
        with Detector(read_model(report.path), device) as detector:
            before, _, after = detector.predict(images, **options)
        assert len(before) > 0
        for name in ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
