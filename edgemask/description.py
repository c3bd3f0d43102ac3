"""What a PyTorch model is, written down as the ModelSpec that travels with its weights."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.errors import UsageError
from edgemask.models import Model
from edgemask.spec import RESIZE_LIMIT, ModelSpec, class_names_without_background

# Of the preset that torchvision's weights for semantic models name: the short side; the long one has no limit.
SEMANTIC_SIZE = 520


def spec_of(
    model: Model,
    *,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    builder: str | None = None,
    builder_arguments: dict[str, Any] | None = None,
) -> ModelSpec:
    """Reads off a torchvision model everything that must travel with its weights.

    A semantic model says nothing of its images: it gets the resize rule and the colours of the preset that torchvision
    has for its own.

    Args:
        model: an R-CNN, of which transform, thresholds and heads are read, or a semantic model; nothing is changed.
        class_names: names of labels 1 … C-1; a leading `__background__` is dropped; None gives `class_1 …`.
        category_ids: COCO ids of the labels; None means the labels themselves.
        builder: name in `edgemask.models.BUILDERS` that makes this architecture, if one does.
        builder_arguments: what the builder was called with besides the number of classes.

    Raises:
        UsageError: the number of names or ids is not the number of classes, or the model has a part that a spec cannot
            describe.
    """
    classes = class_count(model)
    names = class_names_without_background(class_names or [f"class_{label}" for label in range(1, classes)])
    if len(names) != classes - 1:
        raise UsageError(
            f"{len(names)} class names for a model of {classes - 1} classes", "give one name per class, in label order"
        )
    semantic = isinstance(model, _SimpleSegmentationModel)
    return ModelSpec(
        **(_semantic_fields() if semantic else _image_fields(model.transform) | _head_fields(model)),
        class_names=names,
        category_ids=tuple(category_ids) if category_ids else tuple(range(1, classes)),
        builder=builder,
        builder_arguments=builder_arguments or {},
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
        source_sha256=weights_digest(model),
    )


def class_count(model: Model) -> int:
    """Number of classes with the background, read off the box predictor or the last convolution of the classifier.

    Raises:
        UsageError: there is no such layer to read it from.
    """
    if isinstance(model, _SimpleSegmentationModel):
        layers = [layer for layer in model.classifier.modules() if isinstance(layer, nn.Conv2d)]
        if not layers:
            raise UsageError(
                f"cannot tell the number of classes of {type(model.classifier).__name__}",
                "its classifier needs a convolution as its last layer",
            )
        return int(layers[-1].out_channels)
    score = getattr(model.roi_heads.box_predictor, "cls_score", None)
    features = getattr(score, "out_features", None)
    if not isinstance(features, int):
        raise UsageError(
            f"cannot tell the number of classes of {type(model.roi_heads.box_predictor).__name__}",
            "its box predictor needs a linear layer named cls_score",
        )
    return features


def _semantic_fields() -> dict[str, Any]:
    return {"tasks": ("semantic",), "min_size": SEMANTIC_SIZE, "max_size": RESIZE_LIMIT}


def _image_fields(transform: GeneralizedRCNNTransform) -> dict[str, Any]:
    """What is done to the images of an R-CNN."""
    min_size = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
    fixed = getattr(transform, "fixed_size", None)
    return {
        "min_size": int(min_size),
        "max_size": int(transform.max_size),
        "fixed_size": None if fixed is None else (int(fixed[1]), int(fixed[0])),
        "image_mean": _three(transform.image_mean),
        "image_std": _three(transform.image_std),
        "size_divisible": int(transform.size_divisible),
    }


def _head_fields(model: GeneralizedRCNN) -> dict[str, Any]:
    """What the heads of an R-CNN give, and their thresholds."""
    heads = model.roi_heads
    masks, heatmaps = _maps_of_one_roi(model, "mask"), _maps_of_one_roi(model, "keypoint")
    found = {"boxes": True, "masks": masks is not None, "keypoints": heatmaps is not None}
    return {
        "tasks": tuple(task for task, present in found.items() if present),
        "mask_size": None if masks is None else masks[1],
        "num_keypoints": None if heatmaps is None else heatmaps[0],
        "score_threshold": float(heads.score_thresh),
        "nms_threshold": float(heads.nms_thresh),
        "max_detections": int(heads.detections_per_img),
    }


@torch.inference_mode()
def _maps_of_one_roi(model: GeneralizedRCNN, branch: str) -> tuple[int, int] | None:
    """Number and side of the maps that a branch of the heads makes from one roi; None without that branch.

    Raises:
        UsageError: it makes something else than square maps.
    """
    pool, head, predictor = (getattr(model.roi_heads, f"{branch}_{part}") for part in ("roi_pool", "head", "predictor"))
    if predictor is None:
        return None
    # A copy: the mode of every layer stays as it is.
    layers = copy.deepcopy(nn.Sequential(head, predictor)).eval()
    parameter = next(layers.parameters())
    maps = layers(parameter.new_zeros((1, model.backbone.out_channels, *pool.output_size)))
    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise UsageError(
            f"the {branch} head gives the shape {tuple(maps.shape)} for one roi",
            f"expected square {branch} maps [1, number, S, S]",
        )
    return int(maps.shape[1]), int(maps.shape[2])


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, in hexadecimal."""
    return state_digest(model.state_dict())


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """As `weights_digest`, of a model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
