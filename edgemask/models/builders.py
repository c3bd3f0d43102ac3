"""All builders by name, and what they take.

A name is `heads_backbone_fpn`, and names what torchvision means by it where torchvision has a builder of that name: so
`fasterrcnn_mobilenet_v3_large_fpn` has torchvision's coarse maps, the other MobileNets those of `pyramids`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.checks import Check, did_you_mean, refuse, whole
from edgemask.errors import UsageError
from edgemask.models.compact import maskrcnn_compact_fpn
from edgemask.models.composed import COMPOSED_BUILDERS
from edgemask.models.published import PUBLISHED_BUILDERS
from edgemask.spec import CLASS_LIMIT, KEYPOINT_LIMIT

Model: TypeAlias = GeneralizedRCNN | _SimpleSegmentationModel
Builder: TypeAlias = Callable[..., Model]

BUILDERS: Mapping[str, Builder] = {
    "maskrcnn_compact_fpn": maskrcnn_compact_fpn,
    **COMPOSED_BUILDERS,
    **PUBLISHED_BUILDERS,  # behind the composed ones: their names mean what torchvision means
}
# What `**settings` of a builder goes to, by the first word of its name.
_SETTINGS_OF = {
    "fasterrcnn": FasterRCNN,
    "keypointrcnn": KeypointRCNN,
    "maskrcnn": MaskRCNN,
    "maskkeypointrcnn": KeypointRCNN,
}


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        refuse(name, "true or false", value)
    return value


_CHECKS: Mapping[str, Check] = {"num_keypoints": whole(1, KEYPOINT_LIMIT), "aux_loss": _flag}


def build(name: str, num_classes: int, /, **arguments: Any) -> Model:
    """Builds an untrained model in evaluation mode.

    Args:
        name: a key of `BUILDERS`.
        num_classes: classes with the background, at least 2, at most `CLASS_LIMIT` + 1.
        arguments: passed to the builder.

    Raises:
        UsageError: unknown name, or an argument that the builder does not take.
    """
    if name not in BUILDERS:
        remedy = did_you_mean(name, BUILDERS, f"the builders are: {', '.join(sorted(BUILDERS))}")
        raise UsageError(f"there is no builder named {name!r}", remedy)
    if num_classes < 2:
        raise UsageError(f"{num_classes} classes leave nothing to detect", "num_classes counts the background too")
    if num_classes > CLASS_LIMIT + 1:  # before they take memory: a stranger's weights may say so
        raise UsageError(
            f"expected at most {CLASS_LIMIT + 1} classes with the background, got {num_classes}", "check the weights"
        )
    known = argument_names(name)
    if unknown := sorted(arguments.keys() - known):
        remedy = did_you_mean(unknown[0], known, f"it takes: {', '.join(known)}")
        raise UsageError(f"builder {name} has no argument {', '.join(unknown)}", remedy)
    try:
        for argument, check in _CHECKS.items():
            if argument in arguments:
                check(argument, arguments[argument])
        model = BUILDERS[name](num_classes, **arguments)
    # UsageError among them; a RuntimeError says that there is no memory for so many weights.
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"builder {name} refused its arguments: {error}", "see the builder's documentation") from error
    return model.eval()


def argument_names(name: str) -> list[str]:
    """Names of what a builder takes besides the number of classes, in alphabetical order.

    torchvision's own check lets unknown names through, and with them every slip of the pen.
    """
    names = set(inspect.signature(BUILDERS[name]).parameters)
    model_class = _SETTINGS_OF.get(name.partition("_")[0])
    if "settings" in names and model_class is not None:
        names |= {*inspect.signature(model_class).parameters, "fixed_size", "size_divisible"}
    return sorted(names - {"backbone", "kwargs", "num_classes", "settings"})


def parameter_count(model: nn.Module) -> int:
    """Number of trainable and frozen parameters, buffers left out; what two parts share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def prediction_device() -> torch.device:
    """The GPU if PyTorch can use one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
