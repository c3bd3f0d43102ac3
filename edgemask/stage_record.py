"""The record of one image's way through a model: the tensors at the borders of the stages, by name.

PyTorch (`edgemask.reference_stages`) and an ONNX file (`edgemask.runtimes.stage_runs`) write the same one: a batch of
one, its rows flat. In the order of the data's road, with R proposals and M detections:

| name | what |
|---|---|
| `image_sizes` | int64 [1, 2], height and width of the image inside the canvas |
| `stage/resize` | [1, 3, H, W], normalised, on the canvas |
| `backbone.{i}`, `fpn.{i}` | [1, C, Hi, Wi] |
| `rpn.scores.{i}`, `rpn.boxes.{i}` | logits [1, A, Hi, Wi] and deltas [1, 4 A, Hi, Wi] |
| `rpn.boxes`, `rpn.scores` | candidates [1, N, 4] in canvas pixels and [1, N], by level, then by score; -1: removed |
| `proposals.boxes` | [R, 4] in pixels of the original, where they were given |
| `proposals` | [R, 5], the batch index and xyxy in canvas pixels |
| `box_head`, `box_head.boxes` | logits [R, C] and deltas [R, 4 C] |
| `boxes`, `scores`, `labels` | [M, 4] in canvas pixels, [M], int64 [M]: together the stage `nms` |
| `mask_head`, `masks` | logits and probabilities [M, S, S] of each one's own class |
| `keypoint_heatmaps` | [M, K, S, S] |
| `detections` | [M, 6], xyxy in pixels of the original, score and label |
| `detections.keypoints`, `detections.keypoint_scores` | [M, K, 3] in pixels of the original, [M, K] |
| `paste` | uint8 [M, H, W / 8], the bitmaps, eight pixels a byte |

and of a semantic model `head` [1, C, Hi, Wi], `labels` uint8 and `scores` [1, H, W] on the canvas, and `map` uint8 and
`map.scores` [H, W] in pixels of the original.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.semantic import SemanticMap

Record = dict[str, NDArray[Any]]

_ROAD = (
    *("image_sizes", "stage/resize", "backbone.#", "fpn.#", "rpn.scores.#", "rpn.boxes.#", "rpn.boxes", "rpn.scores"),
    *("proposals.boxes", "proposals", "box_head", "box_head.boxes", "boxes", "head", "labels", "scores"),
    *("mask_head", "masks", "keypoint_heatmaps", "map", "map.scores"),
    *("detections", "detections.keypoints", "detections.keypoint_scores", "paste"),
)
# What the runtime makes of the outputs: the same on every device.
BEHIND_THE_GRAPH = ("detections", "detections.keypoints", "detections.keypoint_scores", "paste", "map", "map.scores")
_NUMBER = re.compile(r"(?<=\.)\d+$")


def on_the_road(names: Iterable[str]) -> list[str]:
    """The names of a record that are among some, in the order of the data's road."""
    levels = {name: _NUMBER.search(name) for name in names}
    places = {name: (_NUMBER.sub("#", name), int(found[0]) if found else 0) for name, found in levels.items()}
    known = [name for name, (stem, _) in places.items() if stem in _ROAD]
    return sorted(known, key=lambda name: (_ROAD.index(places[name][0]), places[name][1]))


def in_order(values: Mapping[str, NDArray[Any]]) -> Record:
    """What of some tensors belongs into a record, in its order."""
    return {name: values[name] for name in on_the_road(values)}


def of_detections(found: Detections) -> Record:
    """What a runtime makes of the graph's outputs: the last stages of an R-CNN."""
    rows = np.column_stack([found.boxes, found.scores, found.labels.astype(np.float32)])
    record: Record = {"detections": rows}
    if found.keypoints is not None and found.keypoint_scores is not None:
        record |= {"detections.keypoints": found.keypoints, "detections.keypoint_scores": found.keypoint_scores}
    if found.masks is not None:
        # One at a time: 500 bitmaps of a megapixel are half a gigabyte.
        record["paste"] = packed((found[row].bitmaps()[0] for row in range(len(found))), found.image_size)
    return record


def of_map(found: SemanticMap) -> Record:
    """What a runtime makes of the graph's outputs: the last stage of a semantic model."""
    return {"map": found.labels, "map.scores": found.scores}


def packed(bitmaps: Iterable[NDArray[np.bool_]], image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bitmaps [H, W] as uint8 [M, H, W / 8], `image_size` being (H, W) of none at all."""
    rows = [np.packbits(bitmap, axis=1) for bitmap in bitmaps]
    return np.stack(rows) if rows else np.packbits(np.zeros((0, *image_size), np.bool_), axis=2)
