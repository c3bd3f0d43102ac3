"""Runs a model file and its reference on the same images and compares."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgemask.cluster import Cluster
from edgemask.divergence import compare_stages, first_divergence
from edgemask.errors import EdgemaskError, UsageError
from edgemask.evaluation import read_truth
from edgemask.images import load_image
from edgemask.masks import import_supervision
from edgemask.optest import run_op_tests, why_untested
from edgemask.parity import SemanticTolerance, Tolerance
from edgemask.validation.baseline import read_baselines
from edgemask.validation.comparing import Plan, compare_sides
from edgemask.validation.images import UsableImage, check_images, choose_images
from edgemask.validation.journals import JournaledSide, Journals
from edgemask.validation.limits import Limit, read_gate
from edgemask.validation.reports import StageComparison, Validation, ValidationReport
from edgemask.validation.sides import FileSide, RunSide, Side, open_reference
from edgemask.validation.spreading import Spreading

if TYPE_CHECKING:
    from edgemask.models import Model

StrPath = str | os.PathLike[str]


def validate(
    model: StrPath,
    reference: "StrPath | Model",
    images: StrPath | Sequence[StrPath],
    *,
    annotations: StrPath | None = None,
    device: str | Sequence[str] = "auto",
    weights: StrPath | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip_bad_images: bool = False,
    tolerance: Tolerance | SemanticTolerance | None = None,
    gate: StrPath | None = None,
    limits: Sequence[Limit] = (),
    baseline: StrPath | None = None,
    save_run: StrPath | None = None,
    journal: StrPath | None = None,
    resume: bool = False,
    pictures: int = 0,
    cluster: Cluster | None = None,
) -> Validation:
    """Compares a model file with its reference, one image after the other.

    Images are decoded, looked at and released one by one. Of each detection some numbers stay in memory, and its run
    lengths where COCO metrics are measured.

    Args:
        model: an ONNX file written by edgemask.
        reference: a checkpoint, a builder's name (with `weights`), `package.module:function`, another ONNX file
            written by edgemask, a stored run (`.npz`), or the PyTorch model itself. PyTorch runs where the model lies,
            on the canvas and with the thresholds of the file.
        images: a folder, or paths of images. With annotations a folder's images are those that they list.
        annotations: a COCO-format file; with it COCO metrics of both are measured. Without, the reference's own
            detections are taken for the truth. Not for a semantic model.
        device: where the model runs, or several to run it on one after the other; a reference that is an ONNX file
            runs on the first.
        weights: a file or the name of torchvision's weights, for a builder.
        limit: take only so many images: the first ones, or with a `seed` some of all.
        seed: draws them.
        skip_bad_images: leave out what is missing or unreadable.
        tolerance: when two detections are the same, and what is asked; None: the row of the model's precision in
            `TOLERANCES`, of a semantic model that in `SEMANTIC_TOLERANCES`.
        gate: a gate file, whose limits take the place of the tolerance's; see `read_gate`.
        limits: single limits, each in the place of one of the others for the same value.
        baseline: the `report.json` of an earlier validation.
        save_run: write what the reference found to this file, a reference for machines without PyTorch.
        journal: a folder in which results are kept while the work goes on, so that it can be resumed.
        resume: go on with what the journal holds, which must be of the same models; without it the journal is emptied.
        pictures: keep pictures of so many images, the worst ones, for a gallery.
        cluster: let its workers look at the images, which all nodes must have by the same paths, as they must have the
            model and the reference; all else is done here. Not for a model that takes its proposals.

    Returns:
        The record, with one report per device; `raise_for_failure()` turns a failure into an error.

    Raises:
        DatasetError: no image, images that cannot be used, or annotations that do not fit the images or the model.
        ModelFileError: a model file or checkpoint is not sound.
        UsageError: the reference cannot be meant, has other classes, or a gate or baseline that cannot be read.
        DependencyMissing: a package is not installed.
        DeviceUnavailable: the device cannot run the model here.
    """
    from edgemask.runtimes.devices import check_device

    devices = list(dict.fromkeys([device] if isinstance(device, str) else device))
    if not devices:
        raise UsageError("device: expected at least one, got none", "leave it out to take the best device present")
    if resume and journal is None:
        raise UsageError(
            "there is no journal to resume", "name the folder in which the interrupted run kept its results"
        )
    if save_run is not None and os.path.splitext(save_run)[1] != ".npz":
        raise UsageError(f"save_run: expected a name that ends in .npz, got {os.fspath(save_run)!r}", "add the ending")
    if pictures:
        import_supervision()  # needed at the end only, and better missed at once
    plan = Plan(
        document=None if annotations is None else read_truth(os.fspath(annotations)),
        tolerance=tolerance,
        gate=None if gate is None else read_gate(gate),
        limits=tuple(limits),
        baselines=() if baseline is None else read_baselines(baseline),
        pictures=pictures,
    )
    chosen = choose_images(images, plan.document, limit, seed)
    with contextlib.ExitStack() as stack:
        first = FileSide(model, devices[0], stack)
        for name in devices[1:]:  # one that is not there is known before hours of work on the others
            check_device(name)
        plan.check(first)
        side = open_reference(reference, first.spec, device=first.facts.device, weights=weights, stack=stack)
        _check_proposals(first, side)
        if side.facts.kind == "onnx" and side.facts.sha256 == first.facts.sha256:
            side.notes += (
                "the reference is the model file itself: this compares devices, and proves nothing of the model",
            )
        if save_run is not None and isinstance(side, RunSide):
            raise UsageError("the reference is a stored run already", "leave out --save-run, or copy the file")
        plan.images = check_images(chosen, first.spec, skip_bad=skip_bad_images)
        spreading = None if cluster is None else Spreading(cluster, reference, weights, first, stack)
        side = side if spreading is None else spreading.reference(side)
        kept = Journals(journal, fresh=not resume, stack=stack)
        if len(devices) > 1 or save_run is not None or journal is not None:
            side = kept.side("reference", side, must_keep=True, with_stages=1 if save_run is not None else 0)
        reports = []
        for number, name in enumerate(devices):
            candidate = first if number == 0 else FileSide(model, name, stack)
            reports.append(_compare_on(candidate, side, plan, kept, spreading))
        if save_run is not None and isinstance(side, JournaledSide) and plan.images.usable:
            side.journal.pack(save_run)
        kept.remove()
    return Validation(tuple(reports))


def _check_proposals(candidate: FileSide, reference: Side) -> None:
    if candidate.spec.proposals == "input" and reference.facts.kind == "onnx":
        raise UsageError(
            f"{candidate.facts.name} takes its proposals from the caller, and {reference.facts.name} has none to give",
            "give the PyTorch model as the reference, or a run of it: its RPN makes them",
        )


def _compare_on(
    candidate: FileSide, reference: Side, plan: Plan, kept: Journals, spreading: Spreading | None
) -> ValidationReport:
    """Compares on one device."""
    op_tests = run_op_tests(candidate.file, candidate.facts.device)
    looking = candidate if spreading is None else spreading.candidate(candidate)
    side = kept.side(candidate.facts.device.replace(":", "-"), looking) if kept.is_lasting else looking
    if spreading is not None:
        spreading.expect(plan.images.usable, candidate, (side, reference))
    report, worst = compare_sides(side, reference, plan)
    untested = why_untested(candidate.file)
    report = replace(report, op_tests=op_tests, notes=report.notes if untested is None else (*report.notes, untested))
    # Where all is well one image will do: the first, which a stored run has the stages of.
    looked_at = plan.images.usable[:1] if report.passed else (*worst, *plan.images.usable[:1])
    try:
        return replace(report, stages=_stages(candidate, reference, looked_at))
    except EdgemaskError as error:  # another canvas, a graph that names no stage, a part that the device cannot run
        return replace(report, notes=(*report.notes, f"the stages were not compared: {error.problem}"))


def _stages(candidate: FileSide, reference: Side, images: Sequence[UsableImage]) -> StageComparison | None:
    """The stages on the first image on which one differs; on the first one that has any, where none does."""
    compared = None
    for image in images:
        pixels = load_image(image.path)
        proposals = reference.propose(image, pixels) if candidate.spec.proposals == "input" else None
        expected = reference.stages(image, pixels, proposals)
        if expected is None:
            continue
        checks = compare_stages(candidate.file, candidate.facts.device, pixels, expected)
        if compared is None or first_divergence(checks) is not None:
            compared = StageComparison(image=image.name, checks=checks)
        if compared.first is not None:
            break
    return compared
