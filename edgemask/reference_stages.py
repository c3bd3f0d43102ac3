"""The stages of a PyTorch model on one image: what torchvision's own code has at their borders, in one run.

The heads' own layers are listened to while they work. The candidates of the RPN, which torchvision keeps to itself, are
computed again from its scores and deltas, by its own functions.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from edgemask.detections import Detections
from edgemask.reference import Pass, ReferenceDetector
from edgemask.semantic_reference import SemanticReference, brought_back, surest
from edgemask.stage_record import Record, in_order, of_detections, of_map, packed

_ABSENT = -1.0  # the score that an exported graph gives to candidates that torchvision removes


@torch.inference_mode()
def record_stages(
    reference: ReferenceDetector | SemanticReference,
    pixels: NDArray[np.uint8],
    *,
    proposals: NDArray[np.float32] | None = None,
) -> Record:
    """Records the stages of the PyTorch model on one image.

    Args:
        reference: the model, on the canvas of the file that is to be compared with it.
        pixels: uint8 [H, W, 3] RGB.
        proposals: float32 [N, 4] xyxy in pixels of the image, for a file that takes them; not for a semantic model.

    Returns:
        The record as `edgemask.stage_record` has it.

    Raises:
        ImageError: a resized side would be 0 pixels.
    """
    if isinstance(reference, SemanticReference):
        return _semantic(reference, pixels)
    parts = _parts(reference.model)
    with _listening(parts) as heard:
        done, found = reference.run(pixels, proposals)
    values = _canvas(done.images) | _features(heard)
    if proposals is None:
        values |= _candidates(reference.model.rpn, done, *heard["rpn"])
    values["proposals"] = F.pad(done.proposals, (1, 0))
    values["box_head"], values["box_head.boxes"] = heard["box_head"]
    values |= {name: done.found[name] for name in ("boxes", "scores", "labels")}
    values |= _branches(heard, done.found)
    record = {name: value.cpu().numpy() for name, value in values.items()}
    if proposals is not None:
        record["proposals.boxes"] = proposals
    return in_order(record | of_detections(found) | _pasted(found))


def _semantic(reference: SemanticReference, pixels: NDArray[np.uint8]) -> Record:
    images = reference.resize(pixels)
    with _listening({"backbone": reference.model.backbone, "head": reference.model.classifier}) as heard:
        labels, scores = surest(reference.model(images.tensors)["out"])
    height, width = images.image_sizes[0]
    inside = torch.zeros_like(labels)
    inside[:, :height, :width] = 1
    values = _canvas(images) | {"backbone.0": heard["backbone"]["out"], "head": heard["head"]}
    values |= {"labels": labels * inside, "scores": scores * inside}
    found = brought_back(labels, scores, images, (pixels.shape[0], pixels.shape[1]))
    return in_order({name: value.cpu().numpy() for name, value in values.items()} | of_map(found))


def _parts(model: Any) -> dict[str, nn.Module]:
    """The layers whose outputs are borders of stages."""
    heads = model.roi_heads
    pyramid = isinstance(model.backbone, BackboneWithFPN)
    parts = {"backbone": model.backbone.body, "fpn": model.backbone.fpn} if pyramid else {"backbone": model.backbone}
    parts |= {"rpn": model.rpn.head, "box_head": heads.box_predictor}
    if heads.has_mask():
        parts["mask_head"] = heads.mask_predictor
    if heads.has_keypoint():
        parts["keypoint_heatmaps"] = heads.keypoint_predictor
    return parts


@contextlib.contextmanager
def _listening(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Keeps what layers give, by the names of the parts, while the block runs."""
    heard: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output, name=name: heard.__setitem__(name, output))
        for name, part in parts.items()
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _canvas(images: ImageList) -> dict[str, Tensor]:
    return {"image_sizes": torch.tensor(images.image_sizes), "stage/resize": images.tensors}


def _features(heard: Mapping[str, Any]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for stage in heard.keys() & {"backbone", "fpn"}:
        maps = [heard[stage]] if isinstance(heard[stage], Tensor) else heard[stage].values()
        values |= {f"{stage}.{level}": value for level, value in enumerate(maps)}
    return values


def _candidates(
    rpn: RegionProposalNetwork, done: Pass, objectness: list[Tensor], deltas: list[Tensor]
) -> dict[str, Tensor]:
    """The outputs of the RPN's head, and what `filter_proposals` makes of them before NMS, in the graph's layout."""
    values = {f"rpn.scores.{level}": value for level, value in enumerate(objectness)}
    values |= {f"rpn.boxes.{level}": value for level, value in enumerate(deltas)}
    anchors = rpn.anchor_generator(done.images, done.features)
    counts = [logits[0].numel() for logits in objectness]
    flat_objectness, flat_deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = rpn.box_coder.decode(flat_deltas, anchors).view(-1, 4)
    best = rpn._get_top_n_idx(flat_objectness.view(1, -1), counts)[0]
    boxes = clip_boxes_to_image(boxes[best], done.images.image_sizes[0])
    scores = flat_objectness.view(-1)[best].sigmoid()
    valid = torch.zeros_like(scores, dtype=torch.bool)
    valid[remove_small_boxes(boxes, rpn.min_size)] = True
    scores = torch.where(valid & (scores >= rpn.score_thresh), scores, _ABSENT)
    return values | {"rpn.boxes": boxes[None], "rpn.scores": scores[None]}


def _branches(heard: Mapping[str, Any], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    if "mask_head" in heard:
        logits = heard["mask_head"]
        values["mask_head"] = logits[torch.arange(len(logits), device=logits.device), found["labels"]]
        values["masks"] = found["masks"][:, 0]
    if "keypoint_heatmaps" in heard:
        values["keypoint_heatmaps"] = heard["keypoint_heatmaps"]
    return values


def _pasted(found: Detections) -> Record:
    """The bitmaps, pasted by torchvision; one at a time, as float32 they are eight bytes for each of numpy's bits."""
    if found.masks is None:
        return {}
    masks, boxes = (torch.tensor(values) for values in (found.masks[:, None], found.boxes))
    pasted = (paste_masks_in_image(masks[row, None], boxes[row, None], found.image_size) for row in range(len(found)))
    return {"paste": packed((one[0, 0].numpy() > 0.5 for one in pasted), found.image_size)}
