"""What cannot be carried is refused by name, before any work."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from narrow import narrow_c4
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from edgemask.description import spec_of
from edgemask.errors import UnsupportedModel, UsageError
from edgemask.export.semantic_graph import check_semantic
from edgemask.export.support import MAX_TOP_K, TARGETS, check_supported, check_target

_built = functools.cache(narrow_c4)


def small() -> MaskRCNN:
    """A model of its own for each test, built once."""
    return copy.deepcopy(_built())


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


class OwnTransform(GeneralizedRCNNTransform):
    def postprocess(self, *arguments: Any) -> Any:
        return super().postprocess(*arguments)


def with_own_transform(model: MaskRCNN) -> None:
    model.transform.__class__ = OwnTransform


class Gives(nn.Module):
    """A predictor that makes something of what another one gives."""

    def __init__(self, own: nn.Module, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.own, self.change = own, change

    def forward(self, maps: torch.Tensor) -> Any:
        return self.change(self.own(maps))


def giving(branch: str, change: Callable[[Any], Any]) -> Callable[[MaskRCNN], None]:
    """Changes what the predictor of a branch gives."""

    def apply(model: MaskRCNN) -> None:
        own = getattr(model.roi_heads, f"{branch}_predictor")
        setattr(model.roi_heads, f"{branch}_predictor", Gives(own, change))

    return apply


def class_agnostic(model: MaskRCNN) -> None:
    model.roi_heads.box_predictor.bbox_pred = nn.Linear(model.roi_heads.box_predictor.bbox_pred.in_features, 4)


def with_masks_of_other_classes(model: MaskRCNN) -> None:
    model.roi_heads.mask_predictor = MaskRCNNPredictor(256, 8, 7)


def with_wide_masks(model: MaskRCNN) -> None:
    model.roi_heads.mask_predictor.mask_fcn_logits = nn.Conv2d(256, 3, (3, 1))


def with_lying_backbone(model: MaskRCNN) -> None:
    model.backbone.out_channels = 17


def fail(_: Any) -> Any:
    raise KeyError("no such map")


HEADS: dict[str, tuple[Callable[[MaskRCNN], Any], str]] = {
    "class-agnostic deltas": (class_agnostic, r"box head, .* gives \[\(1, 3\), \(1, 4\)\] for one roi"),
    "deltas first": (giving("box", lambda pair: pair[::-1]), r"box head, TwoMLPHead with Gives, gives \[\(1, 12\), "),
    "logits alone": (giving("box", lambda pair: pair[0]), r"box head, .* gives \(1, 3\) for one roi"),
    "two logits": (giving("box", lambda pair: pair[0].flatten()), r"box head, .* gives \(3,\) for one roi"),
    "nothing": (giving("box", lambda pair: ()), r"box head, .* gives \[\] for one roi"),
    "one number": (giving("box", lambda pair: pair[0].sum()), r"box head, .* gives \(\) for one roi"),
    "three": (giving("box", lambda pair: (*pair, pair[0])), "box head, .* gives .* for one roi"),
    "by name": (giving("box", lambda pair: {"logits": pair[0]}), "box head cannot be run on maps of 16 channels"),
    "masks of other classes": (with_masks_of_other_classes, r"mask head, .* gives \(1, 7, 20, 20\) for one roi"),
    "masks of no class": (giving("mask", lambda maps: maps[:, :1]), r"mask head, .* gives \(1, 1, 20, 20\)"),
    "masks that are not square": (with_wide_masks, r"mask head, .* gives \(1, 3, 18, 20\) for one roi"),
    "flat masks": (giving("mask", lambda maps: maps.flatten(1)), r"mask head, .* gives \(1, 1200\) for one roi"),
    "two masks": (giving("mask", lambda maps: (maps, maps)), r"mask head, .* gives \[\(1, 3, 20, 20\), \(1, 3, 20"),
    "keypoints in a tuple": (giving("keypoint", lambda maps: (maps,)), r"keypoint head, .* gives \[\(1, 5, 20, 20\)\]"),
    "keypoints of one row": (giving("keypoint", lambda maps: maps[:, :, :1]), r"keypoint head, .* \(1, 5, 1, 20\)"),
    "one that raises": (giving("mask", fail), "mask head cannot be run on maps of 16 channels: 'no such map'"),
    "out_channels that lies": (with_lying_backbone, "box head cannot be run on maps of 17 channels: "),
}


def with_keypoints() -> MaskRCNN:
    model = small()
    model.roi_heads.keypoint_roi_pool = MultiScaleRoIAlign(["0"], 10, 2)
    model.roi_heads.keypoint_head = KeypointRCNNHeads(16, (8,))
    model.roi_heads.keypoint_predictor = KeypointRCNNPredictor(8, 5)
    upsampled = giving("keypoint", lambda maps: maps[..., ::2, ::2])
    upsampled(model)
    return model.eval()


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_gives_something_else_is_refused(name: str) -> None:
    model = with_keypoints()
    check_supported(model, (96, 96))
    change, message = HEADS[name]
    change(model)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        check_supported(model, (96, 96))
    assert caught.value.remedy


def with_four_channels(model: MaskRCNN) -> None:
    model.transform.image_mean = model.transform.image_std = [0.5] * 4


def without_deviation(model: MaskRCNN) -> None:
    model.transform.image_std = [0.2, 0.0, 0.2]


def without_resize(model: MaskRCNN) -> None:
    model.transform._skip_resize = True


CHANGES: list[tuple[Callable[[MaskRCNN], Any], str]] = [
    (lambda model: model.train(), "training mode"),
    (lambda model: model.half(), "torch.float16"),
    (with_nan, "no numbers"),
    (with_own_heads, "OwnHeads, has its own postprocess_detections"),
    (with_patched_filter, r"its own filter_proposals\(\)"),
    (with_own_pool, "box head pools with a Identity"),
    (with_own_coder, "box coder of its RPN"),
    (with_own_transform, r"OwnTransform, has its own postprocess\(\)"),
    (without_resize, "_skip_resize"),
    (with_four_channels, r"normalises 4 channels by the deviations \[0.5, 0.5, 0.5, 0.5\]"),
    (without_deviation, r"normalises 3 channels by the deviations \[0.2, 0.0, 0.2\]"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_refused(change: Callable[[MaskRCNN], Any], message: str) -> None:
    model = small()
    check_supported(model, (96, 96))
    change(model)
    with pytest.raises(UnsupportedModel, match=message):
        check_supported(model, (96, 96))


def test_other_families_are_refused() -> None:
    model = torchvision.models.get_model("retinanet_resnet50_fpn", weights=None, weights_backbone=None)
    with pytest.raises(UnsupportedModel, match="a RetinaNet is neither an R-CNN nor a semantic model"):
        check_semantic(model, None)


def test_own_anchors_need_a_fixed_canvas() -> None:
    model = small()
    model.rpn.anchor_generator = OwnAnchors(((16, 48),), ((0.5, 1.0),))
    check_supported(model, (96, 96))
    with pytest.raises(UnsupportedModel, match="OwnAnchors"):
        check_supported(model, None)


def test_other_padding_needs_a_fixed_canvas() -> None:
    model = small()
    model.transform.size_divisible = 16
    check_supported(model, (80, 80))
    with pytest.raises(UnsupportedModel, match="multiples of 16"):
        check_supported(model, None)


def tensorrt_case(**numbers: int) -> tuple[MaskRCNN, Any]:
    """A model, and the spec of a file that TensorRT takes; `candidates` per level belong to the model."""
    model = small()
    model.rpn._pre_nms_top_n["testing"] = numbers.pop("candidates", 100)
    fitting = {"canvas": (96, 96), "batch": 2, "outputs": "padded", "max_proposals": 50}
    return model, spec_of(model).replace(**(fitting | numbers))


def test_targets() -> None:
    assert TARGETS == ("portable", "openvino", "tensorrt")
    model, spec = tensorrt_case()
    for target in TARGETS:
        check_target(model, spec, target)
    with pytest.raises(UsageError, match=r"there is no target 'coreml'\n.*portable, openvino, tensorrt"):
        check_target(model, spec, "coreml")


@pytest.mark.parametrize(
    ("change", "name", "option"), [({"canvas": None}, "canvas", "--shape HxW"), ({"batch": None}, "batch", "--batch N")]
)
def test_tensorrt_needs_fixed_shapes(change: dict[str, None], name: str, option: str) -> None:
    model, spec = tensorrt_case()
    spec = spec.replace(**change)
    check_target(model, spec, "portable")
    check_target(model, spec, "openvino")
    with pytest.raises(UsageError, match=f"tensorrt needs a fixed {name}, got a dynamic one") as caught:
        check_target(model, spec, "tensorrt")
    assert option in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("candidates", r"candidates per level before NMS \(rpn.pre_nms_top_n\)"),
        ("max_proposals", "proposals"),
        ("max_detections", "detections per image"),
    ],
)
def test_tensorrt_chooses_so_many_at_a_time(number: str, words: str) -> None:
    assert MAX_TOP_K == 3840
    check_target(*tensorrt_case(**{number: 3840}), "tensorrt")
    model, spec = tensorrt_case(**{number: 3841})
    check_target(model, spec, "portable")
    with pytest.raises(UsageError, match=f"chooses at most 3840 at a time, the model asks for 3841 {words}"):
        check_target(model, spec, "tensorrt")


def test_proposals_of_the_caller_are_not_chosen() -> None:
    model, spec = tensorrt_case(candidates=6000, max_proposals=5000)
    with pytest.raises(UsageError, match="6000 candidates"):
        check_target(model, spec, "tensorrt")
    check_target(model, spec.replace(proposals="input"), "tensorrt")
    with pytest.raises(UsageError, match="4000 detections"):
        check_target(model, spec.replace(proposals="input", max_detections=4000), "tensorrt")
