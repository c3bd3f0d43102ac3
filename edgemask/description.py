"""What a PyTorch model is, written down as the ModelSpec that travels with its weights."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.errors import UsageError
from edgemask.spec import ModelSpec, class_names_without_background


def spec_of(
    model: GeneralizedRCNN,
    *,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    builder: str | None = None,
    builder_arguments: dict[str, Any] | None = None,
) -> ModelSpec:
    """Reads off a torchvision R-CNN everything that must travel with its weights.

    Args:
        model: the model; its transform, thresholds and heads are read, nothing is changed.
        class_names: names of labels 1 … C-1; a leading `__background__` is dropped; None gives `class_1 …`.
        category_ids: COCO ids of the labels; None means the labels themselves.
        builder: name in `edgemask.models.BUILDERS` that makes this architecture, if one does.
        builder_arguments: what the builder was called with besides the number of classes.

    Raises:
        UsageError: the number of names or ids is not the number of classes, or the model has a part that a spec cannot
            describe.
    """
    transform, heads = model.transform, model.roi_heads
    classes = class_count(model)
    names = class_names_without_background(class_names or [f"class_{label}" for label in range(1, classes)])
    if len(names) != classes - 1:
        raise UsageError(
            f"{len(names)} class names for a model of {classes - 1} classes", "give one name per class, in label order"
        )
    min_size = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
    fixed = getattr(transform, "fixed_size", None)
    mask_size = _mask_size(model)
    return ModelSpec(
        tasks=("boxes",) if mask_size is None else ("boxes", "masks"),
        class_names=names,
        category_ids=tuple(category_ids) if category_ids else tuple(range(1, classes)),
        min_size=int(min_size),
        max_size=int(transform.max_size),
        fixed_size=None if fixed is None else (int(fixed[1]), int(fixed[0])),
        image_mean=_three(transform.image_mean),
        image_std=_three(transform.image_std),
        size_divisible=int(transform.size_divisible),
        score_threshold=float(heads.score_thresh),
        nms_threshold=float(heads.nms_thresh),
        max_detections=int(heads.detections_per_img),
        mask_size=mask_size,
        builder=builder,
        builder_arguments=builder_arguments or {},
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
        source_sha256=weights_digest(model),
    )


def class_count(model: GeneralizedRCNN) -> int:
    """Number of classes with the background, read off the box predictor.

    Raises:
        UsageError: the predictor has no `cls_score` layer to read it from.
    """
    score = getattr(model.roi_heads.box_predictor, "cls_score", None)
    features = getattr(score, "out_features", None)
    if not isinstance(features, int):
        raise UsageError(
            f"cannot tell the number of classes of {type(model.roi_heads.box_predictor).__name__}",
            "its box predictor needs a linear layer named cls_score",
        )
    return features


@torch.inference_mode()
def _mask_size(model: GeneralizedRCNN) -> int | None:
    """Side of the mask that the model's mask head makes from one roi; None without a mask head."""
    heads = model.roi_heads
    if heads.mask_predictor is None:
        return None
    # A copy: the mode of every layer stays as it is.
    head = copy.deepcopy(torch.nn.Sequential(heads.mask_head, heads.mask_predictor)).eval()
    parameter = next(head.parameters())
    logits = head(parameter.new_zeros((1, model.backbone.out_channels, *heads.mask_roi_pool.output_size)))
    if logits.ndim != 4 or logits.shape[2] != logits.shape[3]:
        raise UsageError(
            f"the mask head gives the shape {tuple(logits.shape)} for one roi", "expected square masks [1, C, S, S]"
        )
    return int(logits.shape[2])


def weights_digest(model: torch.nn.Module) -> str:
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
