"""torchvision's own builders, and the weights that it has for them.

A builder never has weights: a checkpoint names its builder, and must not make us go online.
"""

import contextlib
import http.client
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torchvision.models import WeightsEnum
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.errors import DependencyMissing, UsageError

_DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)
_SEMANTIC = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet101",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "fcn_resnet50",
)
TORCHVISION_BUILDERS = _DETECTION + _SEMANTIC


def _detection(name: str, num_classes: int, **settings: Any) -> GeneralizedRCNN:
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **settings)


def _semantic(name: str, num_classes: int, *, aux_loss: bool = False) -> _SimpleSegmentationModel:
    """With `aux_loss` there is a second classifier, for training alone; predictions do without."""
    return torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=aux_loss
    )


PUBLISHED_BUILDERS: Mapping[str, Callable[..., GeneralizedRCNN | _SimpleSegmentationModel]] = {
    **{name: partial(_detection, name) for name in _DETECTION},
    **{name: partial(_semantic, name) for name in _SEMANTIC},
}


def weight_names(name: str) -> tuple[str, ...]:
    """What torchvision calls the weights that it has for a builder; none for builders of our own."""
    return (
        tuple(entry.name for entry in torchvision.models.get_model_weights(name))
        if name in TORCHVISION_BUILDERS
        else ()
    )


@contextlib.contextmanager
def downloading(name: str, entry: WeightsEnum) -> Iterator[None]:
    """Turns what may happen while torchvision gets weights of a model into a DependencyMissing that helps."""
    try:
        yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DependencyMissing(
            f"cannot fetch {entry.name} of {name}: {error}",
            f"download {Path(entry.url).name} elsewhere and put it into {Path(torch.hub.get_dir()) / 'checkpoints'}",
        ) from error


def fetch(name: str, weights: str) -> tuple[GeneralizedRCNN | _SimpleSegmentationModel, tuple[str, ...]]:
    """Gets a model with torchvision's own weights, from its cache or from the network.

    Args:
        name: a builder's name.
        weights: an entry of torchvision's enum for it, such as `COCO_V1`.

    Returns:
        The model, without the second classifier of semantic models, and the names of its labels from 1 on.

    Raises:
        UsageError: torchvision has no such weights.
        DependencyMissing: the file is neither in its cache nor to be had; says which one to put where.
    """
    try:
        entry = torchvision.models.get_model_weights(name)[weights]
    except (ValueError, KeyError) as error:
        names = weight_names(name)
        raise UsageError(
            f"{weights!r} is neither a file nor weights that torchvision has for {name}",
            f"give a file, or {' or '.join(names)}" if names else "give a file",
        ) from error
    with downloading(name, entry):
        model = torchvision.models.get_model(name, weights=entry)
    if isinstance(model, _SimpleSegmentationModel):
        model.aux_classifier = None  # for training alone; the builder has none either
    # The first is the background whatever its name: "__background__", or "no person" where there are keypoints.
    return model, tuple(entry.meta["categories"][1:])
