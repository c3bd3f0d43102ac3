"""Compares what two models found on one image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.errors import UsageError
from edgemask.parity.matching import FloatArray, Rows, keypoint_similarity, mask_iou, pair_up
from edgemask.parity.reports import Tolerance

Kind = Literal["lost", "ghost", "flip", "box", "score", "mask", "keypoints"]
# In words for people, the worst first.
KINDS: dict[Kind, str] = {
    "lost": "lost",
    "ghost": "invented",
    "box": "moved",
    "mask": "with another mask",
    "keypoints": "with other keypoints",
    "score": "with another score",
    "flip": "at the threshold",
}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A detection that is not the same on both sides.

    Attributes:
        kind: `lost`, the candidate does not have it; `ghost`, the reference does not; `flip`, one side alone has it and
            its score is at the threshold; else what differs between two detections of one object.
        label: of the class, 1 ... C-1.
        score: the reference's, of a ghost the candidate's.
        box: xyxy in pixels of the original image, of the side that has the score.
        detail: how far it is off, in words.
    """

    kind: Kind
    label: int
    score: float
    box: tuple[float, float, float, float]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageParity:
    """How the detections of one image compare; counts as in `ParityReport`.

    Attributes:
        name: of the image.
        reference: scores of the reference's detections that were compared, float64 [N].
        candidate: the same of the candidate, float64 [M].
        matched: pairs of detections that agree.
        moved: pairs of one object that do not.
        flips: detections that only the reference, and that only the candidate has, at the threshold.
        lost: detections that only the reference has.
        ghosts: detections that only the candidate has.
        tasks: what both sides give.
        one_sided: sentences about what only one side gives.
        box_iou: of all pairs, float64.
        score_difference: of all pairs, float64.
        mask_iou: of the matched pairs, float64.
        keypoint_distance: of the matched pairs' keypoints, pixels, float64.
        keypoint_similarity: of the matched pairs, COCO's OKS, float64.
        keypoint_score_difference: the largest of the matched pairs.
        mismatches: everything that is not the same, the worst kind first.
    """

    name: str
    reference: FloatArray
    candidate: FloatArray
    matched: int
    moved: int
    flips: tuple[int, int]
    lost: int
    ghosts: int
    tasks: frozenset[str]
    one_sided: tuple[str, ...]
    box_iou: FloatArray
    score_difference: FloatArray
    mask_iou: FloatArray
    keypoint_distance: FloatArray
    keypoint_similarity: FloatArray
    keypoint_score_difference: float
    mismatches: tuple[Mismatch, ...]

    @property
    def damage(self) -> float:
        """How bad it is: detections that are wrong, and what the masks of the others have lost."""
        return self.lost + self.ghosts + self.moved + float(np.sum(1 - self.mask_iou))

    @property
    def is_bad(self) -> bool:
        """Whether anything but flips is wrong."""
        return any(mismatch.kind != "flip" for mismatch in self.mismatches)

    @property
    def reason(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        kinds = [mismatch.kind for mismatch in self.mismatches]
        parts = [f"{kinds.count(kind)} {word}" for kind, word in KINDS.items() if kind in kinds and kind != "flip"]
        for word, values in (("box IoU", self.box_iou), ("mask IoU", self.mask_iou)):
            if len(values) and {word.split()[0]} & set(kinds):
                parts.append(f"{word} down to {values.min():.3f}")
        if "keypoints" in kinds:
            parts.append(f"keypoints off by {self.keypoint_distance.max():.3g} px")
        return ", ".join(parts)


def compare_image(
    name: str,
    reference: Detections,
    candidate: Detections,
    tolerance: Tolerance,
    *,
    score_threshold: float,
    max_detections: int | None,
) -> ImageParity:
    """Compares the detections of one image; the arguments are those of `compare`.

    Raises:
        UsageError: the two sides saw images of different sizes.
        DependencyMissing: scipy is not installed.
    """
    if reference.image_size != candidate.image_size:
        raise UsageError(
            f"{name}: the reference saw {reference.image_size} pixels (H, W), the candidate {candidate.image_size}",
            "give both the same image",
        )
    reference = reference[reference.scores >= score_threshold]
    candidate = candidate[candidate.scores >= score_threshold]
    rows, columns, ious = pair_up(reference, candidate, box_iou=tolerance.box_iou, score=tolerance.score)
    differences = np.abs(reference.scores[rows].astype(np.float64) - candidate.scores[columns])
    within = (ious >= tolerance.box_iou) & (differences <= tolerance.score)
    limits = _Limits(tolerance.flip_margin, score_threshold, max_detections)
    # Two detections of one object that disagree may still be two chances at the threshold.
    chance = limits.flips(reference, rows, candidate) & limits.flips(candidate, columns, reference) & ~within
    alone = np.setdiff1d(np.arange(len(reference)), rows), np.setdiff1d(np.arange(len(candidate)), columns)
    flipped = limits.flips(reference, alone[0], candidate), limits.flips(candidate, alone[1], reference)
    pairs = _Pairs(reference, rows[within], candidate, columns[within])
    masks, points, similarity = pairs.mask_ious(), pairs.distances(), pairs.similarities()
    moved = ~within & ~chance
    mismatches = [
        *_alone(reference, alone[0], flipped[0], "lost"),
        *_alone(candidate, alone[1], flipped[1], "ghost"),
        *_moved(reference, rows[moved], ious[moved], differences[moved], tolerance),
        *_unlike(pairs, masks, points, similarity, tolerance),
    ]
    order = list(KINDS)
    return ImageParity(
        name=name,
        reference=reference.scores.astype(np.float64),
        candidate=candidate.scores.astype(np.float64),
        matched=int(within.sum()),
        moved=int(moved.sum()),
        flips=(int(flipped[0].sum() + chance.sum()), int(flipped[1].sum() + chance.sum())),
        lost=int((~flipped[0]).sum()),
        ghosts=int((~flipped[1]).sum()),
        tasks=frozenset(_shared_tasks(reference, candidate)),
        one_sided=tuple(_one_sided(reference, candidate)),
        box_iou=ious,
        score_difference=differences,
        mask_iou=masks,
        keypoint_distance=points.ravel(),
        keypoint_similarity=similarity,
        keypoint_score_difference=pairs.score_difference(),
        mismatches=tuple(sorted(mismatches, key=lambda mismatch: (order.index(mismatch.kind), -mismatch.score))),
    )


@dataclass(frozen=True, slots=True)
class _Limits:
    """Where a detection is on the edge of being none."""

    margin: float
    score_threshold: float
    max_detections: int | None

    def flips(self, found: Detections, rows: Rows, other: Detections) -> NDArray[np.bool_]:
        """Whether each of some detections could have been dropped by a rounding, bool [rows]."""
        scores = found.scores[rows].astype(np.float64)
        near = np.abs(scores - self.score_threshold) <= self.margin
        if self.max_detections is not None and len(other) >= self.max_detections:
            # The other side had no room left: its lowest score was a threshold too.
            near |= np.abs(scores - float(other.scores[-1])) <= self.margin
        flipped: NDArray[np.bool_] = near
        return flipped


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Detections of both sides that were matched."""

    reference: Detections
    rows: Rows
    candidate: Detections
    columns: Rows

    def mask_ious(self) -> FloatArray:
        """IoU of each pair's masks, none where one side has no masks."""
        if self.reference.masks is None or self.candidate.masks is None:
            return np.zeros(0)
        pairs = zip(self.rows, self.columns, strict=True)
        return np.array([mask_iou(self.reference, row, self.candidate, column) for row, column in pairs])

    def distances(self) -> FloatArray:
        """Pixels between the keypoints of each pair [P, K]; none where one side has no keypoints."""
        if self.reference.keypoints is None or self.candidate.keypoints is None:
            return np.zeros((0, 0))
        steps = self.reference.keypoints[self.rows, :, :2] - self.candidate.keypoints[self.columns, :, :2]
        distances: FloatArray = np.linalg.norm(steps.astype(np.float64), axis=-1)
        return distances

    def similarities(self) -> FloatArray:
        """COCO's OKS of each pair [P]."""
        distances = self.distances()
        if not distances.size:
            return np.zeros(0)
        return keypoint_similarity(distances, self.reference.boxes[self.rows])

    def score_difference(self) -> float:
        """The largest difference between the keypoint scores of a pair; 0 where there is none."""
        if self.reference.keypoint_scores is None or self.candidate.keypoint_scores is None:
            return 0.0
        steps = np.abs(self.reference.keypoint_scores[self.rows] - self.candidate.keypoint_scores[self.columns])
        return float(steps.max(initial=0))


def _shared_tasks(reference: Detections, candidate: Detections) -> Iterator[str]:
    yield "boxes"
    for task in ("masks", "keypoints"):
        if getattr(reference, task) is not None and getattr(candidate, task) is not None:
            yield task


def _one_sided(reference: Detections, candidate: Detections) -> Iterator[str]:
    for task in ("masks", "keypoints"):
        given = [getattr(found, task) is not None for found in (reference, candidate)]
        if any(given) and not all(given) and len(reference) and len(candidate):
            yield f"{task} were not compared: only the {'candidate' if given[1] else 'reference'} gives them"


def _alone(found: Detections, rows: Rows, flipped: NDArray[np.bool_], kind: Kind) -> Iterator[Mismatch]:
    for row, flip in zip(rows, flipped, strict=True):
        side = "the reference" if kind == "lost" else "the model"
        yield _mismatch("flip" if flip else kind, found, row, f"only {side} has it")


def _moved(
    reference: Detections, rows: Rows, ious: FloatArray, differences: FloatArray, tolerance: Tolerance
) -> Iterator[Mismatch]:
    for row, iou, difference in zip(rows, ious, differences, strict=True):
        if iou < tolerance.box_iou:
            yield _mismatch("box", reference, row, f"box IoU {iou:.4f}")
        else:
            yield _mismatch("score", reference, row, f"score differs by {difference:.4f}")


def _unlike(
    pairs: _Pairs, masks: FloatArray, points: FloatArray, similarity: FloatArray, tolerance: Tolerance
) -> Iterator[Mismatch]:
    """Pairs with the same box and score whose masks or keypoints are not those that are asked for on average."""
    least = tolerance.mask_iou if tolerance.mask_iou is not None else -math.inf
    for row, iou in zip(pairs.rows if len(masks) else (), masks, strict=True):
        if iou < least:
            yield _mismatch("mask", pairs.reference, row, f"mask IoU {iou:.4f}")
    most = tolerance.keypoint_distance if tolerance.keypoint_distance is not None else math.inf
    least = tolerance.oks if tolerance.oks is not None else -math.inf
    for row, distances, alike in zip(pairs.rows if len(points) else (), points, similarity, strict=True):
        if np.median(distances) > most or alike < least:
            detail = f"keypoints off by up to {distances.max():.3g} px, similarity {alike:.4f}"
            yield _mismatch("keypoints", pairs.reference, row, detail)


def _mismatch(kind: Kind, found: Detections, row: int, detail: str) -> Mismatch:
    left, top, right, bottom = found.boxes[row].tolist()
    return Mismatch(kind, int(found.labels[row]), float(found.scores[row]), (left, top, right, bottom), detail)
