"""Quantizes a model file: from calibration images and a budget to the fastest file that keeps it."""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edgemask.checks import choice, number
from edgemask.environment import environment
from edgemask.errors import DeviceUnavailable, ModelFileError, OutputError, UnsupportedModel, UsageError
from edgemask.processors import thread_count
from edgemask.quantization.accuracy import Judge, open_judge
from edgemask.quantization.calibration import Calibration
from edgemask.quantization.coverage import look_at
from edgemask.quantization.layers import Layer, chosen, layers_of
from edgemask.quantization.ranges import Range, clipped_share, value_range
from edgemask.quantization.recipes import Recipe, recipe_named
from edgemask.quantization.records import QuantizationReport, StageQuantization, spec_record
from edgemask.quantization.rewriting import ops_of, rewrite, tensors_to_calibrate
from edgemask.quantization.search import DONE, search
from edgemask.quantization.search_laboratory import ModelLaboratory
from edgemask.quantization.workfolder import WorkFolder
from edgemask.runs import file_digest
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.devices import check_device
from edgemask.validation.images import choose_images

if TYPE_CHECKING:
    from edgemask.models import Model

StrPath = str | os.PathLike[str]
TARGETS = ("portable", "tensorrt")
# Images: NNCF takes as many where nothing is said. What a hundred have settled changes little after that.
CALIBRATION_LIMIT = 300
MAX_DROP = 0.01
DEVICES = ("cpu", "openvino:CPU")  # those of them that are there, where nothing is said


def quantize(
    model: StrPath,
    output: StrPath,
    calibration: StrPath | Sequence[StrPath],
    *,
    recipe: str | Recipe = "default",
    target: str = "portable",
    calibration_limit: int = CALIBRATION_LIMIT,
    device: str | Sequence[str] | None = None,
    images: StrPath | Sequence[StrPath] | None = None,
    annotations: StrPath | None = None,
    reference: "StrPath | Model | None" = None,
    weights: StrPath | None = None,
    max_drop: float | None = None,
    limit: int | None = None,
    skip_bad_images: bool = False,
    time_limit: float | None = None,
    journal: StrPath | None = None,
    resume: bool = False,
) -> QuantizationReport:
    """Writes a model file in INT8: one ONNX file with QuantizeLinear and DequantizeLinear, for every runtime.

    Layers that are slower in INT8 on the devices stay in FP32. With validation images the result is the fastest model
    found that keeps the accuracy asked for; if none does, nothing is written.

    Args:
        model: an FP32 file written by edgemask.
        output: the file to write.
        calibration: a folder of images, or their paths, such as the model will see.
        recipe: how; a name of `RECIPES`, or a recipe.
        target: "tensorrt" makes activations symmetric, as TensorRT's parser wants them.
        calibration_limit: images to calibrate on at most; drawn, where there are more.
        device: on which the model is meant to run: it is timed and judged there. None: `DEVICES`.
        images: a folder of images to validate on, or their paths.
        annotations: of these; a COCO-format file. With it AP is kept, without what the row of INT8 in
            `edgemask.parity.TOLERANCES` asks.
        reference: whose accuracy is to be kept, as `edgemask.validation.validate` takes it; None: the FP32 file's.
        weights: of the reference, where it is a builder.
        max_drop: share of the reference's AP that may be lost, of each task on each device; None: 0.01.
        limit: validate on so many images only.
        skip_bad_images: leave out validation images that are missing or unreadable.
        time_limit: minutes after which no further measurement begins.
        journal: a folder in which what was measured is kept while the work goes on, so that it can be resumed.
        resume: go on with what the journal holds.

    Returns:
        What was done, which `raise_for_failure()` turns into an error where nothing was written.

    Raises:
        ModelFileError: not a sound edgemask model, or one that is no FP32 model.
        UnsupportedModel: the recipe quantizes nothing in it.
        CalibrationError: images from which no ranges can be taken.
        DatasetError: validation images or annotations that cannot be used.
        UsageError: an argument that cannot be meant.
        DeviceUnavailable: a device cannot run the model here.
        OutputError: the file cannot be written.
    """
    started = time.monotonic()
    _check_output(output, model)
    if images is None:
        _refuse_idle(
            annotations=annotations,
            reference=reference,
            weights=weights,
            max_drop=max_drop,
            limit=limit,
            skip_bad_images=skip_bad_images or None,
        )
    _check_budget(max_drop, annotations, time_limit)
    plan = _recipe(recipe, target)
    source = _read_fp32(model, target)
    devices = _devices(device)
    wanted = chosen(layers_of(source), plan)
    if not wanted:
        raise UnsupportedModel(f"recipe {plan.name} quantizes no layer of {model}", "choose another recipe")
    pictures = [image.path for image in choose_images(calibration, None, calibration_limit, seed=0)]
    work, budget = WorkFolder(journal, resume=resume), MAX_DROP if max_drop is None else max_drop
    look_at(pictures)  # before the reference's work on the validation images
    with contextlib.ExitStack() as stack:
        judge = None
        if images is not None:
            judge = open_judge(
                source,
                images,
                annotations=annotations,
                reference=reference,
                weights=weights,
                devices=devices,
                max_drop=budget,
                limit=limit,
                skip_bad_images=skip_bad_images,
                journal=work.reference,
                resume=resume,
                stack=stack,
            )
        counted = work.calibrate(source, tensors_to_calibrate(source, wanted), pictures, devices[0])
        counted.refuse_empty(source)
        ranges = {name: value_range(histogram, plan) for name, histogram in counted.histograms.items()}
        make = partial(_candidate, source, ranges, plan)
        laboratory = ModelLaboratory(
            source,
            make,
            devices=devices,
            images=pictures,
            judge=judge,
            journal=work.journal(
                model=source.digest,
                recipe=json.dumps(plan.to_dict()),
                calibration=counted.facts.sha256,
                devices=", ".join(devices),
                machine=_machine(),
                validation=_judged_by(judge, annotations, budget),
            ),
        )
        # What is meant for TensorRT is not decided by the times of other runtimes, unless these are named.
        timed = target == "portable" or device is not None
        deadline = None if time_limit is None else started + 60 * time_limit
        found = search(wanted, laboratory, deadline=deadline, timed=timed)
        if judge is not None and found.stopped == DONE:
            judge.remove()
    candidate = make(found.layers)
    spec = candidate.spec.replace(quantization=spec_record(plan, found.layers, wanted, counted.facts, found))
    report = QuantizationReport(
        path=os.fspath(output),
        source=os.fspath(model),
        spec=spec,
        recipe=plan,
        calibration=counted.facts,
        stages=tuple(_stages(source, found.layers, ranges, counted)),
        search=found,
        seconds=time.monotonic() - started,
        environment=environment(thread_count()),
    )
    if report.passed:
        write_model(candidate.proto, spec, os.fspath(output))
    if found.stopped == DONE:  # at a time limit there is something to go on with
        work.remove()
    return report


def _judged_by(judge: Judge | None, annotations: StrPath | None, budget: float) -> str:
    """What the measurements of accuracy depend on, in 64 digits."""
    if judge is None:
        return ""
    truth = "" if annotations is None else file_digest(annotations)
    parts = [*judge.images, truth, repr(budget), judge.reference.sha256 or judge.reference.name]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _machine() -> str:
    """What times and sizes depend on: the machine, and the versions of what computes and rewrites."""
    here = environment(thread_count())
    return json.dumps([here.processor, here.threads, dict(here.versions)], sort_keys=True)


def _check_output(output: StrPath, model: StrPath) -> None:
    if os.path.isdir(output):
        raise OutputError(f"cannot write {output}: it is a folder", "name a file in it")
    if os.path.realpath(output) == os.path.realpath(model):
        raise UsageError(f"{output} is the model itself", "name another file: the FP32 one is needed again")


def _refuse_idle(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: there are no validation images", "give them too: --images DIR")


def _check_budget(max_drop: float | None, annotations: StrPath | None, time_limit: float | None) -> None:
    if max_drop is not None and annotations is None:
        raise UsageError("max_drop: AP is measured against annotations only", "give them too: --annotations FILE")
    if time_limit is not None:
        number(0, 1e6)("time_limit", time_limit)


def _recipe(recipe: str | Recipe, target: str) -> Recipe:
    choice(*TARGETS)("target", target)
    plan = recipe if isinstance(recipe, Recipe) else recipe_named(recipe)
    return plan.replace(symmetric=True) if target == "tensorrt" else plan


def _read_fp32(path: StrPath, target: str) -> ModelFile:
    model = read_model(os.fspath(path))
    if model.spec.precision != "fp32":
        raise ModelFileError(
            f"{path} is in {model.spec.precision.upper()} already", "quantize the FP32 file that it was made from"
        )
    if model.spec.proposals == "input":
        raise UnsupportedModel(
            f"{path} takes its proposals from the caller, and images alone do not bring any",
            'quantize the model as exported with proposals="rpn"',
        )
    if target == "tensorrt" and model.spec.outputs == "flat" and "semantic" not in model.spec.tasks:
        raise UsageError(f"{path} was not exported for TensorRT", "edgemask export --target tensorrt gives such a file")
    names = Counter(layer.name for layer in layers_of(model))
    if any(not name or count > 1 for name, count in names.items()) or not all(x.weights for x in layers_of(model)):
        raise ModelFileError(f"{path} has layers without a name, or without weights", "export the model again")
    return model


def _devices(device: str | Sequence[str] | None) -> tuple[str, ...]:
    if device is None:
        there = tuple(name for name in DEVICES if _is_there(name))
        if not there:
            raise DeviceUnavailable("neither ONNX Runtime nor OpenVINO is here", "pip install 'edgemask[cpu]'")
        return there
    devices = [device] if isinstance(device, str) else list(device)
    if not devices or "auto" in devices:
        raise UsageError(
            f"device: expected the names of devices, got {', '.join(devices) or 'none'}",
            "a file is timed where it is meant to run: name that device",
        )
    return tuple(dict.fromkeys(check_device(name) for name in devices))


def _is_there(device: str) -> bool:
    try:
        check_device(device)
    except DeviceUnavailable:
        return False
    return True


def _candidate(source: ModelFile, ranges: Mapping[str, Range], recipe: Recipe, layers: Collection[Layer]) -> ModelFile:
    """The model with just these layers quantized, in memory."""
    import onnxruntime

    proto = rewrite(source, layers, ranges, recipe) if layers else source.proto
    versions = source.spec.versions | {"onnxruntime": onnxruntime.__version__}
    # What the export measured is no parity of this file.
    spec = source.spec.replace(precision="int8", ops=ops_of(source.spec, proto), parity=None, versions=versions)
    return replace(source, proto=proto, data=proto.SerializeToString(), spec=spec)


def _stages(
    model: ModelFile, layers: Collection[Layer], ranges: Mapping[str, Range], calibration: Calibration
) -> Iterator[StageQuantization]:
    quantized = {layer.name for layer in layers}
    clipped: dict[str, float] = defaultdict(float)
    rounded = set(tensors_to_calibrate(model, layers))
    for node in model.proto.graph.node:
        for name in node.output:
            if name in rounded:
                stage = node.name.partition("/")[0]
                clipped[stage] = max(clipped[stage], clipped_share(calibration.histograms[name], *ranges[name]))
    stages = Counter(layer.stage for layer in layers_of(model))
    own = Counter(layer.stage for layer in layers_of(model) if layer.name in quantized)
    for stage, count in stages.items():
        yield StageQuantization(stage=stage, layers=count, quantized=own[stage], clipped=clipped[stage])
