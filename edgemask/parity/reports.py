"""What is asked of a candidate, and the record of a comparison."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgemask.parity.histograms import Histogram
from edgemask.parity.matching import SAME_OBJECT
from edgemask.parity.measures import Measure, Verdict, WorstImage

TASKS = ("boxes", "masks", "keypoints")


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
        oks: at least this mean similarity of the matched keypoints, COCO's OKS: the median does not see that fewer than
            half of them are wrong.
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
    oks: float | None = None
    ap_difference: float | None = None
    ap_share: float | None = None
    ap_decides: bool = False

    def limits(self) -> dict[str, float]:
        """What is asked of detections, by the key of the measure."""
        asked = {
            "matched_share": self.matched_share,
            "mask_iou": self.mask_iou,
            "keypoint_distance": self.keypoint_distance,
            "oks": self.oks,
        }
        return {key: limit for key, limit in asked.items() if limit is not None}


# By precision of the model. Measured: a float32 export matches 882 of 882 detections at IoU 0.99 and 1e-3 of score, its
# keypoints have a similarity of 0.99999999; half a pixel, which is allowed, costs a person of 50 pixels 0.02 of it;
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
            oks=0.98,
            ap_difference=0.001,
        ),
        "fp16": Tolerance(
            box_iou=0.95,
            score=1e-2,
            flip_margin=1e-2,
            matched_share=0.99,
            mask_iou=0.98,
            keypoint_distance=1.0,
            oks=0.95,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport(Verdict):
    """What a comparison found.

    `reference` and `candidate` count the detections compared; each is matched, or moved (the other side has the same
    object, elsewhere or with another score), or lost (a ghost, on the candidate's side), or one of the `flips`. Box IoU
    and score difference are those of all detections taken for the same object, matched or not; mask IoU, keypoint
    distance and keypoint similarity those of the matched ones. NaN: there was none.

    Attributes:
        images: images compared, of which `images_without_objects` have no detection in the reference.
        tasks: what both sides give.
        histograms: how scores and overlaps are spread.
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
    moved: int
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
    keypoint_similarity_mean: float
    keypoint_similarity_min: float
    keypoint_score_difference_max: float
    histograms: tuple[Histogram, ...]
    worst: tuple[WorstImage, ...]
    problems: tuple[str, ...]
    tolerance: Tolerance

    @property
    def values(self) -> tuple[Measure, ...]:
        """Everything measured."""
        values = [
            Measure("matched share", self.matched_share, unit="%", key="matched_share"),
            Measure("mean box IoU", self.box_iou_mean, key="box_iou"),
            Measure("lowest box IoU", self.box_iou_min, key="box_iou_min"),
            Measure("largest score difference", self.score_difference_max, side="most", key="score_difference"),
        ]
        if "masks" in self.tasks:
            values.append(Measure("mean mask IoU", self.mask_iou_mean, key="mask_iou"))
            values.append(Measure("lowest mask IoU", self.mask_iou_min, key="mask_iou_min"))
        if "keypoints" in self.tasks:
            middle, most = self.keypoint_distance_median, self.keypoint_distance_max
            scores = self.keypoint_score_difference_max
            values += [
                Measure("median keypoint distance", middle, None, "most", "px", "keypoint_distance"),
                Measure("largest keypoint distance", most, None, "most", "px", "keypoint_distance_max"),
                Measure("mean keypoint similarity", self.keypoint_similarity_mean, key="oks"),
                Measure("lowest keypoint similarity", self.keypoint_similarity_min, key="oks_min"),
                Measure("largest keypoint score difference", scores, None, "most", "", "keypoint_score_difference"),
            ]
        return tuple(values)

    @property
    def headline(self) -> str:
        """A sentence that says what was compared."""
        return (
            f"{_images(self.images)}, {_without_objects(self.images_without_objects)}; "
            f"{self.reference} detections of the reference, {self.candidate} of the model: {self.matched} matched, "
            f"{self.moved} moved, {self.lost} lost, {self.ghosts} invented, {self.flips} at the threshold"
        )

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to compare."""
        return self.matched + self.moved + self.lost + self.ghosts == 0

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What kept things from being compared, whatever is asked."""
        if not self.is_empty:
            return self.problems
        nothing = f"nothing was compared: {_images(self.images)}, on which neither side has a detection that counts"
        return (nothing, *self.problems)

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


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _without_objects(count: int) -> str:
    return "each with objects" if not count else f"{count} of them without objects"
