"""What a state dict tells about the model that it was taken from."""

from collections.abc import Mapping
from typing import Any

import torch

from edgemask.models.builders import argument_names

# Biases of the last layers: of torchvision's box predictors, and of its semantic classifiers.
_CLASSES = ("roi_heads.box_predictor.cls_score.bias", "classifier.4.bias")
_KEYPOINTS = "roi_heads.keypoint_predictor.kps_score_lowres.bias"


def class_count_in(state: Mapping[str, torch.Tensor]) -> int | None:
    """Number of classes with the background; None where it does not show."""
    return next((found for name in _CLASSES if (found := _length(state, name)) is not None), None)


def arguments_in(state: Mapping[str, torch.Tensor], builder: str) -> dict[str, Any]:
    """Arguments, besides the number of classes, without which a builder's model would not fit the weights."""
    keypoints = _length(state, _KEYPOINTS)
    return {} if keypoints is None or "num_keypoints" not in argument_names(builder) else {"num_keypoints": keypoints}


def _length(state: Mapping[str, torch.Tensor], name: str) -> int | None:
    bias = state.get(name)
    return len(bias) if bias is not None and bias.ndim == 1 else None
