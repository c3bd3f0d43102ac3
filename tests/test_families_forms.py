"""The other forms of a file: proposals from the caller, fixed shapes, rows padded for TensorRT."""

import pytest
from family_proof import FIXED, DetectionProof, Variant, exported_variant
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.export import ExportReport

VARIANTS = {
    "proposals as input": Variant("mask_bottleneck", {"batch": "dynamic", "proposals": "input"}),
    "fixed canvas and batch": Variant("mask_bottleneck", FIXED),
    "padded for TensorRT": Variant("mask_keypoint", FIXED | {"target": "tensorrt"}),
    "padded, proposals as input": Variant("faster_resnet", FIXED | {"target": "tensorrt", "proposals": "input"}),
}


@pytest.fixture(scope="module", params=VARIANTS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GeneralizedRCNN, ExportReport]:
    return exported_variant(VARIANTS[request.param], tmp_path_factory.mktemp("family") / "m.onnx")


class TestForms(DetectionProof):
    """See `DetectionProof`."""
