"""Weights of classification networks that torchvision has, for the backbones made of them."""

import re

from torch import nn
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.errors import UsageError
from edgemask.models.published import downloading

_BACKBONE = re.compile(r"_((?:resnet|resnext|mobilenet).*?)(?:_320)?_(?:fpn|c4)(?:_v2)?$")  # in a builder's name
_COUNTER = ".num_batches_tracked"


def backbone_weight_names(builder: str) -> tuple[str, ...]:
    """What torchvision calls the weights that it has for a builder's backbone alone, such as `IMAGENET1K_V1`."""
    network = _BACKBONE.search(builder)
    return () if network is None else tuple(entry.name for entry in get_model_weights(network[1]))


def load_backbone(model: GeneralizedRCNN, builder: str, weights: str) -> None:
    """Gives a model's backbone the weights of a classification network; the pyramid and the heads stay as they are.

    A C4 model has the network's last stage in its heads, which gets its weights too.

    Args:
        model: what the builder made.
        builder: its name.
        weights: one of `backbone_weight_names`.

    Raises:
        UsageError: the backbone is another network.
        DependencyMissing: the weights are neither in torchvision's cache nor to be had.
    """
    network = _BACKBONE.search(builder)
    if network is None:
        raise UsageError(f"torchvision has no weights for the backbone of {builder}", "give a file")
    entry: WeightsEnum = get_model_weights(network[1])[weights]
    with downloading(network[1], entry):
        state = entry.get_state_dict(progress=False, check_hash=True)
    state = {name.removeprefix("features."): value for name, value in state.items()}
    body = model.backbone.body if hasattr(model.backbone, "body") else model.backbone
    parts: list[tuple[nn.Module, str]] = [(body, "")]
    if builder.endswith("_c4"):
        parts.append((model.roi_heads.mask_head, "layer4."))
    for part, prefix in parts:
        names = [name for name in part.state_dict() if not name.endswith(_COUNTER)]
        missing = [name for name in names if prefix + name not in state]
        if missing:
            raise UsageError(f"{weights} of {network[1]} has no {missing[0]}", "give a file")
        part.load_state_dict({name: state[prefix + name] for name in names}, strict=False)
