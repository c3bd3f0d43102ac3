"""One file, 200 sizes of images: the same detections as PyTorch on each that PyTorch takes, a refusal of all others."""

from importlib import resources
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sizes import is_refused, picture, sizes
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_checkpoint
from edgemask.detections import Detections
from edgemask.errors import ImageError
from edgemask.export import ExportReport, export_onnx
from edgemask.parity import TOLERANCES, compare
from edgemask.reference import ReferenceDetector
from edgemask.runtimes import Detector, read_model

pytestmark = pytest.mark.soak
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GeneralizedRCNN, ExportReport]:
    with resources.as_file(resources.files("edgemask") / "assets" / "sample.safetensors") as path:
        model, spec = load_checkpoint(path)
    assert isinstance(model, GeneralizedRCNN)
    path = tmp_path_factory.mktemp("sizes") / "m.onnx"
    return model, export_onnx(model, path, spec=spec, verify=False)


@pytest.fixture(scope="module")
def expected(exported: tuple[GeneralizedRCNN, ExportReport]) -> dict[tuple[int, int], Detections]:
    model, report = exported
    reference = ReferenceDetector(model, report.spec)
    return {size: reference.predict(picture(*size)) for size in sizes() if not is_refused(size, report.spec)}


@pytest.mark.parametrize("device", DEVICES)
def test_same_detections(
    exported: tuple[GeneralizedRCNN, ExportReport],
    expected: dict[tuple[int, int], Detections],
    device: str,
    record_property: Any,
) -> None:
    with Detector(read_model(exported[1].path), device) as detector:
        pairs = [(str(size), found, detector.predict(picture(*size))) for size, found in expected.items()]
    report = compare(pairs, TOLERANCES["fp32"], max_detections=exported[1].spec.max_detections)
    report.raise_for_failure()
    assert report.matched > 500
    assert all(got.image_size == size for size, (_, _, got) in zip(expected, pairs, strict=True))
    for name, value in report.summary().items():
        record_property(name, value)


def test_what_pytorch_refuses_is_refused(
    exported: tuple[GeneralizedRCNN, ExportReport], expected: dict[tuple[int, int], Detections]
) -> None:
    model, report = exported
    refused = [size for size in sizes() if size not in expected]
    assert {(1, 2000), (3000, 1)} <= set(refused)
    reference = ReferenceDetector(model, report.spec)
    with Detector(read_model(report.path), "cpu") as detector:
        for size in refused:
            with pytest.raises(ImageError, match="would be resized to"):
                detector.predict(picture(*size))
            with pytest.raises(ImageError, match="would be resized to"):
                reference.predict(picture(*size))
            with pytest.raises((RuntimeError, AssertionError, ValueError)):  # torchvision's own words
                eager(model, picture(*size))


def eager(model: GeneralizedRCNN, pixels: NDArray[np.uint8]) -> None:
    import torch

    with torch.inference_mode():
        model([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])
