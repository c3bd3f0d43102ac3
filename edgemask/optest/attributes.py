"""Attributes of the custom ops against what else the file says."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgemask.ops import floor32
from edgemask.optest.sites import OpPart, OpSite
from edgemask.spec import ModelSpec

NMS, ROI_ALIGN = "BatchedNms", "MultiScaleRoiAlign_L"
_NAMES = {
    NMS: {"iou_threshold", "score_threshold", "max_per_class"},
    ROI_ALIGN: {
        *("output_height", "output_width", "sampling_ratio", "coordinate_transformation_mode"),
        *("spatial_scales", "canonical_scale", "canonical_level"),
    },
}


def op_of(site: OpSite) -> str | None:
    """`NMS` or `ROI_ALIGN`; None for an op, or a set of attributes, that this version does not define."""
    op = NMS if site.op == NMS else ROI_ALIGN
    levels = len(site.inputs) - 1
    is_known = site.op in (NMS, f"{ROI_ALIGN}{levels}") and site.attributes.keys() == _NAMES[op]
    return op if is_known and (op != NMS or levels == 1) else None


def differences(site: OpSite, part: OpPart, spec: ModelSpec) -> Iterator[str]:
    """Sentences on attributes that are not what the file says elsewhere.

    All of them are compared with what the exporter recorded. A file before format 1.2 has no such record: of its
    attributes these are known from the spec: both thresholds and the limit of the stage `nms`; the limit of the stage
    `proposals`, where the spec has it, and that its score threshold lies between -1, the score of what is absent, and
    0; the pooled size, which is that of the tensor; and on a fixed canvas the scales of the maps. Of no such file are
    known the RPN's IoU threshold, the sampling ratio, the alignment, and the canonical scale and level: a wrong one
    shows in the comparison of the stages.
    """
    for name, expected in (site.recorded or {}).items():
        if site.attributes.get(name) != expected:
            yield _sentence(name, f"{expected}, as the exporter recorded it", site.attributes.get(name))
    known = _of_nms(site, spec) if op_of(site) == NMS else _of_pool(site, part, spec)
    for name, expected in known.items():
        if site.attributes.get(name) != expected:
            yield _sentence(name, f"{expected}, as the spec has it", site.attributes.get(name))
    if op_of(site) == NMS and site.stage == "proposals" and not -1.0 <= site.attributes["score_threshold"] < 0.0:
        yield _sentence("score_threshold", "-1 to below 0", site.attributes["score_threshold"])


def _sentence(name: str, expected: str, got: Any) -> str:
    return f"attribute {name}: expected {expected}, got {got}"


def _of_nms(site: OpSite, spec: ModelSpec) -> Mapping[str, Any]:
    if site.stage == "nms":
        return {
            "iou_threshold": floor32(spec.nms_threshold),
            "score_threshold": float(np.float32(spec.score_threshold)),
            "max_per_class": spec.max_detections,
        }
    is_known = site.stage == "proposals" and spec.max_proposals is not None
    return {"max_per_class": spec.max_proposals} if is_known else {}


def _of_pool(site: OpSite, part: OpPart, spec: ModelSpec) -> Mapping[str, Any]:
    known: dict[str, Any] = {}
    if part.gives is not None and len(part.gives) == 4:
        sides = dict(zip(("output_height", "output_width"), part.gives[2:], strict=True))
        known = {name: side for name, side in sides.items() if side is not None}
    heights = [part.sides[name][2] for name in site.inputs[:-1] if len(part.sides.get(name, ())) == 4]
    if spec.canvas is not None and len(heights) == len(site.inputs) - 1 and None not in heights:
        known["spatial_scales"] = [_scale(height, spec.canvas[0]) for height in heights if height]
    return known


def _scale(height: int, canvas: int) -> float:
    """Feature pixels per canvas pixel: the nearest power of two, as torchvision's `MultiScaleRoIAlign` has it."""
    return float(2.0 ** round(math.log2(height / canvas)))
