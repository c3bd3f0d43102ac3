"""What cannot be carried is refused by name, before any work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from narrow import narrow_c4
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator

from edgemask.errors import UnsupportedModel
from edgemask.export.semantic_graph import check_semantic
from edgemask.export.support import check_supported


class OwnHeads(RoIHeads):
    def postprocess_detections(self, *arguments: Any) -> Any:
        return super().postprocess_detections(*arguments)


class OwnAnchors(AnchorGenerator):
    pass


def with_own_heads(model: MaskRCNN) -> None:
    model.roi_heads.__class__ = OwnHeads


def with_patched_filter(model: MaskRCNN) -> None:
    model.rpn.filter_proposals = lambda *arguments: arguments


def with_own_pool(model: MaskRCNN) -> None:
    model.roi_heads.box_roi_pool = nn.Identity()


def with_nan(model: MaskRCNN) -> None:
    model.roi_heads.box_predictor.cls_score.bias.data[0] = torch.nan


def with_own_coder(model: MaskRCNN) -> None:
    model.rpn.box_coder = object()


CHANGES: list[tuple[Callable[[MaskRCNN], Any], str]] = [
    (lambda model: model.train(), "training mode"),
    (lambda model: model.half(), "torch.float16"),
    (with_nan, "no numbers"),
    (with_own_heads, "OwnHeads, has its own postprocess_detections"),
    (with_patched_filter, r"its own filter_proposals\(\)"),
    (with_own_pool, "box head pools with a Identity"),
    (with_own_coder, "box coder of its RPN"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_refused(change: Callable[[MaskRCNN], Any], message: str) -> None:
    model = narrow_c4()
    check_supported(model, (96, 96))
    change(model)
    with pytest.raises(UnsupportedModel, match=message):
        check_supported(model, (96, 96))


def test_other_families_are_refused() -> None:
    model = torchvision.models.get_model("retinanet_resnet50_fpn", weights=None, weights_backbone=None)
    with pytest.raises(UnsupportedModel, match="a RetinaNet is neither an R-CNN nor a semantic model"):
        check_semantic(model, None)


def test_own_anchors_need_a_fixed_canvas() -> None:
    model = narrow_c4()
    model.rpn.anchor_generator = OwnAnchors(((16, 48),), ((0.5, 1.0),))
    check_supported(model, (96, 96))
    with pytest.raises(UnsupportedModel, match="OwnAnchors"):
        check_supported(model, None)


def test_other_padding_needs_a_fixed_canvas() -> None:
    model = narrow_c4()
    model.transform.size_divisible = 16
    check_supported(model, (80, 80))
    with pytest.raises(UnsupportedModel, match="multiples of 16"):
        check_supported(model, None)
