"""One pass over the images: both sides look, what they find is compared, and the record of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgemask.detections import Detections
from edgemask.environment import environment
from edgemask.errors import BrokenOutput, UsageError
from edgemask.evaluation import check_scorable
from edgemask.images import load_image
from edgemask.parity import (
    SEMANTIC_TOLERANCES,
    TOLERANCES,
    ParityReport,
    ParitySums,
    SemanticParity,
    SemanticTolerance,
    Tolerance,
    compare_image,
    compare_maps,
    least_score,
)
from edgemask.progress import progress
from edgemask.semantic import SemanticMap
from edgemask.validation.baseline import Baseline, baseline_for
from edgemask.validation.gallery import Gallery
from edgemask.validation.images import CheckedImages, UsableImage, check_categories
from edgemask.validation.journals import JournaledSide
from edgemask.validation.limits import Limit, limits_of, merged
from edgemask.validation.reports import ImageFacts, Latency, ValidationReport
from edgemask.validation.scoring import Scorer
from edgemask.validation.sides import Side

_STAGE_IMAGES = 3  # offered for a comparison of the stages


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to be done on every device; the fields are arguments of `validate`, read.

    Attributes:
        document: the annotations.
        baselines: of the earlier report, one for each of its devices.
        images: the images that were looked at.
    """

    document: dict[str, Any] | None = None
    tolerance: Tolerance | SemanticTolerance | None = None
    gate: tuple[Limit, ...] | None = None
    limits: tuple[Limit, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    pictures: int = 0
    images: CheckedImages = field(default_factory=CheckedImages)

    def check(self, candidate: Side) -> None:
        """Refuses annotations that are not the model's."""
        if self.document is None:
            return
        if "semantic" in candidate.spec.tasks:
            raise UsageError("annotations list objects, and a semantic model finds none", "leave out the annotations")
        check_categories(self.document, candidate.spec)
        check_scorable(self.document, candidate.spec.tasks)

    def tolerance_of(self, candidate: Side) -> Tolerance | SemanticTolerance:
        """When two results are the same."""
        rows = SEMANTIC_TOLERANCES if "semantic" in candidate.spec.tasks else TOLERANCES
        return self.tolerance or rows[candidate.spec.precision]

    def limits_of(self, candidate: Side) -> tuple[Limit, ...]:
        """What is asked of the model."""
        base = self.gate
        if base is None:
            spec, annotated = candidate.spec, self.document is not None
            base = limits_of(self.tolerance_of(candidate), spec.tasks, annotated=annotated, origin=spec.precision)
        return merged(base, self.limits)


def compare_sides(candidate: Side, reference: Side, plan: Plan) -> tuple[ValidationReport, list[UsableImage]]:
    """Looks at every image with both sides.

    Args:
        candidate: the model.
        reference: what it is compared with.
        plan: what is to be done.

    Returns:
        The record, without op self-test and stages; and the worst images.

    Raises:
        ImageError: an image has become unreadable.
        DatasetError: annotations that cannot be scored, or an image that a stored run does not have.
    """
    from edgemask.processors import thread_count

    work = _Pass(candidate, reference, plan)
    tolerance = plan.tolerance_of(candidate)
    parity: ParityReport | SemanticParity
    coco = None
    limits = plan.limits_of(candidate)
    if isinstance(tolerance, SemanticTolerance):
        parity = compare_maps(work.maps(), tolerance)
    else:
        parity = work.detections(tolerance)
        coco = work.scorer.score(parity.tasks)
    baseline, images = baseline_for(candidate.facts.device, plan.baselines), work.image_facts()
    notes = [*reference.notes, *_notes_on(plan.baselines, baseline, candidate, images, limits)]
    if coco is None and not isinstance(parity, SemanticParity) and not parity.is_empty:
        notes.append("AP against the reference was not measured: faster_coco_eval is not installed")
    report = ValidationReport(
        model=candidate.facts,
        reference=reference.facts,
        class_names=candidate.spec.class_names,
        images=images,
        parity=parity,
        coco=coco,
        op_tests=(),
        stages=None,
        latency=work.latency(),
        limits=limits,
        baseline=baseline,
        gallery=work.gallery.draw(candidate.spec.class_names, plan.pictures),
        environment=environment(thread_count()),
        notes=tuple(notes),
    )
    return report, work.gallery.worst()[:_STAGE_IMAGES]


def _notes_on(
    baselines: Sequence[Baseline],
    baseline: Baseline | None,
    candidate: Side,
    images: ImageFacts,
    limits: Sequence[Limit],
) -> Iterator[str]:
    """What a reader of regressions must know."""
    if baseline is None:
        if baselines:
            others = ", ".join(other.device for other in baselines)
            yield f"the baseline has no figures for {candidate.facts.device}, only for {others}"
        return
    if baseline.device != candidate.facts.device:
        yield f"the baseline was measured on {baseline.device}"
    if baseline.images != images.compared:
        yield f"the baseline was measured on {baseline.images} images, this on {images.compared}"
    if not any(limit.kind == "max_regression" for limit in limits):
        yield "nothing is asked of the baseline: a gate file does so with a table [max_regression]"


class _Pass:
    """What is kept of a pass over the images."""

    def __init__(self, candidate: Side, reference: Side, plan: Plan) -> None:
        self.candidate, self.reference, self.plan = candidate, reference, plan
        self.gallery = Gallery(max(plan.pictures, _STAGE_IMAGES))
        self.scorer = Scorer(candidate.spec, plan.document)
        self.seconds: list[float] = []
        self.reference_seconds: list[float] = []
        self.broken: list[tuple[str, str]] = []

    def maps(self) -> Iterator[tuple[str, SemanticMap, SemanticMap]]:
        """What both sides see on one image after the other."""
        for image, expected, found in self._results():
            self.gallery.add(image, expected, found, None)
            yield image.name, expected, found

    def detections(self, tolerance: Tolerance) -> ParityReport:
        """Compares what both sides find on one image after the other."""
        sums, spec = ParitySums(tolerance), self.candidate.spec
        for image, expected, found in self._results():
            compared = compare_image(
                image.name,
                expected,
                found,
                tolerance,
                score_threshold=least_score(spec),
                max_detections=spec.max_detections,
            )
            sums.add(compared)
            self.scorer.add(image, expected, found)
            self.gallery.add(image, expected, found, compared)
        return sums.report()

    def _results(self) -> Iterator[tuple[UsableImage, Any, Any]]:
        """Decodes, looks and releases one image after the other."""
        for image in progress(self.plan.images.usable, f"validate on {self.candidate.facts.device}"):
            yield image, *self._look(image)

    def _look(self, image: UsableImage) -> tuple[Detections | SemanticMap, Detections | SemanticMap]:
        pixels = load_image(image.path)
        boxes = self.reference.propose(image, pixels) if self.candidate.spec.proposals == "input" else None
        expected = self.reference.look(image, pixels, boxes)
        self.reference_seconds.append(expected.seconds)
        try:
            found = self.candidate.look(image, pixels, boxes)
        except BrokenOutput as error:
            self.broken.append((image.name, error.problem))
            return expected.found, _nothing_like(expected.found)
        self.seconds.append(found.seconds)
        return expected.found, found.found

    def image_facts(self) -> ImageFacts:
        """What became of the images."""
        images = self.plan.images
        return ImageFacts(
            chosen=len(images.usable) + len(images.too_large) + len(images.unreadable),
            compared=len(self.reference_seconds),
            broken=tuple(self.broken),
            too_large=images.too_large,
            unreadable=images.unreadable,
            resumed=self.candidate.resumed if isinstance(self.candidate, JournaledSide) else 0,
        )

    def latency(self) -> Latency:
        """How long the images took; the ratio only where both sides took turns on this machine, and nothing beside."""
        here = self.reference.facts.kind != "run" and self.candidate.alone and self.reference.alone
        own, other = _quantiles(self.seconds), _quantiles(self.reference_seconds)
        return Latency(
            median=own[0],
            p90=own[1],
            reference_median=other[0],
            reference_p90=other[1],
            ratio=own[0] / other[0] if here and other[0] else math.nan,
        )


def _nothing_like(found: Detections | SemanticMap) -> Detections | SemanticMap:
    """What a model that gives no result has found: nothing, in the form of what the reference found."""
    if isinstance(found, SemanticMap):
        return SemanticMap(np.zeros_like(found.labels), np.zeros_like(found.scores))
    masks, points = found.masks, found.keypoints
    return Detections.empty(
        found.image_size,
        mask_size=None if masks is None else masks.shape[1],
        num_keypoints=None if points is None else points.shape[1],
    )


def _quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 90th percentile in milliseconds."""
    if not seconds:
        return math.nan, math.nan
    median, p90 = 1000 * np.quantile(seconds, (0.5, 0.9))
    return float(median), float(p90)
