"""The benchmark itself: contestants take turns on one image in one process."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgemask.benchmark.accuracy import accuracy_of, read_accuracies
from edgemask.benchmark.contestants import Contestant
from edgemask.benchmark.drift import conditions, drift_notes
from edgemask.benchmark.memory import measure_memory
from edgemask.benchmark.notes import (
    notes_on_calls,
    notes_on_files,
    notes_on_options,
    notes_on_plan,
    notes_on_reference,
    notes_on_results,
)
from edgemask.benchmark.opening import (
    AGAINST,
    Attempts,
    Entry,
    FileEntry,
    ReferenceEntry,
    file_entries,
    import_runtimes,
    torch_threads,
)
from edgemask.benchmark.photographs import Photograph, Source, photograph, reshaped
from edgemask.benchmark.plan import BenchPlan
from edgemask.benchmark.pytorch import Reference
from edgemask.benchmark.records import BenchReport, ContestantResult, FirstRuns
from edgemask.benchmark.results import result_of
from edgemask.benchmark.scenarios import run_scenario
from edgemask.benchmark.turns import first_runs, take_turns, throughputs
from edgemask.checks import did_you_mean
from edgemask.environment import environment
from edgemask.errors import EdgemaskError, UsageError
from edgemask.processors import thread_count

if TYPE_CHECKING:
    from edgemask.runtimes.options import RuntimeOptions

USUAL = BenchPlan()


def bench(
    models: Sequence[str | os.PathLike[str]],
    *,
    devices: Sequence[str] = ("auto",),
    precisions: Sequence[str] = (),
    options: "RuntimeOptions | None" = None,
    reference: str | None = None,
    weights: str | None = None,
    against: Sequence[str] = (),
    reference_device: str | None = None,
    image: Source | None = None,
    image_size: tuple[int, int] | None = None,
    accuracy: Sequence[str | os.PathLike[str]] = (),
    plan: BenchPlan = USUAL,
) -> BenchReport:
    """Measures model files on devices, and against what a user could run instead, all in one run.

    The contestants take turns, A B C A B C ..., so that whatever else the machine does hits all of them. All get the
    same image and the same number of threads. Batches, streams and the scenario follow, one contestant after the other.
    A contestant that cannot be measured here is listed with its reason, as long as a model file is left.

    Args:
        models: model files; each is opened on each device, with each precision. The first that opens is the measure of
            the others.
        devices: see `edgemask.load`.
        precisions: of `RuntimeOptions`; none: that of the options.
        options: how files are opened; see `edgemask.load`.
        reference: the PyTorch model that `against` runs, as `edgemask.checkpoints.load_model` takes it.
        weights: its weights, where `reference` names a builder.
        against: any of `AGAINST`, run with the thresholds, limits and image sizes of the first model.
        reference_device: where PyTorch runs it: `cpu`, `cuda` or `cuda:N`; None: where the first model runs.
        image: the image; None draws one.
        image_size: (H, W) of the image to draw; None takes the first model's canvas, or 480 x 640.
        accuracy: each a `report.json` of `edgemask validate`, for what is plotted.
        plan: what to measure, and how often.

    Returns:
        The record.

    Raises:
        UsageError: arguments that contradict each other.
        ModelFileError: no sound model.
        DeviceUnavailable: no device can run any of the models here.
        ImageError: no usable image.
        DependencyMissing: `against` needs a package that is not installed.
    """
    from edgemask.runtimes.options import RuntimeOptions

    options = RuntimeOptions() if options is None else options
    _check(reference, against, reference_device, image, image_size)
    known = read_accuracies(accuracy)
    entries = file_entries(models, devices, precisions, options)
    import_runtimes()
    threads = options.threads or thread_count()
    before, attempts = conditions(), Attempts()
    with contextlib.ExitStack() as stack:
        running, picture = _files(entries, image, image_size, attempts, stack)
        files = [one.contestant for one in running]
        notes = [*notes_on_files(files, picture.pixels), *notes_on_options(entries), *notes_on_plan(plan)]
        if reference is not None:
            stack.enter_context(torch_threads(threads))
            model = Reference(reference, weights, files[0].spec.class_names)
            target = reference_device or _torch_device(files[0].device)
            more = [
                ReferenceEntry(name, model, files[0].spec, target, threads, picture.pixels)
                for name in dict.fromkeys(against)
            ]
            others = _run_first(_open(more, attempts, stack), picture, attempts)
            notes += notes_on_reference([one.contestant for one in others], reference, files[0].spec.source_sha256)
            running += others
        notes += notes_on_calls(plan, [one.contestant for one in running])
        results, troubles = _measured(running, picture, plan, threads)
    after = conditions()
    if plan.memory:
        results, further = _with_memory(running, results, picture)
        troubles += further
    results = [replace(result, accuracy=accuracy_of(result, known)) for result in results]
    notes += [*troubles, *notes_on_results(results, accuracy=bool(accuracy))]
    notes += drift_notes(before, after, results, max(threads, plan.streams))
    return BenchReport(
        image=picture.title,
        image_size=(picture.pixels.shape[0], picture.pixels.shape[1]),
        plan=plan,
        contestants=tuple(results),
        refusals=tuple(attempts.refusals),
        notes=tuple(dict.fromkeys(notes)),
        before=before,
        after=after,
        environment=environment(threads),
    )


@dataclass(frozen=True, slots=True)
class _Running:
    """A contestant that is open, and what happened when it was first run."""

    entry: Entry
    contestant: Contestant
    firsts: FirstRuns | None = None


def _check(
    reference: str | None,
    against: Sequence[str],
    reference_device: str | None,
    image: object,
    image_size: tuple[int, int] | None,
) -> None:
    unknown = [name for name in against if name not in AGAINST]
    if unknown:
        remedy = did_you_mean(unknown[0], AGAINST, f"choose from: {', '.join(AGAINST)}")
        raise UsageError(f"cannot measure against {unknown[0]!r}", remedy)
    if against and reference is None:
        raise UsageError(f"{', '.join(against)} needs the PyTorch model", "name it: --reference CHECKPOINT")
    if reference is not None and not against:
        raise UsageError(f"nothing would be run with the reference {reference}", "add --against eager")
    if image is not None and image_size is not None:
        raise UsageError("an image has a size of its own", "give either an image or an image size")
    if reference_device is not None and not _is_torch_device(reference_device):
        raise UsageError(f"PyTorch has no device {reference_device!r} here", "expected cpu, cuda or cuda:N")


def _check_kinds(files: Sequence[Contestant]) -> None:
    """Refuses models that an image alone is not enough for, or that give something else than detections."""
    for file in files:
        if "semantic" in file.spec.tasks:
            raise UsageError(f"{file.name} labels pixels", "models that detect objects are measured here")
        if file.spec.proposals == "input":
            raise UsageError(f"{file.name} takes its proposals from the caller", "measure one that finds its own")


def _files(
    entries: Sequence[FileEntry],
    image: Source | None,
    image_size: tuple[int, int] | None,
    attempts: Attempts,
    stack: contextlib.ExitStack,
) -> tuple[list[_Running], Photograph]:
    """Opens the model files, takes the image, and runs each file on it for the first time.

    Raises:
        EdgemaskError: none of the files can be measured here; why the first one cannot.
    """
    opened = _open(entries, attempts, stack)
    _check_kinds([one.contestant for one in opened])
    if opened:
        picture = photograph(image, image_size, opened[0].contestant.spec)
        running = _run_first(opened, picture, attempts)
        if running:
            return running, picture
    raise attempts.errors[0]


def _open(entries: Iterable[Entry], attempts: Attempts, stack: contextlib.ExitStack) -> list[_Running]:
    opened = []
    for entry in entries:
        contestant = attempts.of(entry, entry.open)
        if contestant is not None:
            stack.callback(contestant.close)
            opened.append(_Running(entry, contestant))
    return opened


def _run_first(opened: Sequence[_Running], picture: Photograph, attempts: Attempts) -> list[_Running]:
    running = []
    for one in opened:
        other = reshaped(picture.pixels, one.contestant.spec.replace(canvas=None))
        firsts = attempts.of(one.entry, lambda: first_runs(one.contestant, picture.pixels, other))  # noqa: B023
        if firsts is not None:
            running.append(replace(one, firsts=firsts))
    return running


def _measured(
    running: Sequence[_Running], picture: Photograph, plan: BenchPlan, threads: int
) -> tuple[list[ContestantResult], list[str]]:
    """Lets all take turns, then measures each by itself; gives the results, and what went wrong with the latter."""
    contestants = [one.contestant for one in running]
    turns = take_turns(contestants, picture.pixels, repeats=plan.repeats, warmup=plan.warmup, decode=picture.decode)
    results, troubles = [], []
    for one, own in zip(running, turns, strict=True):
        assert one.firsts is not None
        result = result_of(one.contestant, own, turns[0], one.firsts, threads)
        try:
            calls = throughputs(one.contestant, picture.pixels, plan.batches, plan.streams, repeats=plan.repeats)
            result = replace(result, throughput=calls)
            if plan.scenario is not None:
                scenario = run_scenario(plan.scenario, one.contestant, picture.pixels, duration=plan.duration)
                result = replace(result, scenario=scenario)
        except EdgemaskError as error:
            troubles.append(f"{result.title}: {error.problem}")
        results.append(result)
    return results, troubles


def _with_memory(
    running: Sequence[_Running], results: Sequence[ContestantResult], picture: Photograph
) -> tuple[list[ContestantResult], list[str]]:
    found, troubles = [], []
    for one, result in zip(running, results, strict=True):
        try:
            found.append(replace(result, memory=measure_memory(one.entry, picture.pixels)))
        except EdgemaskError as error:
            found.append(result)
            troubles.append(f"{result.title}: {error.problem}")
    return found, troubles


def _torch_device(device: str) -> str:
    """Where PyTorch runs beside a file: on the same GPU, else on the CPU."""
    kind, _, number = device.partition(":")
    return f"cuda:{number}" if kind in ("cuda", "tensorrt") and number else "cuda" if kind == "cuda" else "cpu"


def _is_torch_device(device: str) -> bool:
    kind, sign, number = device.partition(":")
    return device == "cpu" or (kind == "cuda" and (not sign or number.isdecimal()))
