"""A narrow Mask R-CNN of our own for edge devices."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import Conv2dNormActivation

from edgemask.checks import several, whole

_WIDTH = whole(1, 1024)  # a checkpoint from a stranger must not choose how much memory is taken
_PIXELS = whole(1, 16_384)


def compact_resnet(widths: Sequence[int]) -> nn.Sequential:
    """A residual backbone of stages `layer1 … layer4` at strides 4, 8, 16 and 32, two basic blocks each.

    Dense 3x3 convolutions throughout: depthwise ones save arithmetic but lose time to INT8 on CPUs.
    """
    stem = nn.Sequential(
        Conv2dNormActivation(3, widths[0], stride=2),
        Conv2dNormActivation(widths[0], widths[0], stride=2),
    )
    stages: list[tuple[str, nn.Module]] = [("stem", stem)]
    channels = widths[0]
    for number, width in enumerate(widths, 1):
        stride = 1 if number == 1 else 2
        downsample = None
        if stride != 1 or channels != width:
            downsample = Conv2dNormActivation(channels, width, kernel_size=1, stride=stride, activation_layer=None)
        stage = nn.Sequential(BasicBlock(channels, width, stride, downsample), BasicBlock(width, width))
        stages.append((f"layer{number}", stage))
        channels = width
    return nn.Sequential(OrderedDict(stages))


def maskrcnn_compact_fpn(
    num_classes: int,
    *,
    widths: Sequence[int] = (24, 48, 96, 192),
    pyramid_channels: int = 64,
    head_width: int = 192,
    anchor_sizes: Sequence[int] = (12, 24, 48, 96, 192),
    min_size: int = 320,
    max_size: int = 640,
    **settings: Any,
) -> MaskRCNN:
    """A Mask R-CNN of 2.6 million parameters for edge devices: narrow ResNet-18, narrow FPN, narrow heads.

    Args:
        num_classes: classes with the background.
        widths: channels of the four backbone stages.
        pyramid_channels: channels of every FPN level.
        head_width: units of the box head's two layers.
        anchor_sizes: one anchor size in pixels per FPN level (strides 4, 8, 16, 32, 64); three aspect ratios each.
        min_size: images are resized so that their short side has this many pixels …
        max_size: … unless the long side would get longer than this.
        settings: further arguments of torchvision's `MaskRCNN`.

    Raises:
        UsageError: too many or too few widths or anchor sizes, or a number out of range.
    """
    widths = several(_WIDTH, 4, 4)("widths", widths)
    anchor_sizes = several(_PIXELS, 5, 5)("anchor_sizes", anchor_sizes)
    pyramid_channels, head_width = _WIDTH("pyramid_channels", pyramid_channels), _WIDTH("head_width", head_width)
    min_size, max_size = _PIXELS("min_size", min_size), _PIXELS("max_size", max_size)
    backbone = BackboneWithFPN(
        compact_resnet(widths),
        return_layers={f"layer{number}": str(number - 1) for number in range(1, 5)},
        in_channels_list=list(widths),
        out_channels=pyramid_channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d,
    )
    anchors = AnchorGenerator(tuple((size,) for size in anchor_sizes), ((0.5, 1.0, 2.0),) * len(anchor_sizes))
    defaults = {
        "rpn_pre_nms_top_n_test": 500,
        "rpn_post_nms_top_n_test": 300,
        "rpn_pre_nms_top_n_train": 600,
        "rpn_post_nms_top_n_train": 300,
        "box_batch_size_per_image": 128,
    }
    return MaskRCNN(
        backbone,
        min_size=min_size,
        max_size=max_size,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(pyramid_channels, 3),
        box_head=TwoMLPHead(pyramid_channels * 7**2, head_width),
        box_predictor=FastRCNNPredictor(head_width, num_classes),
        mask_head=MaskRCNNHeads(pyramid_channels, (pyramid_channels,) * 4, 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor(pyramid_channels, pyramid_channels, num_classes),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2),
        **(defaults | settings),
    )
