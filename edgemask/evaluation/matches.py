"""Which detections found an object, at each IoU threshold: what average precision is counted from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# COCO's: an IoU of 1 with a rounding error still meets a threshold of 1.
_HIGHEST = 1 - 1e-10


@dataclass(frozen=True, slots=True)
class Matches:
    """What one side found of one category, over all images and areas, the surest first.

    Attributes:
        images: intp [N], the position of each detection's image among those scored.
        counted: bool [T, N], by IoU threshold; those on a crowd region count neither for nor against.
        hits: for each of T thresholds, the ascending positions, intp, of the detections that found an object.
    """

    images: NDArray[np.intp]
    counted: NDArray[np.bool_]
    hits: tuple[NDArray[np.intp], ...]


def objects_of(evaluation: Any) -> dict[int, NDArray[np.int64]]:
    """Numbers of objects to find, int64 [images] by category: all but crowd regions and those without keypoints."""
    ids = [int(image) for image in evaluation.params.imgIds]
    numbers = {int(category): np.zeros(len(ids), np.int64) for category in evaluation.params.catIds}
    for position, image in enumerate(ids):
        for entry in evaluation.cocoGt.imgToAnns[image]:
            numbers[entry["category_id"]][position] += not _ignored(entry, evaluation)
    return numbers


def matches_of(evaluation: Any) -> dict[int, Matches]:
    """Matches detections and objects as COCO does, by the IoU that a library's evaluation has left.

    Args:
        evaluation: what `evaluate` gave.

    Returns:
        The matches of each category.
    """
    thresholds = np.minimum(np.asarray(evaluation.params.iouThrs), _HIGHEST)
    limit = evaluation.params.maxDets[-1]
    parts: dict[int, list[tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.int8]]]] = defaultdict(list)
    for position, image in enumerate(int(image) for image in evaluation.params.imgIds):
        objects = _by_category(evaluation.cocoGt.imgToAnns[image])
        for category, found in _by_category(evaluation.cocoDt.imgToAnns[image]).items():
            scores = np.array([entry["score"] for entry in found], np.float64)
            order = np.argsort(-scores, kind="stable")[:limit]
            marks = np.zeros((len(thresholds), len(order)), np.int8)
            if objects[category]:
                ious = np.asarray(evaluation.ious[image, category])
                ignored = [_ignored(entry, evaluation) for entry in objects[category]]
                crowds = [bool(entry["iscrowd"]) for entry in objects[category]]
                _mark(marks, ious, ignored, crowds, thresholds)
            outside = np.array([_outside(entry, evaluation) for entry in found])[order]
            marks[(marks == 0) & outside] = _IGNORED
            parts[category].append((scores[order], np.full(len(order), position), marks))
    return {int(category): _joined(parts[int(category)], len(thresholds)) for category in evaluation.params.catIds}


def _by_category(entries: Sequence[Mapping[str, Any]]) -> defaultdict[int, list[Mapping[str, Any]]]:
    found = defaultdict(list)
    for entry in entries:
        found[entry["category_id"]].append(entry)
    return found


def _ignored(entry: Mapping[str, Any], evaluation: Any) -> bool:
    without_points = evaluation.params.iouType == "keypoints" and not entry["num_keypoints"]
    return bool(entry["iscrowd"]) or without_points or _outside(entry, evaluation)


def _outside(entry: Mapping[str, Any], evaluation: Any) -> bool:
    """Whether COCO leaves out an area even where it scores all of them: 0 to 1e10 pixels."""
    low, high = evaluation.params.areaRng[0]
    return not low <= entry["area"] <= high


_HIT, _IGNORED = 1, 2


def _mark(
    marks: NDArray[np.int8],
    ious: NDArray[np.float64],
    ignored: Sequence[bool],
    crowds: Sequence[bool],
    thresholds: NDArray[np.float64],
) -> None:
    """Marks [T, D] the detections of an image that take an object, in the order of their scores.

    Each takes the object of the highest IoU that is still free, the last of equal ones; one that is ignored only where
    there is no other. Crowd regions are always free.
    """
    near: dict[int, list[tuple[int, float]]] = defaultdict(list)
    rows, columns = np.nonzero(ious >= thresholds[0])
    for row, column in sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda pair: ignored[pair[1]]):
        near[row].append((column, float(ious[row, column])))
    for number, threshold in enumerate(thresholds.tolist()):
        taken: set[int] = set()
        for row in sorted(near):
            best, highest = -1, threshold
            for column, iou in near[row]:
                if best >= 0 and ignored[column] and not ignored[best]:
                    break
                if iou >= highest and (column not in taken or crowds[column]):
                    best, highest = column, iou
            if best >= 0:
                taken.add(best)
                marks[number, row] = _IGNORED if ignored[best] else _HIT


def _joined(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.int8]]], thresholds: int
) -> Matches:
    scores = np.concatenate([np.zeros(0), *(part[0] for part in parts)])
    images = np.concatenate([np.zeros(0, np.intp), *(part[1] for part in parts)])
    marks = np.concatenate([np.zeros((thresholds, 0), np.int8), *(part[2] for part in parts)], axis=1)
    order = np.argsort(-scores, kind="stable")
    marks = marks[:, order]
    return Matches(images[order], marks != _IGNORED, tuple(np.flatnonzero(row == _HIT) for row in marks))
