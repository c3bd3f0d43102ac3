"""Backbones with a feature pyramid (Lin et al., "Feature Pyramid Networks for Object Detection", 2017), by name.

Each gives maps of 256 channels: `0 … 3` of the strides 4, 8, 16 and 32, and `pool` of the stride 64. Normalisation is
`BatchNorm2d` throughout, with PyTorch's own epsilon, as torchvision's detection builders have it without weights. The
frozen layers that they have with weights call their tensors the same: state dicts of both kinds load.
"""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn
from torchvision.models import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

CHANNELS = 256
RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
)


def resnet_pyramid(name: str) -> BackboneWithFPN:
    """What torchvision's `resnet_fpn_backbone` gives for a ResNet or ResNeXt, every layer trainable."""
    return resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)


def mobilenet_pyramid(trunk: Callable[..., MobileNetV3], layers: tuple[int, int, int, int]) -> BackboneWithFPN:
    """A MobileNetV3 whose pyramid begins at the stride 4.

    torchvision's `fasterrcnn_mobilenet_v3_large_fpn` takes two maps of the stride 32 and their pooling: what is
    smaller than 32 pixels has no cell of its own there. Here each of the four maps is the last layer of its stride, as
    Lin et al. have it; anchors and poolers for a ResNet fit as they are.

    Args:
        trunk: torchvision's function.
        layers: the last layers of the strides 4, 8, 16 and 32 in its `features`.
    """
    features = trunk(weights=None, norm_layer=nn.BatchNorm2d).features
    return BackboneWithFPN(
        features,
        return_layers={str(layer): str(level) for level, layer in enumerate(layers)},
        in_channels_list=[features[layer].out_channels for layer in layers],
        out_channels=CHANNELS,
        extra_blocks=LastLevelMaxPool(),
    )


PYRAMIDS: Mapping[str, Callable[[], BackboneWithFPN]] = {
    **{name: partial(resnet_pyramid, name) for name in RESNETS},
    "mobilenet_v3_large": partial(mobilenet_pyramid, mobilenet_v3_large, (3, 6, 12, 16)),
    "mobilenet_v3_small": partial(mobilenet_pyramid, mobilenet_v3_small, (1, 3, 8, 12)),
}
