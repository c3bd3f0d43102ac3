"""Where an exported model first differs from PyTorch: stage by stage, each on the same input.

Every stage of the PyTorch model is fed with what the exported graph itself fed to that stage, so that one early flip
does not condemn everything behind it. All PyTorch code here is torchvision's own.
"""

import math
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from edgemask.reference import ReferenceDetector, per_class_nms, set_pooling_scales

# Measured: torch's own resize of 480x640 to 800x1066 differs from itself by 0.0075 grey levels, 5e-5 of the largest
# normalised value, between one thread (a fused multiply-add) and two.
RESIZE_TOLERANCE = 1e-4
VALUE_TOLERANCE = 2e-5  # of the reference's largest magnitude: ten times what summing in another order costs
CHOICE_TOLERANCE = 2e-3  # share of boxes chosen otherwise: two of a thousand may flip on a tie


@dataclass(frozen=True, slots=True)
class StageCheck:
    """How one stage compares.

    Attributes:
        stage: name of the stage tensor.
        error: largest difference, as a share of the reference's largest magnitude; for `proposals` and `nms` the share
            of boxes that only one side chose, or that lie out of order. Infinite for a tensor of another shape.
        tolerance: what is allowed.
    """

    stage: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


@torch.inference_mode()
def compare_stages(
    reference: ReferenceDetector, pixels: NDArray[np.uint8], outputs: Mapping[str, NDArray[np.generic]]
) -> tuple[StageCheck, ...]:
    """Compares the stages of an exported model with PyTorch on one image.

    Args:
        reference: the PyTorch model, on the same canvas.
        pixels: uint8 [H, W, 3] RGB.
        outputs: what the graph with taps gave for that image, by name, and the proposals that it was given.

    Returns:
        One check per stage tensor, in the order of the data's road; they end with a tensor of another shape or with
        one that is not finite, with which no later stage can be fed.
    """
    return until_broken(_checks(reference, reference.resize(pixels), as_tensors(outputs)))


def as_tensors(outputs: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    """The graph's tensors by name, as copies that torch may write to."""
    return {name: torch.from_numpy(np.array(value)) for name, value in outputs.items()}


def until_broken(checks: Iterable[StageCheck]) -> tuple[StageCheck, ...]:
    """The checks up to the first whose tensor has another shape or is not finite: no later stage can be fed with it."""
    done: list[StageCheck] = []
    for check in checks:
        done.append(check)
        if not math.isfinite(check.error):
            break
    return tuple(done)


def first_divergence(checks: Sequence[StageCheck]) -> StageCheck | None:
    """The first check that did not pass."""
    return next((check for check in checks if not check.passed), None)


def _checks(reference: ReferenceDetector, images: ImageList, taps: Mapping[str, Tensor]) -> Iterator[StageCheck]:
    model = reference.model
    yield compare_values("stage/resize", images.tensors, taps, RESIZE_TOLERANCE)
    images = ImageList(taps["stage/resize"], images.image_sizes)
    features = yield from _check_features(model, taps, unused=reference.spec.proposals == "input")
    set_pooling_scales(model, features, (int(images.tensors.shape[-2]), int(images.tensors.shape[-1])))
    if reference.spec.proposals == "rpn":
        yield from _check_proposals(model, images, list(features.values()), taps)
    yield from _check_boxes(model, images, features, taps)
    yield from _check_branches(model, images, features, taps)


def _check_features(
    model: GeneralizedRCNN, taps: Mapping[str, Tensor], *, unused: bool
) -> Generator[StageCheck, None, dict[str, Tensor]]:
    """Checks backbone and FPN; gives the graph's own maps under the model's names.

    A map that nothing is computed from is left out of the graph, where the RPN is; `unused` allows for that.
    """
    has_pyramid = isinstance(model.backbone, BackboneWithFPN)
    found = (model.backbone.body if has_pyramid else model.backbone)(taps["stage/resize"])
    if isinstance(found, Tensor):
        found = OrderedDict({"0": found})
    for level, value in enumerate(found.values()):
        yield compare_values(f"backbone.{level}", value, taps)
    own = OrderedDict((name, taps[f"backbone.{level}"]) for level, name in enumerate(found))
    if not has_pyramid:
        return own
    found = model.backbone.fpn(own)
    kept = {f"fpn.{level}": name for level, name in enumerate(found) if f"fpn.{level}" in taps or not unused}
    for stage, name in kept.items():
        yield compare_values(stage, found[name], taps)
    return OrderedDict((name, taps[stage]) for stage, name in kept.items())


def _check_proposals(
    model: GeneralizedRCNN, images: ImageList, features: list[Tensor], taps: Mapping[str, Tensor]
) -> Iterator[StageCheck]:
    objectness, deltas = model.rpn.head(features)
    for stage, maps in (("rpn.scores", objectness), ("rpn.boxes", deltas)):
        for level, value in enumerate(maps):
            yield compare_values(f"{stage}.{level}", value, taps)
    objectness = [taps[f"rpn.scores.{level}"] for level in range(len(features))]
    deltas = [taps[f"rpn.boxes.{level}"] for level in range(len(features))]
    anchors = model.rpn.anchor_generator(images, features)
    counts = [logits[0].numel() for logits in objectness]
    flat_objectness, flat_deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = model.rpn.box_coder.decode(flat_deltas, anchors).view(-1, 4)
    best: Tensor = model.rpn._get_top_n_idx(flat_objectness.view(1, -1), counts)[0]
    candidates = clip_boxes_to_image(boxes[best], images.image_sizes[0])
    scores, boxes = taps["rpn.scores"][0], taps["rpn.boxes"][0]
    yield StageCheck("rpn.boxes", _unshared(candidates, boxes, _scale(images)), CHOICE_TOLERANCE)
    # NMS on the graph's own candidates: one that overlaps just as the threshold says would flip with its last bit.
    level_of = torch.arange(len(counts)).repeat_interleave(
        torch.tensor([min(count, model.rpn.pre_nms_top_n()) for count in counts])
    )
    large = torch.isin(torch.arange(len(boxes)), remove_small_boxes(boxes, model.rpn.min_size))
    yield StageCheck("rpn.scores", (large != (scores >= 0)).double().mean().item(), CHOICE_TOLERANCE)
    valid = torch.where(scores >= 0)[0]
    kept = valid[per_class_nms(boxes[valid], scores[valid], level_of[valid], model.rpn.nms_thresh)]
    expected = boxes[kept[: model.rpn.post_nms_top_n()]]
    yield StageCheck("proposals", _unshared(expected, taps["proposals"][:, 1:], _scale(images)), CHOICE_TOLERANCE)


def _check_boxes(
    model: GeneralizedRCNN, images: ImageList, features: dict[str, Tensor], taps: Mapping[str, Tensor]
) -> Iterator[StageCheck]:
    heads, sizes = model.roi_heads, images.image_sizes
    rois = [taps["proposals"][:, 1:]]
    logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, rois, sizes)))
    yield compare_values("box_head", logits, taps)
    yield compare_values("box_head.boxes", deltas, taps)
    boxes, scores, labels = heads.postprocess_detections(taps["box_head"], taps["box_head.boxes"], rois, sizes)
    # One row per detection in which a step of 1 is far apart: pixels, and label and score scaled to them.
    scale = _scale(images)
    expected = torch.cat([boxes[0], scores[0][:, None] * scale, labels[0][:, None] * scale], 1)
    own = torch.cat([taps["boxes"], taps["scores"][:, None] * scale, taps["labels"][:, None] * scale], 1)
    yield StageCheck("nms", max(_unshared(expected, own, scale), _unsorted(taps["scores"])), CHOICE_TOLERANCE)


def _check_branches(
    model: GeneralizedRCNN, images: ImageList, features: dict[str, Tensor], taps: Mapping[str, Tensor]
) -> Iterator[StageCheck]:
    heads, boxes, sizes = model.roi_heads, [taps["boxes"]], images.image_sizes
    if heads.has_mask():
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, sizes)))
        known = taps["labels"].clamp(0, logits.shape[1] - 1)
        yield compare_values("mask_head", logits[torch.arange(len(known)), known], taps)
        yield compare_values("masks", taps["mask_head"].sigmoid(), taps)
    if heads.has_keypoint():
        heatmaps = heads.keypoint_predictor(heads.keypoint_head(heads.keypoint_roi_pool(features, boxes, sizes)))
        yield compare_values("keypoint_heatmaps", heatmaps, taps)


def compare_values(
    stage: str, expected: Tensor, taps: Mapping[str, Tensor], tolerance: float = VALUE_TOLERANCE
) -> StageCheck:
    """Compares a tensor of PyTorch with the stage tensor of the graph."""
    own = taps.get(stage)
    if own is None or expected.shape != own.shape:
        return StageCheck(stage, float("inf"), tolerance)
    if not expected.numel():
        return StageCheck(stage, 0.0, tolerance)
    magnitude = expected.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    return StageCheck(stage, ((expected - own).abs().amax() / magnitude).item(), tolerance)


def _unshared(expected: Tensor, own: Tensor, scale: float) -> float:
    """Share of rows of either side without a row of the other one within the tolerance of values."""
    if not len(expected) or not len(own):
        return float(len(expected) != len(own))
    distance = torch.cdist(expected.double(), own.double(), p=float("inf"))
    lonely = (distance.amin(1) > VALUE_TOLERANCE * scale).sum() + (distance.amin(0) > VALUE_TOLERANCE * scale).sum()
    return lonely.item() / (len(expected) + len(own))


def _unsorted(scores: Tensor) -> float:
    """Share of scores [N] that are greater than the one before."""
    return (scores.diff() > 0).double().mean().item() if len(scores) > 1 else 0.0


def _scale(images: ImageList) -> float:
    return float(max(images.tensors.shape[-2:]))
