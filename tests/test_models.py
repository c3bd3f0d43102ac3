"""Builders by name."""

from typing import Any

import pytest
import torch
from narrow import ARGUMENTS, BUILDER, narrow_model
from torchvision.models.detection import MaskRCNN

from edgemask.description import class_count
from edgemask.errors import UsageError
from edgemask.models import BUILDERS, TORCHVISION_BUILDERS, build, parameter_count


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_builds(name: str) -> None:
    with torch.device("meta"):  # without memory: resnet50 would take seconds
        model = build(name, 7)
    assert isinstance(model, MaskRCNN)
    assert class_count(model) == 7
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 7
    assert not any(module.training for module in model.modules())


def test_torchvisions_builders_are_torchvisions() -> None:
    with torch.device("meta"):
        counts = {name: parameter_count(build(name, 91)) for name in TORCHVISION_BUILDERS}
    # The first is 53,120 above the number in torchvision's documentation, where batch normalisation is frozen.
    assert counts == {"maskrcnn_resnet50_fpn": 44_454_513, "maskrcnn_resnet50_fpn_v2": 46_359_409}


def test_the_compact_model_is_compact() -> None:
    model = build(BUILDER, 6)
    assert 2_000_000 < parameter_count(model) < 3_000_000


def test_the_compact_model_detects() -> None:
    model = narrow_model(4)
    with torch.inference_mode():
        (found,) = model([torch.rand((3, 70, 90), generator=torch.Generator().manual_seed(0))])
    assert found["boxes"].shape[1] == 4
    assert found["masks"].shape[1:] == (1, 70, 90)
    assert found["labels"].max() < 4
    assert len(found["scores"]) > 0


def test_arguments_may_come_from_json() -> None:
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in ARGUMENTS.items()}
    shapes = {name: value.shape for name, value in build(BUILDER, 3, **lists).state_dict().items()}
    assert shapes == {name: value.shape for name, value in narrow_model(3).state_dict().items()}


def test_torchvisions_settings_pass_through() -> None:
    model = narrow_model(3, box_detections_per_img=7, rpn_post_nms_top_n_test=55)
    assert model.roi_heads.detections_per_img == 7
    assert model.rpn.post_nms_top_n() == 55


def test_an_unknown_builder_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'maskrcnn_resnet18'") as caught:
        build("maskrcnn_resnet18", 3)
    assert caught.value.remedy is not None
    assert all(name in caught.value.remedy for name in BUILDERS)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_too_few_classes(count: int) -> None:
    with pytest.raises(UsageError, match=f"^{count} classes"):
        build(BUILDER, count)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param({"widths": [8, 16, 16]}, "widths", id="three widths"),
        pytest.param({"widths": [8, 16, 16, 10**9]}, r"widths\[3\]", id="a width beyond all memory"),
        pytest.param({"widths": [8, 16, 16, "wide"]}, r"widths\[3\]", id="a width that is text"),
        pytest.param({"anchor_sizes": [8, 16, 32, 64]}, "anchor_sizes", id="four anchor sizes"),
        pytest.param({"pyramid_channels": -1}, "pyramid_channels", id="negative channels"),
        pytest.param({"min_size": 0}, "min_size", id="no size"),
    ],
)
def test_values_that_the_builder_does_not_take(arguments: dict[str, Any], shown: str) -> None:
    with pytest.raises(UsageError, match=f"refused its arguments: {shown}"):
        build(BUILDER, 3, **arguments)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("argument", ["box_detection_per_img", "num_classes", "name", "settings", "backbone", "kwargs"])
def test_names_that_the_builder_does_not_take(name: str, argument: str) -> None:
    """A slip of the pen would be let through by torchvision, and the setting be left as it was."""
    with pytest.raises(UsageError, match=f"has no argument {argument}\n") as caught:
        build(name, 3, **{argument: 5})
    assert "box_detections_per_img" in (caught.value.remedy or ""), "says what it takes"


@pytest.mark.parametrize("name", TORCHVISION_BUILDERS)
@pytest.mark.parametrize("argument", ["weights", "weights_backbone"])
def test_arguments_fetch_no_weights(name: str, argument: str) -> None:
    """A checkpoint chooses builder and arguments, and must not make us go online."""
    with pytest.raises(UsageError, match=argument):
        build(name, 3, **{argument: "DEFAULT"})
