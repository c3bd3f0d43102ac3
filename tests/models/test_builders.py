"""Builders by name: what there is, what each gives and takes."""

from typing import Any

import pytest
import torch
from narrow import BUILDER, narrow_model
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.description import class_count
from edgemask.errors import UsageError
from edgemask.models import BUILDERS, TORCHVISION_BUILDERS, argument_names, build, parameter_count

KINDS = {
    "fasterrcnn": (FasterRCNN, False, False),
    "maskrcnn": (MaskRCNN, True, False),
    "keypointrcnn": (KeypointRCNN, False, True),
    "maskkeypointrcnn": (KeypointRCNN, True, True),
}
SEMANTIC = ("deeplabv3", "fcn")
BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d"),
    *("mobilenet_v3_large", "mobilenet_v3_small"),
)


def first_word(name: str) -> str:
    return name.partition("_")[0]


def test_the_names() -> None:
    """A stored checkpoint names its builder: none may vanish."""
    composed = {f"{kind}_{backbone}_fpn" for kind in KINDS for backbone in BACKBONES}
    assert BUILDERS.keys() == composed | {*TORCHVISION_BUILDERS, "maskrcnn_compact_fpn", "maskrcnn_resnet50_c4"}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_builds(name: str) -> None:
    with torch.device("meta"):  # without memory: they would take seconds
        model = build(name, 7)
    assert class_count(model) == 7
    assert not any(module.training for module in model.modules())
    if first_word(name) in SEMANTIC:
        assert isinstance(model, _SimpleSegmentationModel)
        assert model.aux_classifier is None
        return
    kind, masks, keypoints = KINDS[first_word(name)]
    assert type(model) is kind
    assert (model.roi_heads.has_mask(), model.roi_heads.has_keypoint()) == (masks, keypoints)
    if masks:
        assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 7
    if keypoints:
        assert model.roi_heads.keypoint_predictor.kps_score_lowres.out_channels == 17


def test_torchvisions_settings_pass_through() -> None:
    model = narrow_model(3, box_detections_per_img=7, rpn_post_nms_top_n_test=55)
    assert model.roi_heads.detections_per_img == 7
    assert model.rpn.post_nms_top_n() == 55


@pytest.mark.parametrize(
    "name", ["fasterrcnn_mobilenet_v3_small_fpn", "maskrcnn_resnet50_c4", "keypointrcnn_resnet50_fpn"]
)
def test_settings_replace_the_defaults_of_every_kind(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 3, rpn_post_nms_top_n_test=55, min_size=480, size_divisible=64)
    assert model.rpn.post_nms_top_n() == 55
    assert model.transform.min_size == (480,)
    assert model.transform.size_divisible == 64


@pytest.mark.parametrize("name", [name for name in BUILDERS if "keypoint" in first_word(name)])
def test_the_number_of_keypoints(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 2, num_keypoints=5)
    assert model.roi_heads.keypoint_predictor.kps_score_lowres.out_channels == 5


@pytest.mark.parametrize("name", [name for name in BUILDERS if first_word(name) in SEMANTIC])
def test_the_second_classifier(name: str) -> None:
    assert argument_names(name) == ["aux_loss"]
    with torch.device("meta"):
        model = build(name, 3, aux_loss=True)
    assert model.aux_classifier[-1].out_channels == 3


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        (
            "keypointrcnn_resnet50_fpn",
            {"num_keypoints": 10**9},
            "num_keypoints: expected a whole number from 1 to 1024",
        ),
        (
            "maskkeypointrcnn_resnet18_fpn",
            {"num_keypoints": 0},
            "num_keypoints: expected a whole number from 1 to 1024",
        ),
        ("fcn_resnet50", {"aux_loss": "no"}, "aux_loss: expected true or false, got 'no'"),
        ("maskrcnn_resnet50_c4", {"box_roi_pool": None}, "multiple values for keyword argument 'box_roi_pool'"),
    ],
)
def test_values_that_a_builder_does_not_take(name: str, arguments: dict[str, Any], shown: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=f"refused its arguments: .*{shown}"):
        build(name, 3, **arguments)


def test_an_unknown_builder_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'unet'") as caught:
        build("unet", 3)
    assert caught.value.remedy is not None
    assert all(name in caught.value.remedy for name in BUILDERS)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_too_few_classes(count: int) -> None:
    with pytest.raises(UsageError, match=f"^{count} classes"):
        build(BUILDER, count)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("argument", ["box_detection_per_img", "num_classes", "name", "settings", "backbone", "kwargs"])
def test_names_that_the_builder_does_not_take(name: str, argument: str) -> None:
    """A slip of the pen would be let through by torchvision, and the setting be left as it was."""
    with pytest.raises(UsageError, match=f"has no argument {argument}\n") as caught:
        build(name, 3, **{argument: 5})
    takes = "aux_loss" if first_word(name) in SEMANTIC else "box_detections_per_img"
    assert takes in (caught.value.remedy or ""), "says what it takes"


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("argument", ["weights", "weights_backbone"])
def test_arguments_fetch_no_weights(name: str, argument: str) -> None:
    """A checkpoint chooses builder and arguments, and must not make us go online."""
    with pytest.raises(UsageError, match=argument):
        build(name, 3, **{argument: "DEFAULT"})


def test_arguments_of_another_kind() -> None:
    for name, argument in (("maskrcnn_resnet18_fpn", "num_keypoints"), ("fasterrcnn_resnet18_fpn", "mask_head")):
        with pytest.raises(UsageError, match=f"has no argument {argument}"):
            build(name, 3, **{argument: 5})


def test_shared_parameters_count_once() -> None:
    layer = torch.nn.Linear(3, 2)
    assert parameter_count(torch.nn.ModuleList([layer, layer])) == 8
