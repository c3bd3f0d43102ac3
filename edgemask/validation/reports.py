"""The record of a validation: everything that was found, from which each form of report is made."""

import math
from dataclasses import dataclass, field

from edgemask.divergence import StageCheck, first_divergence
from edgemask.environment import Environment
from edgemask.optest import OpTest
from edgemask.parity import Measure, Mismatch, ParityReport, SemanticParity, parity_error
from edgemask.stage_record import BEHIND_THE_GRAPH
from edgemask.validation.baseline import Baseline
from edgemask.validation.judging import CocoComparison, judged, precisions
from edgemask.validation.limits import Limit

FORMAT_VERSION = "1.0"  # of the record as JSON: a new major version breaks readers, a new minor one only adds


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One of the two sides.

    Attributes:
        name: the file or name as the user gave it.
        kind: `onnx`, `pytorch` or `run`, a stored run.
        device: where it ran.
        sha256: of the file, of the weights, or of what a stored run was made with; None where nothing is known.
        bytes: size of the file; None where there is none.
        precision: `fp32`, `fp16` or `int8`; None where it is not known.
    """

    name: str
    kind: str
    device: str
    sha256: str | None
    bytes: int | None
    precision: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What became of the images.

    Attributes:
        chosen: how many there were to look at.
        compared: how many both sides saw.
        broken: those for which the model gave something that is no result, each with what it was; they count as images
            on which it found nothing.
        too_large: left out, since the model's canvas is too small for them: they would be scaled down further than the
            PyTorch model does.
        unreadable: could not be used, each with its reason, and were to be left out.
        resumed: how many came from an interrupted run before.
    """

    chosen: int
    compared: int
    broken: tuple[tuple[str, str], ...]
    too_large: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    resumed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds per image, from decoded pixels to detections; NaN where nothing was timed.

    Both sides take turns on the same images. Of a stored run the reference's times are those of the machine that made
    it, and `ratio` is NaN; so it is on a cluster, whose workers slow each other down.

    Attributes:
        median: of the model.
        p90: nine of ten images took the model no longer.
        reference_median: of the reference.
        reference_p90: the same of the reference.
        ratio: the model's median as a share of the reference's: below 1 it is faster.
    """

    median: float
    p90: float
    reference_median: float
    reference_p90: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageComparison:
    """The stages of the model on one image, each fed with the reference's own input.

    Attributes:
        image: on which.
        checks: in the order of the data's road.
    """

    image: str
    checks: tuple[StageCheck, ...]

    @property
    def first(self) -> StageCheck | None:
        """The first stage that differs."""
        return first_divergence(self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryEntry:
    """An image as both sides see it.

    Attributes:
        name: of the image.
        size: (H, W) in pixels of the original.
        reason: what differs, in words; empty where nothing does.
        damage: how much; the gallery begins with the worst.
        classes: names of the classes that either side found.
        mismatches: what differs.
        reference: JPEG of the image with what the reference found. Pictures are no part of the JSON record.
        candidate: JPEG of the image with what the model found.
    """

    name: str
    size: tuple[int, int]
    reason: str
    damage: float
    classes: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]
    reference: bytes = field(repr=False, metadata={"json": False})
    candidate: bytes = field(repr=False, metadata={"json": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """How a model file compares with its reference.

    Attributes:
        model: the model file.
        reference: what it was compared with.
        class_names: C-1 names, by label - 1.
        images: what became of the images.
        parity: what both sides found, compared.
        coco: COCO metrics of both sides; None of a semantic model.
        op_tests: the custom ops of the file on adversarial input; empty where it has none.
        stages: where the model differs, on an image; None where the reference has no stages.
        latency: how long an image takes.
        limits: what is asked.
        baseline: an earlier report that this one is compared with.
        gallery: the worst images; empty unless pictures were asked for.
        environment: where and when.
        notes: what else should be known.
    """

    model: ModelFacts
    reference: ModelFacts
    class_names: tuple[str, ...]
    images: ImageFacts
    parity: ParityReport | SemanticParity
    coco: CocoComparison | None
    op_tests: tuple[OpTest, ...]
    stages: StageComparison | None
    latency: Latency
    limits: tuple[Limit, ...]
    baseline: Baseline | None
    gallery: tuple[GalleryEntry, ...]
    environment: Environment
    notes: tuple[str, ...]

    @property
    def values(self) -> tuple[Measure, ...]:
        """Everything measured that a gate can ask for, and what is only worth knowing."""
        return (*self.parity.values, *precisions(self.coco), *self._costs())

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is shown: every value of the comparison, and every limit beside its value."""
        return judged(self.values, self.limits, self.coco, self.baseline)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong."""
        missed = tuple(measure.failure for measure in self.misses() if measure.failure is not None)
        return (*self.other_failures(), *missed)

    def misses(self) -> tuple[Measure, ...]:
        """The measures that are not as asked; none where nothing was compared, which is a failure of its own."""
        return () if self.parity.is_empty else tuple(measure for measure in self.measures if not measure.passed)

    def other_failures(self) -> tuple[str, ...]:
        """What is wrong besides the measures."""
        broken = tuple(f"op self-test: {test.name} failed, {test.example}" for test in self.op_tests if not test.passed)
        return (*broken, *self.image_failures(), *self.stage_failures(), *self.parity.obstacles)

    @property
    def passed(self) -> bool:
        """Whether the model does what is asked."""
        return not self.failures

    @property
    def culprit(self) -> str | None:
        """The first bad stage: of the op self-test, else of the stages; None where nothing failed or none is known."""
        if self.passed:
            return None
        for test in self.op_tests:
            if not test.passed:
                return test.stage
        first = None if self.stages is None else self.stages.first
        return None if first is None else first.stage

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        if self.passed:
            return "passed"
        if self.culprit is not None:
            return f"FAILED, first at the stage {self.culprit}"
        if self.stages is None:
            return "FAILED"
        return f"FAILED, though every stage agrees on the same input ({self.stages.image})"

    def raise_for_failure(self) -> None:
        """Does nothing where all is well.

        Raises:
            ParityError: otherwise; names the first bad stage and the worst images.
        """
        if self.passed:
            return
        where = f", first at the stage {self.culprit}" if self.culprit else ""
        raise parity_error(where, self.failures, self.parity.worst)

    def image_failures(self) -> tuple[str, ...]:
        """What kept images from being compared."""
        images, found = self.images, []
        if images.broken:
            name, reason = images.broken[0]
            found.append(f"no result for {len(images.broken)} of {images.compared} images, first for {name}: {reason}")
        if len(images.too_large) > images.compared:
            found.append(f"{len(images.too_large)} of {images.chosen} images are too large for the model's canvas")
        return tuple(found)

    def stage_failures(self) -> tuple[str, ...]:
        """What goes wrong behind the graph, on any device, though both sides of the comparison may share the fault."""
        return tuple(
            f"{check.stage} differ by {check.error:.2g} on the same outputs, {check.tolerance:.2g} is allowed"
            for check in (() if self.stages is None else self.stages.checks)
            if check.stage in BEHIND_THE_GRAPH and not check.passed
        )

    def _costs(self) -> tuple[Measure, ...]:
        size = math.nan if self.model.bytes is None else self.model.bytes / 1e6
        return (
            Measure("milliseconds per image", self.latency.median, side="most", key="milliseconds"),
            Measure("time, as a multiple of the reference's", self.latency.ratio, None, "most", "x", "latency_ratio"),
            Measure("file size", size, None, "most", "MB", "file_size_mb"),
        )


@dataclass(frozen=True, slots=True)
class Validation:
    """The reports of one model file on one or several devices: what `report.json` holds.

    Attributes:
        reports: one per device.
        format_version: of the record as JSON.
    """

    reports: tuple[ValidationReport, ...]
    format_version: str = FORMAT_VERSION

    @property
    def passed(self) -> bool:
        """Whether the model does on every device what is asked."""
        return all(report.passed for report in self.reports)

    def raise_for_failure(self) -> None:
        """Does nothing where all is well.

        Raises:
            ParityError: otherwise; names the first bad stage and the worst images of the first device that fails.
        """
        for report in self.reports:
            report.raise_for_failure()
