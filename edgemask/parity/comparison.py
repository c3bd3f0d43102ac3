"""Compares two sets of results image by image."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgemask.detections import Detections
from edgemask.errors import UsageError
from edgemask.parity.matching import FloatArray, Rows, mask_iou, pair_up
from edgemask.parity.reports import ParityReport, Tolerance, WorstImage

SCORE_THRESHOLD = 0.05  # detections with a lower score are not compared
WORST_IMAGES = 10  # kept in a report


def compare(
    pairs: Iterable[tuple[str, Detections, Detections]],
    tolerance: Tolerance,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = None,
) -> ParityReport:
    """Compares what two models found, one image at a time: `pairs` may be a generator, nothing is kept of it.

    Detections are matched one to one within each label by the assignment that matches the most; ties and order play
    no part. No image at all, or none with a detection on either side, is a failure.

    Args:
        pairs: image name, reference, candidate; of the same original image.
        tolerance: what is asked; `TOLERANCES` has one for each precision.
        score_threshold: detections with a lower score are left out; give the models' own where that is higher.
        max_detections: the models' limit per image; a detection cut off by it is a flip as one cut off by the
            threshold is.

    Returns:
        The record; `raise_for_failure()` turns a failure into an error.

    Raises:
        UsageError: the two sides saw images of different sizes.
        DependencyMissing: scipy is not installed.
    """
    tally = _Tally(tolerance, score_threshold, max_detections)
    for name, reference, candidate in pairs:
        tally.add(name, reference, candidate)
    return tally.report()


@dataclass(slots=True)
class _Tally:
    """What has been seen so far; `worst` has the number of spoilt detections in front."""

    tolerance: Tolerance
    score_threshold: float
    max_detections: int | None
    images: int = 0
    without_objects: int = 0
    reference: int = 0
    candidate: int = 0
    matched: int = 0
    lost: int = 0
    ghosts: int = 0
    tasks: set[str] = field(default_factory=lambda: {"boxes"})
    one_sided: set[str] = field(default_factory=set)
    box_iou: list[float] = field(default_factory=list)
    score_difference: list[float] = field(default_factory=list)
    mask_iou: list[float] = field(default_factory=list)
    keypoint_distance: list[float] = field(default_factory=list)
    keypoint_score_difference: float = 0.0
    worst: list[tuple[float, WorstImage]] = field(default_factory=list)

    def add(self, name: str, reference: Detections, candidate: Detections) -> None:
        """Compares the results for one image."""
        if reference.image_size != candidate.image_size:
            raise UsageError(
                f"{name}: the reference saw {reference.image_size} pixels (H, W), the candidate {candidate.image_size}",
                "give both the same image",
            )
        reference = reference[reference.scores >= self.score_threshold]
        candidate = candidate[candidate.scores >= self.score_threshold]
        rows, columns, ious = pair_up(reference, candidate, box_iou=self.tolerance.box_iou, score=self.tolerance.score)
        differences = np.abs(reference.scores[rows].astype(np.float64) - candidate.scores[columns])
        within = (ious >= self.tolerance.box_iou) & (differences <= self.tolerance.score)
        lost = self._losses(reference, rows[within], candidate)
        ghosts = self._losses(candidate, columns[within], reference)
        self.images += 1
        self.without_objects += not len(reference)
        self.reference += len(reference)
        self.candidate += len(candidate)
        self.matched += int(within.sum())
        self.lost += lost
        self.ghosts += ghosts
        self.box_iou += ious.tolist()
        self.score_difference += differences.tolist()
        masks, points = self._compare_tasks(reference, rows[within], candidate, columns[within])
        self._note_worst(name, lost, ghosts, ious, masks, points)

    def _losses(self, found: Detections, matched: Rows, other: Detections) -> int:
        """Number of unmatched detections that are no flips."""
        scores = np.delete(found.scores, matched).astype(np.float64)
        margin = self.tolerance.flip_margin
        flips = np.abs(scores - self.score_threshold) <= margin
        if self.max_detections is not None and len(other) >= self.max_detections:
            # The other side had no room left: its lowest score was a threshold too.
            flips |= np.abs(scores - float(other.scores[-1])) <= margin
        return int((~flips).sum())

    def _compare_tasks(
        self,
        reference: Detections,
        rows: Rows,
        candidate: Detections,
        columns: Rows,
    ) -> tuple[list[float], list[float]]:
        """Compares masks and keypoints of the matched detections; gives the masks' IoU and the points' distances."""
        for task in ("masks", "keypoints"):
            given = [getattr(found, task) is not None for found in (reference, candidate)]
            if all(given):
                self.tasks.add(task)
            elif any(given) and len(reference) and len(candidate):
                owner = "candidate" if given[1] else "reference"
                self.one_sided.add(f"{task} were not compared: only the {owner} gives them")
        distances = _distances(reference, rows, candidate, columns)
        self.keypoint_distance += distances
        self.keypoint_score_difference = max(
            self.keypoint_score_difference, _score_difference(reference, rows, candidate, columns)
        )
        if reference.masks is None or candidate.masks is None:
            return [], distances
        ious = [mask_iou(reference, row, candidate, column) for row, column in zip(rows, columns, strict=True)]
        self.mask_iou += ious
        return ious, distances

    def _note_worst(
        self, name: str, lost: int, ghosts: int, boxes: FloatArray, masks: list[float], points: list[float]
    ) -> None:
        damage = lost + ghosts + sum(1 - iou for iou in masks)
        bad_masks = bool(masks) and min(masks) < (self.tolerance.mask_iou or 0)
        distance = float(np.median(points)) if points else 0.0
        bad_points = self.tolerance.keypoint_distance is not None and distance > self.tolerance.keypoint_distance
        if not lost and not ghosts and not bad_masks and not bad_points:
            return
        parts = [f"{count} {word}" for count, word in ((lost, "lost"), (ghosts, "invented")) if count]
        if len(boxes) and boxes.min() < self.tolerance.box_iou:
            parts.append(f"box IoU down to {boxes.min():.3f}")
        if bad_masks:
            parts.append(f"mask IoU down to {min(masks):.3f}")
        if bad_points:
            parts.append(f"keypoints off by {distance:.3g} px")
        self.worst.append((damage, WorstImage(name, ", ".join(parts))))
        self.worst.sort(key=lambda entry: -entry[0])
        del self.worst[WORST_IMAGES:]

    def report(self) -> ParityReport:
        """What all images together gave."""
        compared = 2 * self.matched + self.lost + self.ghosts
        return ParityReport(
            images=self.images,
            images_without_objects=self.without_objects,
            tasks=tuple(task for task in ("boxes", "masks", "keypoints") if task in self.tasks),
            reference=self.reference,
            candidate=self.candidate,
            matched=self.matched,
            flips=self.reference + self.candidate - compared,
            lost=self.lost,
            ghosts=self.ghosts,
            matched_share=2 * self.matched / compared if compared else math.nan,
            box_iou_mean=_nan_if_none(np.mean, self.box_iou),
            box_iou_min=_nan_if_none(np.min, self.box_iou),
            score_difference_max=_nan_if_none(np.max, self.score_difference),
            mask_iou_mean=_nan_if_none(np.mean, self.mask_iou),
            mask_iou_min=_nan_if_none(np.min, self.mask_iou),
            keypoint_distance_median=_nan_if_none(np.median, self.keypoint_distance),
            keypoint_distance_max=_nan_if_none(np.max, self.keypoint_distance),
            keypoint_score_difference_max=self.keypoint_score_difference if self.keypoint_distance else math.nan,
            worst=tuple(image for _, image in self.worst),
            problems=tuple(sorted(self.one_sided)),
            tolerance=self.tolerance,
        )


def _nan_if_none(function: Callable[[list[float]], Any], values: list[float]) -> float:
    return float(function(values)) if values else math.nan


def _distances(reference: Detections, rows: Rows, candidate: Detections, columns: Rows) -> list[float]:
    """Pixels between the keypoints of pairs of detections; none where one side has no keypoints."""
    if reference.keypoints is None or candidate.keypoints is None:
        return []
    steps = reference.keypoints[rows, :, :2] - candidate.keypoints[columns, :, :2]
    distances: list[float] = np.linalg.norm(steps, axis=-1).ravel().tolist()
    return distances


def _score_difference(reference: Detections, rows: Rows, candidate: Detections, columns: Rows) -> float:
    """The largest difference between the keypoint scores of pairs of detections; 0 where there is none."""
    if reference.keypoint_scores is None or candidate.keypoint_scores is None:
        return 0.0
    steps = np.abs(reference.keypoint_scores[rows] - candidate.keypoint_scores[columns])
    return float(steps.max(initial=0))
