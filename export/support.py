"""What the exporter carries, and what it refuses by name before any work is done."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from edgemask.errors import UnsupportedModel, UsageError
from edgemask.spec import ModelSpec
from edgemask.tensorrt import MAX_TOP_K

TARGETS = ("portable", "openvino", "tensorrt")
STRIDE = 32  # of a dynamic canvas, pixels

# The methods whose meaning the graph restates: an override would be lost.
_RESTATED: dict[type[nn.Module], tuple[str, ...]] = {
    GeneralizedRCNN: ("forward", "eager_outputs"),
    GeneralizedRCNNTransform: ("forward", "normalize", "resize", "batch_images", "postprocess"),
    RegionProposalNetwork: ("forward", "filter_proposals", "_get_top_n_idx"),
    RoIHeads: ("forward", "postprocess_detections"),
}


def check_supported(model: GeneralizedRCNN, canvas: tuple[int, int] | None) -> None:
    """Refuses a model that the graph would not carry faithfully.

    Args:
        model: an R-CNN.
        canvas: (H, W) asked for, None for a dynamic one.

    Raises:
        UnsupportedModel: names the part and the reason.
        UsageError: the canvas does not fit the model.
    """
    if model.training:
        raise UnsupportedModel("the model is in training mode", "call model.eval() first")
    parts = {
        "the model": (model, GeneralizedRCNN),
        "its transform": (model.transform, GeneralizedRCNNTransform),
        "its RPN": (model.rpn, RegionProposalNetwork),
        "its heads": (model.roi_heads, RoIHeads),
    }
    for name, (part, expected) in parts.items():
        _check_methods(name, part, expected)
    _check_transform(model.transform)
    check_numbers(model.state_dict())
    _check_heads(model)
    for name, coder in (("RPN", model.rpn.box_coder), ("heads", model.roi_heads.box_coder)):
        if type(coder) is not BoxCoder:
            raise UnsupportedModel(f"the box coder of its {name} is a {type(coder).__name__}", "use torchvision's own")
    if canvas is None:
        _check_dynamic(model)
    else:
        check_canvas(canvas, int(model.transform.size_divisible))


def _check_methods(name: str, part: nn.Module, expected: type[nn.Module]) -> None:
    if not isinstance(part, expected):
        raise UnsupportedModel(f"{name} is a {type(part).__name__}", f"expected torchvision's {expected.__name__}")
    for method in _RESTATED[expected]:
        if getattr(type(part), method) is not getattr(expected, method) or method in vars(part):
            raise UnsupportedModel(
                f"{name}, a {type(part).__name__}, has its own {method}()",
                f"the graph restates torchvision's {expected.__name__}.{method}() and would lose yours",
            )


def _check_transform(transform: GeneralizedRCNNTransform) -> None:
    if getattr(transform, "_skip_resize", False):
        raise UnsupportedModel(
            "the transform leaves images at their size (_skip_resize)",
            "set transform.fixed_size to the (W, H) of your images and _skip_resize to False",
        )
    if len(transform.image_mean) != 3 or len(transform.image_std) != 3 or not all(transform.image_std):
        raise UnsupportedModel(
            f"the transform normalises {len(transform.image_mean)} channels by the deviations {transform.image_std}",
            "images have three channels, red, green and blue, with deviations above 0",
        )


def _check_heads(model: GeneralizedRCNN) -> None:
    """Runs every head on one roi of zeros: what it gives must be what the graph goes on with."""
    heads = model.roi_heads
    branches = {"box": "class logits [R, C] and box deltas [R, 4 C], background first"}
    branches |= {"mask": "mask logits [R, C, S, S]"} if heads.has_mask() else {}
    branches |= {"keypoint": "heatmaps [R, K, S, S]"} if heads.has_keypoint() else {}
    for branch, expected in branches.items():
        pooler = getattr(heads, f"{branch}_roi_pool")
        if type(pooler) is not MultiScaleRoIAlign:
            raise UnsupportedModel(
                f"the {branch} head pools with a {type(pooler).__name__}", "use torchvision's MultiScaleRoIAlign"
            )
        head, predictor = getattr(heads, f"{branch}_head"), getattr(heads, f"{branch}_predictor")
        found = _shapes_of(model, branch, nn.Sequential(head, predictor))
        if branch == "box":
            fits = isinstance(found, list) and len(found) == 2 and len(found[0]) == 2
            fits = fits and found[1] == (1, 4 * found[0][1])
            classes = found[0][1] if fits else 0
        else:
            fits = isinstance(found, tuple) and len(found) == 4 and found[2] == found[3]
            fits = fits and (branch == "keypoint" or found[1] == classes)
        if not fits:
            raise UnsupportedModel(
                f"the {branch} head, {type(head).__name__} with {type(predictor).__name__}, gives {found} for one roi",
                f"the graph needs {expected}",
            )


@torch.no_grad()
def _shapes_of(model: GeneralizedRCNN, branch: str, layers: nn.Module) -> Any:
    """Shape of what a head gives for one roi, as a tuple; of a sequence of tensors, a list of such tuples."""
    pooler = getattr(model.roi_heads, f"{branch}_roi_pool")
    parameter = next(model.parameters())
    try:
        given = layers(parameter.new_zeros((1, model.backbone.out_channels, *pooler.output_size)))
        several = isinstance(given, tuple | list)
        return [tuple(value.shape) for value in given] if several else tuple(given.shape)
    except Exception as error:  # the layers are the user's
        raise UnsupportedModel(
            f"the {branch} head cannot be run on maps of {model.backbone.out_channels} channels: {error}",
            "backbone.out_channels must say how many channels each map has",
        ) from error


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Refuses weights that are not float32, or not numbers.

    Raises:
        UnsupportedModel: names the first.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise UnsupportedModel(f"weight {name} is {tensor.dtype}", "call model.float() first")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UnsupportedModel(f"weight {name} holds values that are no numbers", "use another checkpoint")


def _check_dynamic(model: GeneralizedRCNN) -> None:
    """Refuses what a graph of any canvas cannot compute."""
    divisor, generator = int(model.transform.size_divisible), model.rpn.anchor_generator
    if type(generator) is not AnchorGenerator:
        raise UnsupportedModel(
            f"anchors of a {type(generator).__name__} cannot be computed in the graph",
            "give a fixed canvas: its anchors become constants",
        )
    if divisor != STRIDE:
        raise UnsupportedModel(
            f"the transform pads to multiples of {divisor}, a dynamic canvas to multiples of {STRIDE}",
            f"give a fixed canvas, or set transform.size_divisible = {STRIDE}",
        )


def check_canvas(canvas: tuple[int, int], divisor: int) -> None:
    """Refuses a canvas (H, W) that is no multiple of a number of pixels.

    Raises:
        UsageError: names the next one that fits.
    """
    if any(side < divisor or side % divisor for side in canvas):
        fitting = "x".join(str(max(1, math.ceil(side / divisor)) * divisor) for side in canvas)
        raise UsageError(
            f"the canvas {canvas[0]}x{canvas[1]} is no multiple of {divisor}, to which the model pads its images",
            f"the next one that fits is {fitting}",
        )


def check_target(model: nn.Module, spec: ModelSpec, target: str) -> None:
    """Refuses a target that cannot be given what was asked for.

    Args:
        model: checked.
        spec: of the file that is to be written.
        target: name of a target.

    Raises:
        UsageError: there is no such target, or it needs fixed shapes or smaller numbers.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target {target!r}", f"the targets are: {', '.join(TARGETS)}")
    if target != "tensorrt":
        return
    for name, value, remedy in (
        ("canvas", spec.canvas, "--shape HxW (shape=(H, W))"),
        ("batch", spec.batch, "--batch N (batch=N)"),
    ):
        if value is None:
            raise UsageError(f"the target tensorrt needs a fixed {name}, got a dynamic one", f"give {remedy}")
    if not isinstance(model, GeneralizedRCNN):
        return
    chosen = {"detections per image": spec.max_detections}
    if spec.proposals == "rpn":  # those of the caller are not chosen from
        chosen["candidates per level before NMS (rpn.pre_nms_top_n)"] = model.rpn.pre_nms_top_n()
        chosen["proposals"] = spec.max_proposals or 0
    for name, number in chosen.items():
        if number > MAX_TOP_K:
            raise UsageError(
                f"TensorRT chooses at most {MAX_TOP_K} at a time, the model asks for {number} {name}",
                "lower that number",
            )
