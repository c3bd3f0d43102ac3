"""One narrow, trained model for every family of torchvision models that the exporter carries.

A random model's detections are ties, which prove nothing: these find objects. Each is made of the classes and kinds of
layers of the builders that it stands for, with a block per stage and few channels, so that one image takes
milliseconds and the graph has few nodes. The data are the scenes of `edgemask.scenes` at 128 pixels: five shapes and
the background.

    from families import FAMILIES, load
    model = load("mask_bottleneck")  # weights/mask_bottleneck.safetensors, stored as float16, computed in float32

`scripts/fit_families.py` makes the weights; after a change in what a family builds it must be fitted again. Narrowed
are blocks, channels, layers of the heads, rates of dilation, sizes of images and anchors, numbers of proposals and
detections, and the size of an object that its map is chosen by. As in torchvision are strides, names and order of the
maps, resolutions of the poolers, norms, activations and thresholds.

Models for segmentation take images normalised as torchvision's presets do it, and have no transform of their own.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _mobilenet_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from edgemask.scenes import CLASS_NAMES

WEIGHTS = Path(__file__).resolve().parent / "weights"
SCENE_SIZE = 128  # pixels of the scenes that the models are fitted on
NUM_CLASSES = len(CLASS_NAMES) + 1
KEYPOINT_NAMES = ("leftmost", "topmost", "rightmost", "bottommost", "centroid")
STEM, PLANES = 16, (8, 16, 24, 32)  # channels of a ResNet's first layer and of its blocks
CHANNELS = 28  # of every map of a pyramid
UNITS = 48  # of a box head's layers
RATIOS = (0.5, 1.0, 2.0)
LIMITS: dict[str, Any] = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 100,
    "rpn_batch_size_per_image": 128,
    "box_batch_size_per_image": 32,
    "box_positive_fraction": 0.5,
    "box_detections_per_img": 30,
}
Rows = tuple[tuple[Any, ...], ...]
# After torchvision's tables, every kind of block once: channels in, kernel, expanded, out, squeeze, activation, stride.
LARGE = (
    (16, 3, 16, 16, False, "RE", 1),
    (16, 3, 64, 24, False, "RE", 2),
    (24, 5, 72, 32, True, "RE", 2),
    (32, 3, 96, 40, False, "HS", 2),
    (40, 5, 120, 48, True, "HS", 2),
)
SMALL = (
    (16, 3, 16, 16, True, "RE", 2),
    (16, 3, 72, 24, False, "RE", 2),
    (24, 5, 96, 32, True, "HS", 2),
    (32, 5, 120, 48, True, "HS", 2),
)


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        name: key in `FAMILIES` and name of the weights' file.
        build: makes the untrained model in evaluation mode, the same one each time.
        tasks: as `ModelSpec.tasks` has them.
        stands_for: names of torchvision's models of that kind, and of the backbones that people put into them.
    """

    name: str
    build: Callable[[], nn.Module]
    tasks: tuple[str, ...]
    stands_for: tuple[str, ...]


class NarrowResNet(ResNet):
    """torchvision's stages with one block each; `PLANES` are what its own constructor fixes at 64 to 512."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], *, groups: int = 1, width_per_group: int = 64, dilated: bool = False
    ) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.dilation = nn.BatchNorm2d, 1
        self.inplanes, self.groups, self.base_width = STEM, groups, width_per_group
        self.conv1 = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, PLANES[0], 1)
        self.layer2 = self._make_layer(block, PLANES[1], 1, stride=2)
        self.layer3 = self._make_layer(block, PLANES[2], 1, stride=2, dilate=dilated)
        self.layer4 = self._make_layer(block, PLANES[3], 1, stride=2, dilate=dilated)


class NarrowDeepLabHead(DeepLabHead):
    """torchvision's head with `width` channels instead of 256, and rates for small maps."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        nn.Sequential.__init__(
            self,
            ASPP(in_channels, (2, 4, 6), width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, num_classes, 1),
        )


def keypoints_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Keypoints of a drawn object, in the order of `KEYPOINT_NAMES`.

    The outermost points are centres of pixels; of several that lie equally far out, the middle one, and of two middle
    ones the upper or left one.

    Args:
        mask: bool [H, W], not empty.

    Returns:
        float32 [5, 3]: x and y in pixels, in which the first pixel's centre is 0.5, and visibility 2.
    """
    rows, columns = np.nonzero(mask)  # ordered by row, then by column

    def middle(candidates: NDArray[np.bool_]) -> tuple[float, float]:
        x, y = columns[candidates], rows[candidates]
        place = (len(x) - 1) // 2
        return float(x[place]) + 0.5, float(y[place]) + 0.5

    outermost = (columns == columns.min(), rows == rows.min(), columns == columns.max(), rows == rows.max())
    points = [*map(middle, outermost), (columns.mean() + 0.5, rows.mean() + 0.5)]
    return np.array([(x, y, 2) for x, y in points], np.float32)


def load(name: str) -> Any:
    """The fitted model of a family in evaluation mode, float32."""
    model = FAMILIES[name].build()
    state = load_file(WEIGHTS / f"{name}.safetensors")
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return model


def resnet_fpn(block: type[BasicBlock | Bottleneck], *, norm: bool = False, **groups: int) -> BackboneWithFPN:
    """Maps `0 … 3` of the strides 4 to 32, and `pool`."""
    net = NarrowResNet(block, **groups)
    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    channels = [planes * block.expansion for planes in PLANES]
    return BackboneWithFPN(net, layers, channels, CHANNELS, norm_layer=nn.BatchNorm2d if norm else None)


def mobilenet(rows: Rows, *, dilated: bool = False) -> MobileNetV3:
    """A narrow MobileNetV3; `dilated` as for segmentation: its last block keeps the stride 16."""
    dilations = [1] * (len(rows) - 1) + [2 if dilated else 1]
    return MobileNetV3([InvertedResidualConfig(*row, d, 1.0) for row, d in zip(rows, dilations, strict=True)], 8)


def mobilenet_fpn(rows: Rows, returned: list[int] | None = None) -> BackboneWithFPN:
    """Maps of the stages `returned`, by default torchvision's two, both of the stride 32; and `pool`."""
    backbone = _mobilenet_extractor(mobilenet(rows), True, 6, returned)
    channels = [block[0].in_channels for block in backbone.fpn.inner_blocks]
    backbone.fpn = FeaturePyramidNetwork(channels, CHANNELS, LastLevelMaxPool())  # the extractor fixes it at 256
    backbone.out_channels = CHANNELS
    return backbone


def pooler(size: int) -> MultiScaleRoIAlign:
    """As torchvision's, but objects of scenes, not of photographs, spread over the maps."""
    return MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2, canonical_scale=96)


def faster_parts(backbone: nn.Module, **settings: Any) -> dict[str, Any]:
    """Arguments that every R-CNN here shares; the anchors are those of a pyramid of five maps."""
    return {
        "backbone": backbone,
        "min_size": 128,
        "max_size": 256,
        "rpn_anchor_generator": AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), (RATIOS,) * 5),
        "box_roi_pool": pooler(7),
        "box_head": TwoMLPHead(CHANNELS * 7**2, UNITS),
        "box_predictor": FastRCNNPredictor(UNITS, NUM_CLASSES),
        **LIMITS,
        **settings,
    }


def mask_parts(*, norm: bool = False) -> dict[str, nn.Module]:
    """The mask branch."""
    norm_layer = nn.BatchNorm2d if norm else None
    return {
        "mask_roi_pool": pooler(14),
        "mask_head": MaskRCNNHeads(CHANNELS, [CHANNELS] * 2, 1, norm_layer=norm_layer),
        "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, NUM_CLASSES),
    }


def keypoint_parts() -> dict[str, nn.Module]:
    """The keypoint branch."""
    return {
        "keypoint_roi_pool": pooler(14),
        "keypoint_head": KeypointRCNNHeads(CHANNELS, (CHANNELS,) * 3),
        "keypoint_predictor": KeypointRCNNPredictor(CHANNELS, len(KEYPOINT_NAMES)),
    }


def v2_parts() -> dict[str, Any]:
    """The second versions: normalised pyramid and heads, two layers in the RPN, convolutions in the box head."""
    backbone = resnet_fpn(Bottleneck, norm=True)
    rpn_head = RPNHead(CHANNELS, len(RATIOS), conv_depth=2)
    box_head = FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 2, [UNITS], norm_layer=nn.BatchNorm2d)
    return faster_parts(backbone, rpn_head=rpn_head, box_head=box_head)


def mobilenet_parts(**settings: Any) -> dict[str, Any]:
    """As `fasterrcnn_mobilenet_v3_large_fpn`: two maps of one stride and `pool`, all anchor sizes on each of them."""
    defaults: dict[str, Any] = {"min_size": 256, "max_size": 512, "rpn_score_thresh": 0.05}
    anchors = AnchorGenerator(((12, 24, 48, 96, 192),) * 3, (RATIOS,) * 3)
    return faster_parts(mobilenet_fpn(LARGE), rpn_anchor_generator=anchors, **(defaults | settings))


def faster_mobilenet_320() -> FasterRCNN:
    """Smaller images, and as few proposals after NMS as before it."""
    limits = {"rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150}
    return FasterRCNN(**mobilenet_parts(min_size=192, max_size=384, **limits))


def mask_and_keypoints() -> KeypointRCNN:
    """A Keypoint R-CNN whose heads got a mask branch, as torchvision's `RoIHeads` provides for."""
    model = KeypointRCNN(**faster_parts(resnet_fpn(Bottleneck)), **keypoint_parts())
    for name, part in mask_parts().items():
        setattr(model.roi_heads, name, part)
    return model


def mask_c4() -> MaskRCNN:
    """The paper's C4 a stage earlier: one map, stride 8; the next stage works on the rois of boxes and masks alike."""
    net = NarrowResNet(Bottleneck)
    stages = OrderedDict((name, stage) for name, stage in net.named_children() if name not in {"layer3", "layer4"})
    backbone = nn.Sequential(OrderedDict(body=nn.Sequential(stages)))  # names as in a pyramid's backbone
    backbone.out_channels = PLANES[1] * Bottleneck.expansion
    channels = PLANES[2] * Bottleneck.expansion
    parts = faster_parts(
        backbone,
        rpn_post_nms_top_n_test=50,  # the stage on rois is costly
        rpn_anchor_generator=AnchorGenerator(((16, 32, 64, 128),), (RATIOS,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 10, 2),
        box_head=nn.Sequential(net.layer3, nn.AdaptiveAvgPool2d(1)),
        box_predictor=FastRCNNPredictor(channels, NUM_CLASSES),
    )
    predictor = MaskRCNNPredictor(channels, CHANNELS, NUM_CLASSES)
    pool = MultiScaleRoIAlign(["0"], 10, 2)
    return MaskRCNN(**parts, mask_roi_pool=pool, mask_head=net.layer3, mask_predictor=predictor)


def mask_mobilenet_small() -> MaskRCNN:
    """Three maps of the strides 8 to 32, and `pool`."""
    anchors = AnchorGenerator(((12,), (32,), (64,), (128,)), (RATIOS,) * 4)
    parts = faster_parts(mobilenet_fpn(SMALL, [2, 3, 4]), rpn_anchor_generator=anchors)
    return MaskRCNN(**parts, **mask_parts())


def fcn() -> FCN:
    """With the auxiliary head, which predictions do without."""
    net = NarrowResNet(Bottleneck, dilated=True)
    head, auxiliary = FCNHead(net.inplanes, NUM_CLASSES), FCNHead(PLANES[2] * Bottleneck.expansion, NUM_CLASSES)
    return FCN(IntermediateLayerGetter(net, {"layer3": "aux", "layer4": "out"}), head, auxiliary)


def deeplab() -> DeepLabV3:
    """On a MobileNetV3 whose last stage is dilated."""
    features = mobilenet(LARGE, dilated=True).features
    head = NarrowDeepLabHead(features[-1].out_channels, NUM_CLASSES, 16)
    return DeepLabV3(IntermediateLayerGetter(features, {str(len(features) - 1): "out"}), head)


def _mask(backbone: BackboneWithFPN) -> MaskRCNN:
    return MaskRCNN(**faster_parts(backbone), **mask_parts())


def _mask_v2() -> MaskRCNN:
    return MaskRCNN(**v2_parts(), **mask_parts(norm=True))


def _faster_resnet() -> FasterRCNN:
    return FasterRCNN(**faster_parts(resnet_fpn(Bottleneck)))


def _keypoint_resnet() -> KeypointRCNN:
    return KeypointRCNN(**faster_parts(resnet_fpn(Bottleneck)), **keypoint_parts())


def _family(name: str, tasks: str, make: Callable[[], nn.Module], stands_for: str) -> Family:
    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().eval()

    return Family(name, build, tuple(tasks.split()), tuple(stands_for.split()))


# By tasks, then by name: what makes it, and what it stands for.
_TABLE: dict[str, dict[str, tuple[Callable[[], nn.Module], str]]] = {
    "boxes masks": {
        "mask_basic": (lambda: _mask(resnet_fpn(BasicBlock)), "maskrcnn_resnet18_fpn maskrcnn_resnet34_fpn"),
        "mask_bottleneck": (
            lambda: _mask(resnet_fpn(Bottleneck)),
            "maskrcnn_resnet50_fpn maskrcnn_resnet101_fpn maskrcnn_resnet152_fpn",
        ),
        "mask_resnext": (
            lambda: _mask(resnet_fpn(Bottleneck, groups=4, width_per_group=16)),
            "maskrcnn_resnext50_32x4d_fpn maskrcnn_resnext101_32x8d_fpn",
        ),
        "mask_mobilenet_large": (lambda: _mask(mobilenet_fpn(LARGE, [1, 2, 3, 4])), "maskrcnn_mobilenet_v3_large_fpn"),
        "mask_mobilenet_small": (mask_mobilenet_small, "maskrcnn_mobilenet_v3_small_fpn"),
        "mask_v2": (_mask_v2, "maskrcnn_resnet50_fpn_v2"),
        "mask_c4": (mask_c4, "maskrcnn_resnet50_c4"),
    },
    "boxes": {
        "faster_resnet": (_faster_resnet, "fasterrcnn_resnet50_fpn"),
        "faster_v2": (lambda: FasterRCNN(**v2_parts()), "fasterrcnn_resnet50_fpn_v2"),
        "faster_mobilenet": (lambda: FasterRCNN(**mobilenet_parts()), "fasterrcnn_mobilenet_v3_large_fpn"),
        "faster_mobilenet_320": (faster_mobilenet_320, "fasterrcnn_mobilenet_v3_large_320_fpn"),
    },
    "boxes keypoints": {"keypoint_resnet": (_keypoint_resnet, "keypointrcnn_resnet50_fpn")},
    "boxes masks keypoints": {"mask_keypoint": (mask_and_keypoints, "maskkeypointrcnn_resnet50_fpn")},
    "semantic": {
        "semantic_fcn": (fcn, "fcn_resnet50 fcn_resnet101"),
        "semantic_deeplab": (deeplab, "deeplabv3_mobilenet_v3_large deeplabv3_resnet50 deeplabv3_resnet101"),
    },
}
FAMILIES: dict[str, Family] = {
    name: _family(name, tasks, *row) for tasks, rows in _TABLE.items() for name, row in rows.items()
}
