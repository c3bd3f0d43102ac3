"""Weights to start from: a checkpoint, a state dict, or those that torchvision has."""

from pathlib import Path

from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_state
from edgemask.models import backbone_weight_names, fetch, load_backbone, weight_names
from edgemask.weight_files import read_state

_OF_CLASSES = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.", "roi_heads.keypoint_predictor.")


def start_from(model: GeneralizedRCNN, builder: str, weights: str | Path) -> tuple[str, ...]:
    """Gives a model weights; layers with outputs for each class or keypoint stay as they are where those are others.

    Args:
        model: gets the weights.
        builder: what it was built by.
        weights: a file, or a name that torchvision has for the builder, such as `COCO_V1`, or for its backbone alone,
            such as `IMAGENET1K_V1`.

    Returns:
        Names of the tensors that begin anew; of a backbone's weights none, though all but the backbone does.

    Raises:
        ModelFileError: the file cannot be read, or is for another architecture.
        DependencyMissing: torchvision's weights are not to be had here.
    """
    name = str(weights)
    if name in backbone_weight_names(builder):
        load_backbone(model, builder, name)
        return ()
    state = fetch(builder, name)[0].state_dict() if name in weight_names(builder) else read_state(weights)
    own = model.state_dict()
    anew = [name for name in own if name.startswith(_OF_CLASSES) and name in state]
    anew = [name for name in anew if own[name].shape != state[name].shape]
    load_state(model, state | {name: own[name] for name in anew}, weights)
    return tuple(anew)
