"""Which detection of one set is which of another, and how much two detections overlap."""

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.errors import DependencyMissing, UsageError
from edgemask.masks import paste_crop

SAME_OBJECT = 0.5  # box IoU from which on two detections of a label are taken for the same object

# COCO's for its 17 points of a person; k of a point is twice its sigma.
_PERSON_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000

FloatArray = NDArray[np.float64]
Rows = NDArray[np.intp]


def pair_up(
    reference: Detections, candidate: Detections, *, box_iou: float, score: float
) -> tuple[Rows, Rows, FloatArray]:
    """Pairs the detections of one image one to one, within each label.

    Of all assignments this is one with the most matches (IoU >= `box_iou`, scores no further apart than `score`);
    among those, the one with the highest IoU and the closest scores. Pairs below `SAME_OBJECT` are no pairs.

    Args:
        reference: N detections.
        candidate: M detections of the same image.
        box_iou: 0-1.
        score: 0-1.

    Returns:
        Rows of the reference [K], rows of the candidate [K], and their box IoU float64 [K].

    Raises:
        DependencyMissing: scipy is not installed.
    """
    rows, columns, ious = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], [np.zeros(0)]
    for label in np.intersect1d(reference.labels, candidate.labels):
        of_reference = np.flatnonzero(reference.labels == label)
        of_candidate = np.flatnonzero(candidate.labels == label)
        iou = box_ious(reference.boxes[of_reference], candidate.boxes[of_candidate])
        scores = reference.scores[of_reference].astype(np.float64), candidate.scores[of_candidate].astype(np.float64)
        difference = np.abs(scores[0][:, None] - scores[1])
        first, second = _assign(iou, difference, (iou >= box_iou) & (difference <= score))
        rows.append(of_reference[first])
        columns.append(of_candidate[second])
        ious.append(iou[first, second])
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(ious)


def _assign(iou: FloatArray, difference: FloatArray, matches: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        problem = "comparing detections needs the package scipy, which is not installed"
        raise DependencyMissing(problem, "pip install 'edgemask[validate]'") from error
    same = iou >= SAME_OBJECT
    # Closeness is below 2, so that no number of close pairs is worth one match.
    closeness = 1 + iou - difference
    value = np.where(same, closeness + matches * (2.0 * min(iou.shape) + 1), 0.0)
    first, second = linear_sum_assignment(value, maximize=True)
    kept = same[first, second]
    return first[kept], second[kept]


def box_ious(first: NDArray[np.float32], second: NDArray[np.float32]) -> FloatArray:
    """IoU of each box with each: [N, 4] and [M, 4] xyxy -> float64 [N, M]; 1 for equal boxes without an area."""
    one, other = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    overlap = sides.clip(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clip(0).prod(-1) for boxes in (one, other)]
    union = areas[0] + areas[1] - overlap
    empty = union <= 0
    ious: FloatArray = np.where(empty, (one == other).all(-1), overlap / np.where(empty, 1.0, union))
    return ious


def mask_iou(reference: Detections, row: int, candidate: Detections, column: int) -> float:
    """IoU of two detections' masks as bitmaps of the original image; 1 where neither has a pixel.

    Raises:
        UsageError: one side has no masks.
    """
    if reference.masks is None or candidate.masks is None:
        raise UsageError("masks: expected them on both sides, got None", "compare models that give masks")
    one, top, left = paste_crop(reference.masks[row], reference.boxes[row], reference.image_size)
    other, other_top, other_left = paste_crop(candidate.masks[column], candidate.boxes[column], candidate.image_size)
    down, right = other_top - top, other_left - left  # from the first crop's corner to the second one's
    shared = int(
        np.count_nonzero(
            one[max(down, 0) : max(down + other.shape[0], 0), max(right, 0) : max(right + other.shape[1], 0)]
            & other[max(-down, 0) : max(one.shape[0] - down, 0), max(-right, 0) : max(one.shape[1] - right, 0)]
        )
    )
    union = int(np.count_nonzero(one)) + int(np.count_nonzero(other)) - shared
    return shared / union if union else 1.0


def keypoint_similarity(distances: FloatArray, boxes: NDArray[np.float32]) -> FloatArray:
    """Object keypoint similarity, COCO's OKS: 1 where all points agree, near 0 where they are a limb apart.

    The area of an object is taken to be half of its box's: that of a person, whose sigmas COCO gives. Other numbers
    of points than COCO's 17 have a sigma of 1 / K each.

    Args:
        distances: [N, K] between the points of both sides, pixels.
        boxes: float32 [N, 4] xyxy of the objects, pixels of the same image.

    Returns:
        float64 [N].

    Source: COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval
    """
    count = distances.shape[1]
    sigmas = _PERSON_SIGMAS if count == len(_PERSON_SIGMAS) else np.full(count, 1 / count)
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).clip(0)
    area = sides.prod(1)[:, None] / 2 + np.spacing(1)
    similarity: FloatArray = np.exp(-(distances**2) / (2 * area * (2 * sigmas) ** 2)).mean(1)
    return similarity
