"""A Mask R-CNN so narrow that tests run it in milliseconds."""

from typing import Any

import torch
from torchvision.models.detection import MaskRCNN

from edgemask.models import build

BUILDER = "maskrcnn_compact_fpn"
ARGUMENTS: dict[str, Any] = {
    "widths": (8, 16, 16, 16),
    "pyramid_channels": 16,
    "head_width": 16,
    "min_size": 64,
    "max_size": 128,
    "anchor_sizes": (8, 16, 32, 64, 128),
}


def narrow_model(num_classes: int = 3, *, seed: int = 0, **arguments: Any) -> MaskRCNN:
    """Random weights, the same ones for the same seed; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(BUILDER, num_classes, **(ARGUMENTS | arguments))
    assert isinstance(model, MaskRCNN)
    return model
