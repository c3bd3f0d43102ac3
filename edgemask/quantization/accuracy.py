"""What a quantized model keeps of the accuracy of its FP32 model, on the devices that it is meant for.

The comparison is that of `edgemask validate`; the reference looks at each image once, however many candidates follow.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from edgemask.checks import number
from edgemask.errors import DatasetError
from edgemask.evaluation import TASK_WORDS, read_truth
from edgemask.images import load_image
from edgemask.parity import SEMANTIC_TOLERANCES, TOLERANCES
from edgemask.progress import progress
from edgemask.runtimes import Detector, ModelFile
from edgemask.validation.comparing import Plan, compare_sides
from edgemask.validation.images import check_images, choose_images
from edgemask.validation.journals import JournaledSide, Journals
from edgemask.validation.limits import Limit
from edgemask.validation.reports import ModelFacts, ValidationReport
from edgemask.validation.sides import LiveSide, Side, open_reference

if TYPE_CHECKING:
    from edgemask.models import Model

StrPath = str | os.PathLike[str]
_LEAST_ALLOWED = 1e-6  # a budget of nothing: any loss is then a million times too much, and none is none
_BROKEN = 1e3  # of a model that gives no result, or one that cannot be measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One thing that is to be kept, on one device.

    Attributes:
        device: where it was measured.
        what: `box AP`, `mask AP`, `keypoint AP`; without annotations what the row of INT8 asks, such as
            `matched share` and `mean mask IoU`.
        reference: what FP32 has, in 0-1; 1 where agreement with it is measured.
        own: what the candidate has; NaN where it could not be measured.
        allowed: which share of it may be lost.
    """

    device: str
    what: str
    reference: float
    own: float
    allowed: float

    @property
    def lost(self) -> float:
        """Which share of the reference's value is lost; below 0 where it is greater, NaN where nobody knows."""
        return 1 - self.own / self.reference if self.reference > 0 else math.nan

    @property
    def damage(self) -> float:
        """What is lost as a multiple of what is allowed: up to 1 all is well."""
        return _BROKEN if math.isnan(self.lost) else self.lost / max(self.allowed, _LEAST_ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What a candidate keeps.

    Attributes:
        kept: by device, then by task.
        failures: one sentence for each thing that is not as asked; none where the candidate is good enough.
        broken: images for which it gave no result.
    """

    kept: tuple[Kept, ...]
    failures: tuple[str, ...]
    broken: int = 0

    @property
    def passed(self) -> bool:
        """Whether it keeps what is asked, everywhere."""
        return not self.failures

    @property
    def damage(self) -> float:
        """The worst loss as a multiple of what is allowed; more than 1 exactly where it has not passed."""
        worst = max((kept.damage for kept in self.kept), default=_BROKEN)
        return min(worst, 1.0) if self.passed else max(worst, _BROKEN if self.broken else math.nextafter(1, 2))

    @property
    def lost(self) -> float:
        """The greatest share that is lost."""
        return max((kept.lost for kept in self.kept if not math.isnan(kept.lost)), default=math.nan)

    def to_record(self) -> dict[str, Any]:
        """Returns it as JSON values; NaN as null."""
        rows = [
            [kept.device, kept.what, *(None if math.isnan(x) else x for x in (kept.reference, kept.own)), kept.allowed]
            for kept in self.kept
        ]
        return {"kept": rows, "failures": list(self.failures), "broken": self.broken}

    @classmethod
    def from_record(cls, value: Any) -> Self:
        """Reads what `to_record` gave.

        Raises:
            TypeError, ValueError, KeyError: anything else.
        """
        kept = tuple(
            Kept(
                device=str(device),
                what=str(what),
                reference=math.nan if reference is None else float(reference),
                own=math.nan if own is None else float(own),
                allowed=float(allowed),
            )
            for device, what, reference, own, allowed in value["kept"]
        )
        return cls(kept=kept, failures=tuple(map(str, value["failures"])), broken=int(value["broken"]))


class _Candidate(LiveSide):
    """A model in memory as one of the two sides."""

    timed = False

    def __init__(self, model: ModelFile, device: str, stack: contextlib.ExitStack) -> None:
        self.detector = stack.enter_context(Detector(model, device))
        self.spec = model.spec
        self.facts = ModelFacts(
            name=model.path.name,
            kind="onnx",
            device=self.detector.device,
            sha256=model.digest,
            bytes=len(model.data),
            precision=model.spec.precision,
        )


class Judge:
    """Measures candidates on validation images; see `open_judge`.

    Attributes:
        devices: on which a candidate has to do.
        annotated: whether AP decides.
        images: sha256 of the image files, in their order.
        reference: what they are compared with.
        notes: on the reference.
    """

    def __init__(self, reference: Side, plan: Plan, devices: Sequence[str], kept: Journals) -> None:
        self._kept = kept
        self.devices = tuple(devices)
        self.annotated = plan.document is not None
        self.images = tuple(image.digest for image in plan.images.usable)
        self.reference = reference.facts
        self.notes = reference.notes
        self._side, self._plan = reference, plan

    def measure(self, candidate: ModelFile) -> Accuracy:
        """Compares a candidate with the reference on every device.

        Raises:
            DatasetError: nothing can be kept on these images: the reference itself has no AP there.
            DeviceUnavailable: a device cannot run it.
            OutOfMemory: too large for one.
        """
        kept: list[Kept] = []
        failures: list[str] = []
        broken = 0
        for device in self.devices:
            with contextlib.ExitStack() as stack:
                report, _ = compare_sides(_Candidate(candidate, device, stack), self._side, self._plan)
            kept += _kept(report)
            failures += [f"{report.model.device}: {failure}" for failure in report.failures]
            broken += len(report.images.broken)
        return Accuracy(kept=tuple(kept), failures=tuple(failures), broken=broken)

    def remove(self) -> None:
        """Removes what was kept of the reference: the work is done."""
        self._kept.remove()


def open_judge(
    model: ModelFile,
    images: StrPath | Sequence[StrPath],
    *,
    annotations: StrPath | None = None,
    reference: "StrPath | Model | None" = None,
    weights: StrPath | None = None,
    devices: Sequence[str],
    max_drop: float = 0.01,
    limit: int | None = None,
    skip_bad_images: bool = False,
    journal: StrPath | None = None,
    resume: bool = False,
    stack: contextlib.ExitStack,
) -> Judge:
    """Looks at the validation images with the reference, once for all candidates.

    Args:
        model: in FP32.
        images: as `edgemask.validation.validate` takes them.
        annotations: as there; with them a candidate has to keep AP, without what the row of INT8 in
            `edgemask.parity.TOLERANCES` asks. Not for a semantic model, whose pixels have to agree as that row says.
        reference: as there; None: the FP32 file itself.
        weights: as there.
        devices: on which candidates have to do; a reference that is an ONNX file runs on the first.
        max_drop: which share of the reference's AP may be lost, of each task; means nothing without annotations.
        limit: take only so many images.
        skip_bad_images: leave out what is missing or unreadable.
        journal: a folder in which the reference's results are kept.
        resume: take what the journal holds.
        stack: closes what is opened.

    Raises:
        DatasetError: no image, images that cannot be used, or annotations that do not fit the images or the model.
        UsageError: the reference cannot be meant, or a budget that is no share.
        ModelFileError: a reference that is not sound.
        DependencyMissing: PyTorch is needed and not installed.
    """
    number(0, 1)("max_drop", max_drop)
    is_semantic = "semantic" in model.spec.tasks
    document = None if annotations is None else read_truth(os.fspath(annotations))
    drop = Limit("ap", "max_drop", float(max_drop), relative=True, origin="max_drop")
    plan = Plan(
        document=document,
        tolerance=SEMANTIC_TOLERANCES["int8"] if is_semantic else TOLERANCES["int8"],
        limits=() if document is None else (drop,),
    )
    chosen = choose_images(images, document, limit)
    with contextlib.ExitStack() as own:  # the reference is closed as soon as it has seen every image
        given = model.path if reference is None else reference
        side = open_reference(given, model.spec, device=devices[0], weights=weights, stack=own)
        plan.check(side)
        plan.images = check_images(chosen, model.spec, skip_bad=skip_bad_images)
        if len(plan.images.too_large) > len(plan.images.usable):
            raise DatasetError(
                f"{len(plan.images.too_large)} of {len(chosen)} images are too large for the model's canvas",
                "give smaller ones, or export the model for a larger canvas",
            )
        journals = Journals(journal, fresh=not resume, stack=stack)
        kept = journals.side("reference", side, must_keep=True)
        if isinstance(kept, JournaledSide):
            for image in progress(plan.images.usable, "reference"):
                pixels = load_image(image.path)
                kept.look(image, pixels, kept.propose(image, pixels))
    return Judge(kept, plan, devices, journals)


def _kept(report: ValidationReport) -> list[Kept]:
    """What is asked in a report, each beside what the reference has."""
    if report.coco is not None and report.coco.truth == "annotations":
        kept = []
        (allowed,) = (limit.value for limit in report.limits if limit.kind == "max_drop")
        for task, compared in report.coco.tasks.items():
            reference, what = compared.reference.ap, f"{TASK_WORDS[task]} AP"
            if not reference > 0:
                found = "no object to find" if math.isnan(reference) else "nothing that the reference finds"
                raise DatasetError(
                    f"there is no {what} to keep: the annotated images hold {found}",
                    "give images of the model's classes, with annotations for all that it finds",
                )
            kept.append(_row(report, what, reference, compared.candidate.ap, allowed))
        return kept
    if report.parity.is_empty:
        raise DatasetError(
            f"neither side finds anything on the images: {report.failures[0]}", "give images that hold objects"
        )
    # All of them are shares, of which at least so much is asked.
    asked = [(measure, measure.limit) for measure in report.measures if measure.limit is not None]
    return [_row(report, measure.name, 1.0, measure.value, 1 - limit) for measure, limit in asked]


def _row(report: ValidationReport, what: str, reference: float, own: float, allowed: float) -> Kept:
    return Kept(device=report.model.device, what=what, reference=reference, own=own, allowed=allowed)
