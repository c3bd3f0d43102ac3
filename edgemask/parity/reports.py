"""What is asked of a candidate, and the record of a comparison."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgemask.errors import ParityError
from edgemask.parity.matching import SAME_OBJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What is asked of a candidate; None asks nothing, the value is only reported.

    Args:
        box_iou: two detections of a label match from this IoU on ...
        score: ... if their scores differ by no more than this.
        flip_margin: an unmatched detection whose score is this near to the threshold is a flip: neither a loss nor a
            ghost, it leaves both counts.
        matched_share: at least this share of the detections has a match, `2 matched / (reference + candidate)`.
        mask_iou: at least this mean IoU of the matched masks, in pixels of the original image.
        keypoint_distance: at most this median distance of the matched keypoints, in pixels of the original image.
        ap_difference: at most this difference of COCO AP, 0-1, from the reference's.
        ap_share: at least this share of the reference's COCO AP.
        ap_decides: where there are annotations, AP is asked and everything else only reported.
    """

    box_iou: float
    score: float
    flip_margin: float
    matched_share: float | None
    mask_iou: float | None
    keypoint_distance: float | None
    ap_difference: float | None = None
    ap_share: float | None = None
    ap_decides: bool = False


# By precision of the model. Measured: a float32 export matches 882 of 882 detections at IoU 0.99 and 1e-3 of score;
# float16 has 11 bits; at INT8 two detections match as soon as they are the same object, so that the matched share
# is F1 at IoU 0.5.
TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(
            box_iou=0.99,
            score=1e-3,
            flip_margin=1e-3,
            matched_share=0.999,
            mask_iou=0.995,
            keypoint_distance=0.5,
            ap_difference=0.001,
        ),
        "fp16": Tolerance(
            box_iou=0.95,
            score=1e-2,
            flip_margin=1e-2,
            matched_share=0.99,
            mask_iou=0.98,
            keypoint_distance=1.0,
            ap_difference=0.002,
        ),
        "int8": Tolerance(
            box_iou=SAME_OBJECT,
            score=1.0,
            flip_margin=1e-2,
            matched_share=0.97,
            mask_iou=0.95,
            keypoint_distance=None,
            ap_share=0.99,
            ap_decides=True,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured value and what is asked of it.

    Attributes:
        name: what was measured.
        value: in 0-1 for shares; NaN where it could not be measured.
        limit: what is asked; None: nothing.
        side: whether the limit is the least or the most that is allowed.
        unit: `%` for shares, `points` for differences of COCO AP (0.001 is 0.1 points), `px`, or nothing.
    """

    name: str
    value: float
    limit: float | None = None
    side: Literal["least", "most"] = "least"
    unit: Literal["%", "points", "px", ""] = ""

    @property
    def passed(self) -> bool:
        """Whether the value is as asked; one that could not be measured is not."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.side == "least" else self.value <= self.limit

    @property
    def failure(self) -> str | None:
        """A sentence that says what is wrong; None where nothing is."""
        if self.passed or self.limit is None:
            return None
        if math.isnan(self.value):
            return f"{self.name} could not be measured, {self.show(self.limit)} is asked"
        word = "below" if self.side == "least" else "above"
        return f"{self.name} {self.show(self.value)} is {word} {self.show(self.limit)}"

    def show(self, value: float) -> str:
        """Returns a value with the measure's unit: six digits, so that a near miss does not look like a hit."""
        number = f"{value * 100 if self.unit in ('%', 'points') else value:.6g}"
        return f"{number} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image on which the candidate differs from the reference, and how."""

    name: str
    reason: str


class Verdict(ABC):
    """What the record of every comparison can say: whether it held, and why not.

    Attributes:
        worst: the worst images first, at most 10; empty where all is well.
    """

    __slots__ = ()
    worst: tuple[WorstImage, ...]

    @property
    @abstractmethod
    def failures(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong."""

    @property
    def passed(self) -> bool:
        """Whether the candidate does what the reference does."""
        return not self.failures

    def raise_for_failure(self) -> None:
        """Does nothing where all is well.

        Raises:
            ParityError: otherwise; names the worst images.
        """
        if self.passed:
            return
        worst = "; ".join(f"{image.name} ({image.reason})" for image in self.worst[:3])
        remedy = f"look at the worst images: {worst}" if worst else "give images with objects that the model finds"
        raise ParityError("the model differs from its reference: " + "; ".join(self.failures), remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport(Verdict):
    """What a comparison found.

    `reference` and `candidate` count the detections compared; each is matched, or lost (a ghost, on the candidate's
    side), or one of the `flips`. Box IoU and score difference are those of all detections taken for the same object,
    matched or not; mask IoU and keypoint distance those of the matched ones. NaN: there was none.

    Attributes:
        images: images compared, of which `images_without_objects` have no detection in the reference.
        tasks: what both sides give.
        worst: the worst images first, at most 10; empty where all is well.
        problems: what kept things from being compared.
        tolerance: what was asked.
    """

    images: int
    images_without_objects: int
    tasks: tuple[str, ...]
    reference: int
    candidate: int
    matched: int
    flips: int
    lost: int
    ghosts: int
    matched_share: float
    box_iou_mean: float
    box_iou_min: float
    score_difference_max: float
    mask_iou_mean: float
    mask_iou_min: float
    keypoint_distance_median: float
    keypoint_distance_max: float
    keypoint_score_difference_max: float
    worst: tuple[WorstImage, ...]
    problems: tuple[str, ...]
    tolerance: Tolerance

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The values with what is asked of them."""
        asked = self.tolerance
        measures = [
            Measure("matched share", self.matched_share, asked.matched_share, unit="%"),
            Measure("mean box IoU", self.box_iou_mean),
            Measure("lowest box IoU", self.box_iou_min),
            Measure("largest score difference", self.score_difference_max, side="most"),
        ]
        if "masks" in self.tasks:
            measures.append(Measure("mean mask IoU", self.mask_iou_mean, asked.mask_iou))
            measures.append(Measure("lowest mask IoU", self.mask_iou_min))
        if "keypoints" in self.tasks:
            distance = self.keypoint_distance_median
            measures.append(Measure("median keypoint distance", distance, asked.keypoint_distance, "most", "px"))
            measures.append(Measure("largest keypoint distance", self.keypoint_distance_max, side="most", unit="px"))
            scores = self.keypoint_score_difference_max
            measures.append(Measure("largest keypoint score difference", scores, side="most"))
        return tuple(measures)

    @property
    def headline(self) -> str:
        """A sentence that says what was compared."""
        return (
            f"{self.images} images, {self.images_without_objects} of them without objects; "
            f"{self.reference} detections of the reference, {self.candidate} of the model: {self.matched} matched, "
            f"{self.flips} at the threshold, {self.lost} lost, {self.ghosts} invented"
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong."""
        if self.matched + self.lost + self.ghosts == 0:
            nothing = f"nothing was compared: {self.images} images, on which neither side has a detection that counts"
            return (nothing, *self.problems)
        return (*self.problems, *(m.failure for m in self.measures if m.failure is not None))

    def summary(self) -> dict[str, float]:
        """The figures that a model file carries, as JSON values; what was not measured is left out."""
        figures = {
            "images": self.images,
            "detections": self.reference,
            "matched_share": self.matched_share,
            "box_iou_min": self.box_iou_min,
            "score_difference_max": self.score_difference_max,
            "mask_iou_mean": self.mask_iou_mean,
            "keypoint_distance_median": self.keypoint_distance_median,
        }
        return {name: round(value, 6) for name, value in figures.items() if not math.isnan(value)}
