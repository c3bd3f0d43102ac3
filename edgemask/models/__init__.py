"""Builders of PyTorch models by name: torchvision's own, compositions of its parts, and a compact one of ours.

Every builder gives a model of torchvision's classes, untrained; weights come from `edgemask.checkpoints`.
"""

from edgemask.models.backbones import backbone_weight_names, load_backbone
from edgemask.models.builders import BUILDERS, Builder, Model, argument_names, build, parameter_count, prediction_device
from edgemask.models.compact import compact_resnet, maskrcnn_compact_fpn
from edgemask.models.composed import mask_keypoint_rcnn, maskrcnn_resnet50_c4
from edgemask.models.published import TORCHVISION_BUILDERS, fetch, weight_names
from edgemask.models.states import arguments_in, class_count_in

__all__ = [
    "BUILDERS",
    "TORCHVISION_BUILDERS",
    "Builder",
    "Model",
    "argument_names",
    "arguments_in",
    "backbone_weight_names",
    "build",
    "class_count_in",
    "compact_resnet",
    "fetch",
    "load_backbone",
    "mask_keypoint_rcnn",
    "maskrcnn_compact_fpn",
    "maskrcnn_resnet50_c4",
    "parameter_count",
    "prediction_device",
    "weight_names",
]
