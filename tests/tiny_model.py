"""A PyTorch model of a few channels that finds 100 objects everywhere, and a file of constants in its name.

from tiny_model import TINY, tiny_model, write_tiny
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from toy_model import toy_proto

from edgemask.checkpoints import save_checkpoint
from edgemask.description import spec_of, weights_digest
from edgemask.models import build
from edgemask.runtimes import write_model

TINY = {"widths": (8, 16, 16, 16), "pyramid_channels": 16, "head_width": 16, "min_size": 96, "max_size": 160}
BUILDER = "maskrcnn_compact_fpn"


class TinyFiles(NamedTuple):
    checkpoint: Path
    path: Path


def tiny_model() -> GeneralizedRCNN:
    torch.manual_seed(0)
    model = build(BUILDER, 3, **TINY)
    assert isinstance(model, GeneralizedRCNN)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    return model


def write_tiny(folder: Path) -> TinyFiles:
    """A checkpoint, and a model file with its spec and at most 7 detections: an export would take 15 seconds."""
    model = tiny_model()
    spec = spec_of(model, builder=BUILDER, builder_arguments=TINY)
    files = TinyFiles(folder / "tiny.safetensors", folder / "tiny.onnx")
    save_checkpoint(files.checkpoint, model, spec)
    own = spec.replace(max_detections=7, mask_size=4, source_sha256=weights_digest(model))
    write_model(toy_proto(), own, files.path)
    return files
