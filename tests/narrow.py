"""Mask R-CNNs so narrow that tests run them in milliseconds: everything but the accuracy of a real one.

Weights are random, the same ones for the same seed; the caller's random numbers stay as they are.
"""

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import Conv2dNormActivation

from edgemask.models import build
from edgemask.scenes import draw_scene

BUILDER = "maskrcnn_compact_fpn"
ARGUMENTS: dict[str, Any] = {
    "widths": (8, 16, 16, 16),
    "pyramid_channels": 16,
    "head_width": 16,
    "min_size": 96,
    "max_size": 192,
    "anchor_sizes": (8, 16, 32, 64, 128),
}


def narrow_model(num_classes: int = 3, *, seed: int = 0, **arguments: Any) -> MaskRCNN:
    """A compact FPN model, as its builder gives it: it is sure of nothing, and its detections are ties."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(BUILDER, num_classes, **(ARGUMENTS | arguments))
    assert isinstance(model, MaskRCNN)
    return model


def narrow(num_classes: int = 4, **arguments: Any) -> MaskRCNN:
    """The same with scores that are spread."""
    return spread(narrow_model(num_classes, **arguments))


def narrow_c4(levels: int = 1) -> MaskRCNN:
    """A user's own backbone without FPN, with its own anchors; one map, or two of the strides 8 and 16; spread."""

    class Backbone(nn.Module):
        out_channels = 16

        def __init__(self) -> None:
            super().__init__()
            self.fine = nn.Sequential(*(Conv2dNormActivation(c, 16, stride=2) for c in (3, 16, 16)))
            self.coarse = Conv2dNormActivation(16, 16, stride=2)

        def forward(self, images: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
            fine = self.fine(images)
            coarse = self.coarse(fine)
            return coarse if levels == 1 else OrderedDict(fine=fine, coarse=coarse)

    names = ["0"] if levels == 1 else ["fine", "coarse"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MaskRCNN(
            Backbone(),
            3,
            min_size=96,
            max_size=160,
            rpn_anchor_generator=AnchorGenerator(((16, 48),) * levels, ((0.5, 1.0),) * levels),
            box_roi_pool=MultiScaleRoIAlign(names, 5, 0, canonical_scale=64, canonical_level=3),
            mask_roi_pool=MultiScaleRoIAlign(names, (10, 10), 1),
            box_detections_per_img=20,
            rpn_post_nms_top_n_test=50,
        )
    return spread(model.eval())


@torch.no_grad()
def spread(model: MaskRCNN) -> MaskRCNN:
    """Scales the last layers, so that scores are decided and boxes move: those of a random model are ties."""
    predictor = model.roi_heads.box_predictor
    targets = {model.rpn.head.cls_logits: 2.0, model.rpn.head.bbox_pred: 0.3, predictor.cls_score: 2.0}
    targets |= {predictor.bbox_pred: 0.5, model.roi_heads.mask_predictor.mask_fcn_logits: 2.0}
    scene = torch.from_numpy(draw_scene(0, seed=5, size=128).image).permute(2, 0, 1).float() / 255
    for layer, deviation in targets.items():
        found: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _layer, _inputs, output, found=found: found.append(output))
        probe = copy.deepcopy(model)  # its poolers keep the scales of this image
        hook.remove()
        probe([scene])
        layer.weight.mul_(deviation / torch.cat([output.flatten() for output in found]).std())
    return model
