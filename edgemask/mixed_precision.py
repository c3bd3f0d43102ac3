"""Training in 16 bits, with what boxes are made of in float32."""

from collections import OrderedDict
from typing import Any

import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN


def keep_boxes_exact(model: GeneralizedRCNN) -> None:
    """Makes backbone and heads give float32.

    torchvision lays anchors in the dtype of the feature maps and computes boxes and their targets in that of the
    deltas, where bfloat16 would round coordinates above 256 to even pixels, and float16 above 2048.

    Args:
        model: gets hooks, which work whether or not it computes under autocast.
    """
    heads = model.roi_heads
    predictors = (heads.box_predictor, heads.mask_predictor, heads.keypoint_predictor)
    for part in filter(None, (model.backbone, model.rpn.head, *predictors)):
        part.register_forward_hook(lambda _module, _inputs, output: _as_float(output))


def _as_float(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, dict):
        return OrderedDict((name, _as_float(entry)) for name, entry in output.items())
    return type(output)(_as_float(entry) for entry in output)
