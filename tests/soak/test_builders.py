"""The real networks, every layer of them: exported and compared stage by stage.

Their weights are random, rescaled until every layer is active: that fits no object, so each stage is compared on the
same input, as `edgemask.divergence` does it. Minutes each: `make soak`.
"""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.description import spec_of
from edgemask.divergence import STAGE_TOLERANCES, StageCheck, compare_stages, first_divergence
from edgemask.export import ExportReport, export_onnx
from edgemask.images import load_image
from edgemask.models import build
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import read_model
from edgemask.semantic_reference import SemanticReference

pytestmark = pytest.mark.soak
SIZES = {"min_size": 320, "max_size": 448}
CANVAS = (448, 448)
BUILDERS = [
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    *(f"maskrcnn_resnet{depth}_fpn" for depth in (18, 34, 101, 152)),
    "maskrcnn_resnext50_32x4d_fpn",
    "maskrcnn_resnext101_32x8d_fpn",
    "maskrcnn_mobilenet_v3_large_fpn",
    "maskrcnn_mobilenet_v3_small_fpn",
    "maskrcnn_resnet50_c4",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskkeypointrcnn_resnet50_fpn",
]
SEMANTIC_BUILDERS = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large"]
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]


@pytest.fixture(scope="module")
def bench(repository: Path) -> ModuleType:
    """The sample that gives random weights a spread."""
    place = importlib.util.spec_from_file_location("bench_resnet50", repository / "scripts" / "bench_resnet50.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[NDArray[np.uint8]]:
    """Two photographs of different shapes."""
    photographs = [load_image(path) for path in sorted((shared_data / "coco" / "val").glob("*.jpg"))[:40]]
    wide = next(image for image in photographs if image.shape[0] < image.shape[1])
    tall = next(image for image in photographs if image.shape[0] > image.shape[1])
    return [wide, tall]


@pytest.fixture(scope="module", params=BUILDERS)
def exported(
    request: pytest.FixtureRequest,
    bench: ModuleType,
    pictures: list[NDArray[np.uint8]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[GeneralizedRCNN, ExportReport]:
    name: str = request.param
    torch.manual_seed(0)
    model: Any = build(name, 2 if "keypoint" in name else 91, **SIZES)
    bench.calibrate(model, ReferenceDetector(model, spec_of(model)), pictures[0])
    path = tmp_path_factory.mktemp("real") / "m.onnx"
    report = export_onnx(model, path, shape=CANVAS, verify=False)
    return model, report


@pytest.fixture(scope="module", params=SEMANTIC_BUILDERS)
def semantic(
    request: pytest.FixtureRequest,
    bench: ModuleType,
    pictures: list[NDArray[np.uint8]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, ExportReport]:
    torch.manual_seed(0)
    model: Any = build(request.param, 21)
    spec = spec_of(model).replace(**SIZES)
    reference = SemanticReference(model, spec)
    bench.calibrate(
        model, SimpleNamespace(model=reference.model, predict=lambda pixels: [reference.segment(pixels)]), pictures[0]
    )
    path = tmp_path_factory.mktemp("real") / "m.onnx"
    return model, export_onnx(model, path, spec=spec, shape=CANVAS, verify=False)


def worst_value(checks: tuple[StageCheck, ...]) -> float:
    """The largest error of a stage that computes values; of one that chooses boxes it is a share of them."""
    return max(check.error for check in checks if check.tolerance == STAGE_TOLERANCES["fp32"].values)


def noted(record_property: Any, worst: float, report: ExportReport) -> None:
    """Leaves the figures of the README's table in the test's results."""
    record_property("worst_error", worst)
    record_property("export_seconds", report.seconds)
    record_property("megabytes", report.bytes / 1e6)


@pytest.mark.parametrize("device", DEVICES)
def test_every_semantic_stage(
    semantic: tuple[Any, ExportReport], pictures: list[NDArray[np.uint8]], device: str, record_property: Any
) -> None:
    model, report = semantic
    reference = SemanticReference(model, report.spec)
    worst = 0.0
    for picture in pictures:
        checks = compare_stages(read_model(report.path), device, picture, record_stages(reference, picture))
        assert first_divergence(checks) is None
        worst = max(worst, worst_value(checks))
    noted(record_property, worst, report)


@pytest.mark.parametrize("device", DEVICES)
def test_every_stage(
    exported: tuple[GeneralizedRCNN, ExportReport],
    pictures: list[NDArray[np.uint8]],
    device: str,
    record_property: Any,
) -> None:
    model, report = exported
    reference = ReferenceDetector(model, report.spec)
    worst = 0.0
    for picture in pictures:
        record = record_stages(reference, picture)
        checks = compare_stages(read_model(report.path), device, picture, record)
        assert first_divergence(checks) is None
        assert len(record["boxes"]) > 0, "the heads behind the detections had something to do"
        worst = max(worst, worst_value(checks))
    noted(record_property, worst, report)
