"""Compares two sets of results image by image."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.parity.histograms import Histogram, Tally
from edgemask.parity.images import ImageParity, compare_image
from edgemask.parity.measures import WorstImage
from edgemask.parity.reports import TASKS, ParityReport, Tolerance
from edgemask.spec import ModelSpec

SCORE_THRESHOLD = 0.05  # detections with a lower score are not compared
WORST_IMAGES = 10  # kept in a report
# Flips that one side may have more than the other: as many as rounding gives on a handful of images, and three standard
# deviations of a fair coin on many.
_FLIPS_BY_CHANCE, _DEVIATIONS = 2, 3


def least_score(spec: ModelSpec) -> float:
    """The score from which on detections of a model are compared: 0.05, or its own threshold where that is higher."""
    return max(SCORE_THRESHOLD, spec.score_threshold)


def compare(
    pairs: Iterable[tuple[str, Detections, Detections]],
    tolerance: Tolerance,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = None,
) -> ParityReport:
    """Compares what two models found, one image at a time: `pairs` may be a generator, nothing is kept of it.

    Detections are matched one to one within each label by the assignment that matches the most; order plays no part,
    so that detections with tied scores are compared as a group. No image at all, or none with a detection on either
    side, is a failure.

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
    sums = ParitySums(tolerance)
    for name, reference, candidate in pairs:
        sums.add(
            compare_image(
                name,
                reference,
                candidate,
                tolerance,
                score_threshold=score_threshold,
                max_detections=max_detections,
            )
        )
    return sums.report()


@dataclass(slots=True)
class ParitySums:
    """What the images compared so far add up to: some numbers, and 4 bytes for each keypoint, whose median is asked."""

    tolerance: Tolerance
    images: int = 0
    without_objects: int = 0
    matched: int = 0
    moved: int = 0
    flips: tuple[int, int] = (0, 0)
    lost: int = 0
    ghosts: int = 0
    tasks: set[str] = field(default_factory=lambda: {"boxes"})
    one_sided: set[str] = field(default_factory=set)
    reference: Tally = field(default_factory=Tally)
    candidate: Tally = field(default_factory=Tally)
    box_iou: Tally = field(default_factory=Tally)
    score_difference: Tally = field(default_factory=Tally)
    mask_iou: Tally = field(default_factory=Tally)
    similarity: Tally = field(default_factory=Tally)
    keypoint_distance: list[NDArray[np.float32]] = field(default_factory=list)
    keypoint_score_difference: float = 0.0
    worst: list[ImageParity] = field(default_factory=list)

    def add(self, image: ImageParity) -> None:
        """Takes one image in."""
        self.images += 1
        self.without_objects += not len(image.reference)
        self.matched += image.matched
        self.moved += image.moved
        self.lost += image.lost
        self.ghosts += image.ghosts
        self.flips = self.flips[0] + image.flips[0], self.flips[1] + image.flips[1]
        self.tasks |= image.tasks
        self.one_sided.update(image.one_sided)
        self.reference.add(image.reference)
        self.candidate.add(image.candidate)
        self.box_iou.add(image.box_iou)
        self.score_difference.add(image.score_difference)
        self.mask_iou.add(image.mask_iou)
        self.similarity.add(image.keypoint_similarity)
        self.keypoint_distance.append(image.keypoint_distance.astype(np.float32))
        self.keypoint_score_difference = max(self.keypoint_score_difference, image.keypoint_score_difference)
        if image.is_bad:
            self.worst = sorted([*self.worst, image], key=lambda one: -one.damage)[:WORST_IMAGES]

    def report(self) -> ParityReport:
        """What all images together gave."""
        excess = _excess(*self.flips), _excess(*reversed(self.flips))
        lost, ghosts = self.lost + excess[0], self.ghosts + excess[1]
        compared = 2 * (self.matched + self.moved) + lost + ghosts
        distances = np.concatenate(self.keypoint_distance) if self.keypoint_distance else np.zeros(0, np.float32)
        return ParityReport(
            images=self.images,
            images_without_objects=self.without_objects,
            tasks=tuple(task for task in TASKS if task in self.tasks),
            reference=self.reference.count,
            candidate=self.candidate.count,
            matched=self.matched,
            moved=self.moved,
            flips=sum(self.flips) - sum(excess),
            lost=lost,
            ghosts=ghosts,
            matched_share=2 * self.matched / compared if compared else math.nan,
            box_iou_mean=self.box_iou.mean,
            box_iou_min=self.box_iou.least,
            score_difference_max=self.score_difference.most,
            mask_iou_mean=self.mask_iou.mean,
            mask_iou_min=self.mask_iou.least,
            keypoint_distance_median=_nan_if_none(np.median, distances),
            keypoint_distance_max=_nan_if_none(np.max, distances),
            keypoint_similarity_mean=self.similarity.mean,
            keypoint_similarity_min=self.similarity.least,
            keypoint_score_difference_max=self.keypoint_score_difference if len(distances) else math.nan,
            histograms=tuple(self._histograms()),
            worst=tuple(WorstImage(image.name, image.reason) for image in self.worst),
            problems=tuple(sorted(self.one_sided)),
            tolerance=self.tolerance,
        )

    def _histograms(self) -> list[Histogram]:
        found = [
            Histogram("score", {"reference": self.reference.bins, "model": self.candidate.bins}),
            Histogram("box IoU", {"pairs": self.box_iou.bins}),
        ]
        if "masks" in self.tasks:
            found.append(Histogram("mask IoU", {"pairs": self.mask_iou.bins}))
        if "keypoints" in self.tasks:
            found.append(Histogram("keypoint similarity", {"pairs": self.similarity.bins}))
        return found


def _excess(flips: int, others: int) -> int:
    """How many more flips one side has than chance gives.

    A rounding carries a detection over the threshold as easily as it carries one below it.
    """
    return max(0, math.floor(flips - others - max(_FLIPS_BY_CHANCE, _DEVIATIONS * math.sqrt(flips + others))))


def _nan_if_none(function: Callable[[NDArray[np.float32]], Any], values: NDArray[np.float32]) -> float:
    return float(function(values)) if len(values) else math.nan
