"""Weights of classification networks reach the backbones made of them, and nothing else."""

import pytest
import torch
from torchvision.models import WeightsEnum, get_model

from edgemask.errors import DependencyMissing, UsageError
from edgemask.models import BUILDERS, TORCHVISION_BUILDERS, backbone_weight_names, build, load_backbone


def published(network: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return get_model(network, weights=None).state_dict()


@pytest.mark.parametrize(
    ("builder", "network", "places"),
    [
        ("maskrcnn_resnet18_fpn", "resnet18", {"backbone.body.layer1.0.conv1.weight": "layer1.0.conv1.weight"}),
        (
            "fasterrcnn_mobilenet_v3_large_320_fpn",
            "mobilenet_v3_large",
            {"backbone.body.1.block.0.0.weight": "features.1.block.0.0.weight"},
        ),
        (
            "maskrcnn_resnet50_c4",
            "resnet50",
            {
                "backbone.bn1.running_var": "bn1.running_var",
                "roi_heads.mask_head.0.conv1.weight": "layer4.0.conv1.weight",
            },
        ),
    ],
)
def test_the_backbone_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, builder: str, network: str, places: dict[str, str]
) -> None:
    state = published(network)
    asked = []

    def get(entry: WeightsEnum, **_: bool) -> dict[str, torch.Tensor]:
        asked.append(str(entry))
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get)
    model = build(builder, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_backbone(model, builder, "IMAGENET1K_V1")
    found = model.state_dict()
    assert asked[0].endswith("Weights.IMAGENET1K_V1")
    for name, source in places.items():
        assert torch.equal(found[name], state[source])
    for name, value in found.items():
        if name.startswith(("rpn.", "backbone.fpn.", "roi_heads.box_predictor.")):
            assert torch.equal(value, before[name]), name


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backbone_weight_names("maskrcnn_resnet50_fpn_v2") == ("IMAGENET1K_V1", "IMAGENET1K_V2")
    assert backbone_weight_names("maskrcnn_compact_fpn") == ()
    without = {name for name in BUILDERS if not backbone_weight_names(name)}
    assert without == {"maskrcnn_compact_fpn", *(n for n in TORCHVISION_BUILDERS if n.startswith(("fcn", "deeplab")))}
    with pytest.raises(UsageError, match="no weights for the backbone of maskrcnn_compact_fpn"):
        load_backbone(build("maskrcnn_compact_fpn", 3), "maskrcnn_compact_fpn", "IMAGENET1K_V1")


def test_weights_that_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(DependencyMissing, match="cannot fetch IMAGENET1K_V1 of resnet18: no route") as caught:
        load_backbone(build("maskrcnn_resnet18_fpn", 3), "maskrcnn_resnet18_fpn", "IMAGENET1K_V1")
    assert "resnet18-f37072fd.pth" in str(caught.value.remedy)
