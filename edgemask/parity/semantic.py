"""Compares label maps pixel by pixel."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import UsageError
from edgemask.parity.comparison import WORST_IMAGES
from edgemask.parity.matching import SAME_OBJECT
from edgemask.parity.measures import Measure, Verdict, WorstImage
from edgemask.semantic import BACKGROUND, LABEL_LIMIT, SemanticMap


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticTolerance:
    """What is asked of a candidate; None asks nothing, the value is only reported.

    Args:
        pixel_agreement: at least this share of all pixels has the same label on both sides.
        object_agreement: at least this share of the pixels that either side gives to a class; where most of an image
            is background, the first alone would be met with every object lost.
        score: the scores of a pixel differ by no more than this.
    """

    pixel_agreement: float
    object_agreement: float
    score: float | None = None

    def limits(self) -> dict[str, float]:
        """What is asked, by the key of the measure."""
        asked = {"pixel_agreement": self.pixel_agreement, "object_agreement": self.object_agreement}
        return asked if self.score is None else asked | {"score_difference": self.score}


# By precision of the model. Measured at float32 with FCN and DeepLabV3 on ResNet-50, 21 classes, three photographs:
# 99.998 % of pixels and of objects, scores within 9e-5. The shares of objects are those asked of masks; at INT8 it is
# enough that they are the same objects.
SEMANTIC_TOLERANCES: Mapping[str, SemanticTolerance] = MappingProxyType(
    {
        "fp32": SemanticTolerance(pixel_agreement=0.999, object_agreement=0.995, score=1e-3),
        "fp16": SemanticTolerance(pixel_agreement=0.99, object_agreement=0.98),
        "int8": SemanticTolerance(pixel_agreement=0.97, object_agreement=SAME_OBJECT),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticParity(Verdict):
    """What a comparison of label maps found. All shares are of pixels of the original images; NaN: there was none.

    Attributes:
        images: images compared, of which `images_without_objects` are all background in the reference.
        pixels: of all images together.
        labels: all that occur on either side, background included.
        background_share: of the reference's pixels.
        pixel_agreement: share of pixels with the same label.
        pixel_agreement_min: the same of the worst image.
        object_agreement: share of those pixels that either side gives to a class which have the same label.
        label_iou_mean: IoU of the two sides' pixels of a label over all images, mean over `labels`.
        label_iou_min: of the label on which they agree least.
        score_difference_max: of all pixels.
        worst: the worst images first, at most 10; empty where all is well.
        tolerance: what was asked.
    """

    images: int
    images_without_objects: int
    pixels: int
    labels: tuple[int, ...]
    background_share: float
    pixel_agreement: float
    pixel_agreement_min: float
    object_agreement: float
    label_iou_mean: float
    label_iou_min: float
    score_difference_max: float
    worst: tuple[WorstImage, ...]
    tolerance: SemanticTolerance

    @property
    def values(self) -> tuple[Measure, ...]:
        """Everything measured."""
        return (
            Measure("pixel agreement", self.pixel_agreement, unit="%", key="pixel_agreement"),
            Measure(
                "pixel agreement of the worst image", self.pixel_agreement_min, unit="%", key="pixel_agreement_min"
            ),
            Measure("object agreement", self.object_agreement, unit="%", key="object_agreement"),
            Measure("mean IoU of the labels", self.label_iou_mean, key="label_iou"),
            Measure("lowest IoU of a label", self.label_iou_min, key="label_iou_min"),
            Measure("largest score difference", self.score_difference_max, side="most", key="score_difference"),
            Measure("background", self.background_share, unit="%"),
        )

    @property
    def headline(self) -> str:
        """A sentence that says what was compared."""
        return (
            f"{self.images} images, {self.images_without_objects} of them without objects; {self.pixels} pixels, "
            f"{len(self.labels)} labels"
        )

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to compare.

        Where both sides give one and the same label to every pixel, a model that is stuck looks like a sound one.
        """
        return len(self.labels) < 2

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What kept things from being compared, whatever is asked."""
        if not self.is_empty:
            return ()
        seen = f", on which every pixel has label {self.labels[0]} on both sides" if self.labels else ""
        return (f"nothing was compared: {self.images} images{seen}",)

    def summary(self) -> dict[str, float]:
        """The figures that a model file carries, as JSON values; what was not measured is left out."""
        figures = {
            "images": self.images,
            "pixels": self.pixels,
            "labels": len(self.labels),
            "pixel_agreement": self.pixel_agreement,
            "object_agreement": self.object_agreement,
            "label_iou_mean": self.label_iou_mean,
            "score_difference_max": self.score_difference_max,
            "background_share": self.background_share,
        }
        return {name: round(value, 6) for name, value in figures.items() if not math.isnan(value)}


def compare_maps(pairs: Iterable[tuple[str, SemanticMap, SemanticMap]], tolerance: SemanticTolerance) -> SemanticParity:
    """Compares the label maps of two models, one image at a time: `pairs` may be a generator, nothing is kept of it.

    No image at all, or one and the same label in every pixel of all of them, is a failure.

    Args:
        pairs: image name, reference, candidate; of the same original image.
        tolerance: what is asked; `SEMANTIC_TOLERANCES` has one for each precision.

    Returns:
        The record; `raise_for_failure()` turns a failure into an error.

    Raises:
        UsageError: the two sides saw images of different sizes.
    """
    tally = _Tally(tolerance)
    for name, reference, candidate in pairs:
        tally.add(name, reference, candidate)
    return tally.report()


def _no_pixels() -> NDArray[np.int64]:
    return np.zeros(LABEL_LIMIT + 1, np.int64)


@dataclass(slots=True)
class _Tally:
    """What has been seen so far, in pixels by label; `worst` has the share of spoilt pixels in front."""

    tolerance: SemanticTolerance
    images: int = 0
    without_objects: int = 0
    reference: NDArray[np.int64] = field(default_factory=_no_pixels)
    candidate: NDArray[np.int64] = field(default_factory=_no_pixels)
    shared: NDArray[np.int64] = field(default_factory=_no_pixels)
    agreement_min: float = math.nan
    score_difference: float = math.nan
    worst: list[tuple[float, WorstImage]] = field(default_factory=list)

    def add(self, name: str, reference: SemanticMap, candidate: SemanticMap) -> None:
        """Compares the maps of one image."""
        if reference.image_size != candidate.image_size:
            raise UsageError(
                f"{name}: the reference saw {reference.image_size} pixels (H, W), the candidate {candidate.image_size}",
                "give both the same image",
            )
        same = reference.labels == candidate.labels
        counts = [_by_label(labels) for labels in (reference.labels, candidate.labels, reference.labels[same])]
        difference = float(np.abs(reference.scores - candidate.scores).max())
        agreement, objects = _agreements(*counts)
        self.images += 1
        self.without_objects += bool(counts[0][BACKGROUND] == same.size)
        self.reference += counts[0]
        self.candidate += counts[1]
        self.shared += counts[2]
        self.agreement_min = min(agreement, self.agreement_min if self.images > 1 else 1.0)
        self.score_difference = max(difference, self.score_difference if self.images > 1 else 0.0)
        self._note_worst(name, agreement, objects, difference)

    def _note_worst(self, name: str, agreement: float, objects: float, difference: float) -> None:
        asked = self.tolerance
        parts = []
        if agreement < asked.pixel_agreement:
            parts.append(f"pixel agreement {agreement:.4%}")
        if objects < asked.object_agreement:
            parts.append(f"object agreement {objects:.4%}")
        if asked.score is not None and difference > asked.score:
            parts.append(f"scores differ by up to {difference:.3g}")
        if parts:
            self.worst.append((1 - agreement, WorstImage(name, ", ".join(parts))))
            self.worst.sort(key=lambda entry: -entry[0])
            del self.worst[WORST_IMAGES:]

    def report(self) -> SemanticParity:
        """What all images together gave."""
        pixels = int(self.reference.sum())
        union = self.reference + self.candidate - self.shared
        labels = np.flatnonzero(union)
        ious = self.shared[labels] / union[labels]
        agreement, objects = _agreements(self.reference, self.candidate, self.shared)
        return SemanticParity(
            images=self.images,
            images_without_objects=self.without_objects,
            pixels=pixels,
            labels=tuple(labels.tolist()),
            background_share=float(self.reference[BACKGROUND] / pixels) if pixels else math.nan,
            pixel_agreement=agreement,
            pixel_agreement_min=self.agreement_min,
            object_agreement=objects,
            label_iou_mean=float(ious.mean()) if len(labels) else math.nan,
            label_iou_min=float(ious.min()) if len(labels) else math.nan,
            score_difference_max=self.score_difference,
            worst=tuple(image for _, image in self.worst),
            tolerance=self.tolerance,
        )


def _by_label(labels: NDArray[np.uint8]) -> NDArray[Any]:
    return np.bincount(labels.ravel(), minlength=LABEL_LIMIT + 1)


def _agreements(
    reference: NDArray[np.int64], candidate: NDArray[np.int64], shared: NDArray[np.int64]
) -> tuple[float, float]:
    """Pixel agreement and object agreement from pixels by label; NaN where there is no pixel, or none of an object."""
    pixels, same = reference.sum(), shared.sum()
    # Background on both sides is what neither gives to a class.
    either, both = pixels - shared[BACKGROUND], same - shared[BACKGROUND]
    return float(same / pixels) if pixels else math.nan, float(both / either) if either else math.nan
