"""R-CNNs that torchvision has the parts for but no builder: each of its heads on each pyramid, and the paper's C4.

`maskrcnn_resnet101_fpn` and its like are `MaskRCNN(resnet_fpn_backbone(…), num_classes)`, as torchvision's
documentation puts them together: a state dict of such a model loads.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from edgemask.models.pyramids import CHANNELS, PYRAMIDS


def compose(
    model: Callable[..., GeneralizedRCNN], pyramid: Callable[[], nn.Module], num_classes: int, **settings: Any
) -> GeneralizedRCNN:
    """Puts a model's heads on a pyramid.

    Args:
        model: one of torchvision's R-CNN classes, or `mask_keypoint_rcnn`.
        pyramid: makes the backbone.
        num_classes: classes with the background.
        settings: further arguments of the model's class.
    """
    return model(pyramid(), num_classes, **settings)


def mask_keypoint_rcnn(backbone: nn.Module, num_classes: int, **settings: Any) -> KeypointRCNN:
    """A Keypoint R-CNN with a mask branch beside: torchvision's `RoIHeads` runs both, but no class of its has them.

    Args:
        backbone: gives the maps `0 … 3`, and says its `out_channels`.
        num_classes: classes with the background.
        settings: further arguments of torchvision's `KeypointRCNN`, such as `num_keypoints`, 17 if left out.
    """
    model = KeypointRCNN(backbone, num_classes, **settings)
    heads = model.roi_heads
    heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
    heads.mask_head = MaskRCNNHeads(backbone.out_channels, (CHANNELS,) * 4, 1)
    heads.mask_predictor = MaskRCNNPredictor(CHANNELS, CHANNELS, num_classes)
    return model


def maskrcnn_resnet50_c4(num_classes: int, **settings: Any) -> MaskRCNN:
    """Mask R-CNN without a pyramid (He et al., "Mask R-CNN", 2017, section 3, "Network Architecture").

    Proposals and rois come from one map of the stride 16, the end of the backbone's fourth stage, with anchors of five
    sizes and three ratios in each cell. The fifth stage works on the rois, each a 14x14 of which its own stride makes a
    7x7; boxes and masks share it. The box branch averages over the 7x7, the mask branch doubles it to 14x14.

    As in the paper 300 proposals reach the heads, and 64 in training. They are chosen from 3,000 candidates: 6,000, as
    "Faster R-CNN" has it, is more than TensorRT can sort.

    Args:
        num_classes: classes with the background.
        settings: further arguments of torchvision's `MaskRCNN`.
    """
    net = resnet50(weights=None, norm_layer=nn.BatchNorm2d)
    channels, stage_channels = 1024, 2048
    stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    backbone = nn.Sequential(OrderedDict((name, getattr(net, name)) for name in stages))
    backbone.out_channels = channels  # type: ignore[assignment]  # torchvision's convention
    defaults = {
        "rpn_pre_nms_top_n_train": 12_000,
        "rpn_pre_nms_top_n_test": 3000,
        "rpn_post_nms_top_n_test": 300,
        "box_batch_size_per_image": 64,
    }
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1)),
        box_predictor=FastRCNNPredictor(stage_channels, num_classes),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        mask_head=net.layer4,
        mask_predictor=MaskRCNNPredictor(stage_channels, CHANNELS, num_classes),
        **(defaults | settings),
    )


_HEADS: Mapping[str, Callable[..., GeneralizedRCNN]] = {
    "fasterrcnn": FasterRCNN,
    "keypointrcnn": KeypointRCNN,
    "maskrcnn": MaskRCNN,
    "maskkeypointrcnn": mask_keypoint_rcnn,
}
COMPOSED_BUILDERS: Mapping[str, Callable[..., GeneralizedRCNN]] = {
    "maskrcnn_resnet50_c4": maskrcnn_resnet50_c4,
    **{
        f"{heads}_{backbone}_fpn": partial(compose, model, pyramid)
        for heads, model in _HEADS.items()
        for backbone, pyramid in PYRAMIDS.items()
    },
}
