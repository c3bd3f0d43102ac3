"""The benchmark itself: contestants take turns on one image in one process."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgemask.benchmark.contestants import Contestant, FileContestant, Picture, Turn
from edgemask.benchmark.records import BenchReport, ContestantResult, Timing
from edgemask.canvas import eager_size
from edgemask.environment import environment
from edgemask.errors import UsageError
from edgemask.images import load_image
from edgemask.progress import progress
from edgemask.spec import ModelSpec

AGAINST = ("eager", "torchvision-onnx", "torchvision-onnx-unpasted")
STAGES = ("preprocess", "inference", "postprocess", "total", "pasted")
DEFAULT_IMAGE_SIZE = (480, 640)
SCENE_SEED = 20_260
# Worker threads of the contestant before may still spin for a few milliseconds, waiting for more work.
_SETTLE_SECONDS = 0.02
_UNQUIET = 1.25  # p90 over median: on a quiet machine it is below 1.1
_COMPARED_FIELDS = ("min_size", "max_size", "fixed_size", "score_threshold", "nms_threshold", "max_detections",
                    "max_proposals")  # fmt: skip


def bench(
    models: Sequence[str | Path],
    *,
    devices: Sequence[str] = ("auto",),
    reference: str | None = None,
    weights: str | None = None,
    against: Sequence[str] = (),
    image: str | os.PathLike[str] | Image.Image | Picture | None = None,
    image_size: tuple[int, int] | None = None,
    repeats: int = 10,
    warmup: int = 2,
) -> BenchReport:
    """Measures model files on devices, and against what a user could run instead, all in one run.

    The contestants take turns, A B C A B C ..., so that whatever else the machine does hits all of them. All get the
    same image and the same number of threads.

    Args:
        models: model files; each is opened on each device. The first on the first is the measure of the others.
        devices: see `edgemask.load`.
        reference: the PyTorch model that `against` runs, as `edgemask.checkpoints.load_model` takes it.
        weights: its weights, where `reference` names a builder.
        against: any of `AGAINST`, run with the thresholds, limits and image sizes of the first model.
        image: the image; None draws one.
        image_size: (H, W) of the image to draw; None takes the first model's canvas, or 480 x 640.
        repeats: rounds that are timed.
        warmup: rounds before that.

    Returns:
        The record.

    Raises:
        UsageError: arguments that contradict each other, or a number below its minimum.
        ModelFileError: no sound model.
        DeviceUnavailable: a device cannot run a model here.
        ImageError: no usable image.
        DependencyMissing: `against` needs a package that is not installed.
    """
    _check(models, devices, reference, against, image, image_size, repeats, warmup)
    _import_runtimes()
    with contextlib.ExitStack() as stack:
        files = []
        for path in models:
            for device in devices:
                files.append(FileContestant(path, device))
                stack.callback(files[-1].close)
        _check_kinds(files)
        title, pixels = _picture(image, image_size, files[0].spec)
        contestants: list[Contestant] = list(files)
        notes = _notes_on_files(files, pixels)
        if reference is not None:
            stack.enter_context(_equal_threads())
            others, remarks = _open_others(reference, weights, against, files[0].spec, pixels)
            for other in others:
                stack.callback(other.close)
            contestants += others
            notes += remarks
        turns = take_turns(contestants, pixels, repeats=repeats, warmup=warmup)
        results = summarised(contestants, turns)
    notes += _notes_on_results(results)
    return BenchReport(
        image=title,
        image_size=(pixels.shape[0], pixels.shape[1]),
        warmup=warmup,
        repeats=repeats,
        contestants=results,
        notes=tuple(notes),
        environment=environment(results[0].threads),
    )


def take_turns(contestants: Sequence[Contestant], pixels: Picture, *, repeats: int, warmup: int) -> list[list[Turn]]:
    """Lets the contestants take turns; gives the timed turns of each, without those of the warm-up."""
    paste = any(contestant.pastes_itself for contestant in contestants)
    turns: list[list[Turn]] = [[] for _ in contestants]
    for number in progress(range(warmup + repeats), "bench"):
        for contestant, own in zip(contestants, turns, strict=True):
            time.sleep(_SETTLE_SECONDS)
            turn = contestant.turn(pixels, paste=paste)
            if number >= warmup:
                own.append(turn)
    return turns


def _check(
    models: Sequence[str | Path],
    devices: Sequence[str],
    reference: str | None,
    against: Sequence[str],
    image: object,
    image_size: tuple[int, int] | None,
    repeats: int,
    warmup: int,
) -> None:
    if not models or not devices:
        raise UsageError("there is nothing to measure", "give at least one model and one device")
    unknown = [name for name in against if name not in AGAINST]
    if unknown:
        raise UsageError(f"cannot measure against {unknown[0]!r}", f"choose from: {', '.join(AGAINST)}")
    if against and reference is None:
        raise UsageError(f"{', '.join(against)} needs the PyTorch model", "name it: --reference CHECKPOINT")
    if reference is not None and not against:
        raise UsageError(f"nothing would be run with the reference {reference}", "add --against eager")
    if image is not None and image_size is not None:
        raise UsageError("an image has a size of its own", "give either an image or an image size")
    if repeats < 1 or warmup < 0:
        raise UsageError(f"{repeats} repeats, {warmup} for warm-up", "expected at least 1 and 0")


def _check_kinds(files: Sequence[FileContestant]) -> None:
    """Refuses models that an image alone is not enough for, or that give something else than detections."""
    for file in files:
        if "semantic" in file.spec.tasks:
            raise UsageError(f"{file.name} labels pixels", "models that detect objects are measured here")
        if file.spec.proposals == "input":
            raise UsageError(f"{file.name} takes its proposals from the caller", "measure one that finds its own")


def _import_runtimes() -> None:
    """Loads the libraries ahead, so that the first contestant's load time does not hold their import."""
    for name in ("onnxruntime", "openvino"):
        with contextlib.suppress(ImportError):
            __import__(name)


def _picture(
    image: str | os.PathLike[str] | Image.Image | Picture | None, size: tuple[int, int] | None, spec: ModelSpec
) -> tuple[str, Picture]:
    """The image with a title for it."""
    if image is not None:
        title = str(image) if isinstance(image, str | os.PathLike) else "an image in memory"
        return title, load_image(image)
    from edgemask.scenes import draw_scene

    height, width = size or spec.canvas or DEFAULT_IMAGE_SIZE
    # Drawn at the usual size and enlarged: a scene has so many objects at any size.
    scene = Image.fromarray(draw_scene(0, seed=SCENE_SEED, objects=8).image)
    return f"drawn scene {SCENE_SEED}", np.array(scene.resize((width, height), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _equal_threads() -> Iterator[None]:
    """Lets PyTorch use as many threads as the runtimes do."""
    import torch

    from edgemask.runtimes.runtime import thread_count

    before = torch.get_num_threads()
    torch.set_num_threads(thread_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open_others(
    reference: str, weights: str | None, against: Sequence[str], spec: ModelSpec, pixels: Picture
) -> tuple[list[Contestant], list[str]]:
    """The contestants that are made from the PyTorch model, and what to note about them."""
    from edgemask.benchmark.pytorch import EagerContestant, TorchvisionOnnxContestant
    from edgemask.checkpoints import load_model
    from edgemask.description import weights_digest

    started = time.perf_counter()
    model, _ = load_model(reference, weights=weights, class_names=spec.class_names)
    load = 1000 * (time.perf_counter() - started)
    notes = []
    if weights_digest(model) != spec.source_sha256:
        notes.append(f"{reference} does not hold the weights that the first model was exported from")
    others: list[Contestant] = []
    for name in dict.fromkeys(against):
        if name == "eager":
            others.append(EagerContestant(model, spec, load))
            continue
        legacy = TorchvisionOnnxContestant(model, spec, pixels, paste=name == "torchvision-onnx")
        others.append(legacy)
        held = (
            "the resize and the paste of masks: compare it by the pasted times"
            if legacy.pastes_itself
            else "the resize"
        )
        notes.append(f"{name}: export took {legacy.export / 1000:.1f} s; its inference holds {held}")
    return others, notes


def _notes_on_files(files: Sequence[FileContestant], pixels: Picture) -> list[str]:
    first, notes = files[0], []
    for file in files:
        wanted, canvas = eager_size(pixels.shape[0], pixels.shape[1], file.spec), file.spec.canvas
        if canvas is not None and (wanted[0] > canvas[0] or wanted[1] > canvas[1]):
            notes.append(
                f"PyTorch would resize the image to {wanted[0]} x {wanted[1]}: more than {file.name} has room for, "
                "so it does less work than PyTorch"
            )
    for other in files[1:]:
        differing = [field for field in _COMPARED_FIELDS if getattr(other.spec, field) != getattr(first.spec, field)]
        if differing:
            notes.append(f"{other.name} differs from {first.name} in {', '.join(differing)}")
    return list(dict.fromkeys(notes))


def _notes_on_results(results: Sequence[ContestantResult]) -> list[str]:
    notes = []
    canvases = {result.canvas for result in results if result.canvas is not None}
    if len(canvases) > 1:
        sizes = ", ".join(
            "{} on {} x {}".format(result.name, *result.canvas) for result in results if result.canvas is not None
        )
        notes.append(f"the contestants worked on canvases (H x W) of different sizes: {sizes}")
    spread = max(result.stages["total"].p90 / result.stages["total"].median for result in results)
    if spread > _UNQUIET:
        notes.append(f"the machine was not quiet: the slowest tenth took {spread:.2f} times the median or more")
    return notes


def summarised(contestants: Sequence[Contestant], turns: Sequence[Sequence[Turn]]) -> tuple[ContestantResult, ...]:
    """What the turns of each contestant come to, in the order of the contestants."""
    from edgemask.runtimes.runtime import thread_count

    return tuple(
        ContestantResult(
            name=contestant.name,
            device=contestant.device,
            threads=thread_count(),
            canvas=contestant.canvas,
            detections=own[-1].detections,
            load=contestant.load,
            stages=_timings(own, turns[0]),
        )
        for contestant, own in zip(contestants, turns, strict=True)
    )


def _timings(turns: Sequence[Turn], first: Sequence[Turn]) -> dict[str, Timing]:
    """Timings by stage, of those stages that were measured."""
    timings = {}
    for stage in STAGES:
        milliseconds = [getattr(turn, stage) for turn in turns]
        if None not in milliseconds:
            median, p90 = (float(value) for value in np.percentile(milliseconds, (50, 90)))
            unit = float(np.median([getattr(turn, stage) for turn in first]))
            timings[stage] = Timing(median, p90, median / unit if unit > 0 else None)
    return timings
