"""Mask R-CNN on every kind of backbone, and without a pyramid."""

import pytest
from families import FAMILIES
from family_proof import DetectionProof, Variant, exported_variant, parameters
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.export import ExportReport

VARIANTS = {name: Variant(name) for name, family in FAMILIES.items() if family.tasks == ("boxes", "masks")}


@pytest.fixture(scope="module", params=parameters(VARIANTS))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GeneralizedRCNN, ExportReport]:
    return exported_variant(VARIANTS[request.param], tmp_path_factory.mktemp("family") / "m.onnx")


class TestMaskFamilies(DetectionProof):
    """See `DetectionProof`."""
