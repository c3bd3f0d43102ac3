"""`diagnose`: the machine looked over, and its devices tried."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemask.doctor import devices as probes
from edgemask.doctor.children import Answer, Question, ask
from edgemask.doctor.conflicts import conflicts
from edgemask.doctor.jetson import jetson
from edgemask.doctor.libraries import nvidia_of, packages, torch_cuda
from edgemask.doctor.machine import in_container, memory, processor
from edgemask.doctor.records import (
    AUTO,
    Cache,
    DeviceVerdict,
    Diagnosis,
    Library,
    ModelFacts,
    Nvidia,
    OpenVinoDevice,
)
from edgemask.errors import DependencyMissing, OutputError, UsageError
from edgemask.progress import waiting

if TYPE_CHECKING:
    from edgemask.runtimes import RuntimeOptions

LOOK_LIMIT = 60.0  # seconds for a library to tell what there is
TRIAL_LIMIT = 120.0  # seconds for a model to open and run once
ENGINE_LIMIT = 900.0  # the same where TensorRT builds an engine, which takes ten minutes on a Jetson
_LOOKS = ("nvidia", "native_libraries", "onnxruntime_build", "openvino_devices")
_INSTALLATION = "pip install 'edgemask[cpu]', 'edgemask[cuda]' or 'edgemask[openvino]'"


def diagnose(
    model: str | Path | None = None,
    devices: Sequence[str] | None = None,
    *,
    options: "RuntimeOptions | None" = None,
) -> Diagnosis:
    """Looks at the machine, its packages and libraries, and says which devices work here.

    Nothing of the machine that cannot be read is an error. Native libraries are asked in processes of their own, so
    that one that crashes or hangs costs an answer and no more.

    Args:
        model: a file written by edgemask, to be opened and run once on each device that is there.
        devices: names as for `edgemask.load`; only these are looked at. None: every device.
        options: with which the model is opened.

    Raises:
        UsageError: no such device, or options without a model.
        ModelFileError: no such file, or no sound edgemask model.
        DependencyMissing: the package onnx is needed to read the model, and not installed.
    """
    if options is not None and model is None:
        raise UsageError("options are for opening a model, and none is named", "name a model, or leave them out")
    asked, names = _named(devices or ())
    facts = None if model is None else _model_facts(model)
    looks = [_question("libraries", name, LOOK_LIMIT) for name in _LOOKS]
    checks = [_question("devices", "check", LOOK_LIMIT, device=name) for name in names]
    answers = ask([*looks, *checks])
    driver, native, runtime, openvino = answers[: len(looks)]
    verdicts = [_verdict(name, answer) for name, answer in zip(names, answers[len(looks) :], strict=True)]
    if facts is not None:
        verdicts = [_tried(facts, verdict, _fields(options)) for verdict in verdicts]
    installed, board, libraries = packages(), jetson(), _libraries(native)
    return Diagnosis(
        system=f"{platform.system()} {platform.release()}",
        container=in_container(),
        python=platform.python_version(),
        packages=installed,
        processor=processor(),
        memory=memory(),
        jetson=board,
        nvidia=_nvidia(driver),
        libraries=libraries,
        openvino=tuple(OpenVinoDevice(**device) for device in openvino.value or ()),
        cache=_cache(),
        conflicts=conflicts(
            installed,
            runtime_cuda=(runtime.value or {}).get("cuda"),
            torch_cuda=torch_cuda(),
            libraries=libraries,
            jetson=board,
        ),
        model=facts,
        devices=tuple(verdicts),
        asked=asked,
    )


def _named(devices: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Full names of the devices that the caller asked for, `auto` among them, and of those to look at."""
    try:
        from edgemask.runtimes.devices import device_named

        every = probes.device_names()
    except ImportError:  # the answers will say what is missing
        return tuple(devices), tuple(name for name in devices if name != AUTO) or (AUTO,)
    asked = tuple(dict.fromkeys(name if name == AUTO else device_named(name).name for name in devices))
    if not asked:
        return (), every
    automatic = [name for name in every if probes.is_automatic(name)] if AUTO in asked else []
    wanted = {*automatic, *asked} - {AUTO}
    return asked, (*(name for name in every if name in wanted), *(name for name in asked if name in wanted - {*every}))


def _model_facts(model: str | Path) -> ModelFacts:
    try:
        return probes.model_facts(model)
    except ModuleNotFoundError as error:
        raise DependencyMissing(f"reading a model file needs {error.name}", _INSTALLATION) from error


def _question(module: str, name: str, seconds: float, **arguments: Any) -> Question:
    return Question(name=f"edgemask.doctor.{module}:{name}", arguments=arguments, seconds=seconds)


def _verdict(device: str, answer: Answer) -> DeviceVerdict:
    try:
        automatic = probes.is_automatic(device)
    except ImportError:
        automatic = False
    if answer.problem is None:
        return DeviceVerdict(device=device, automatic=automatic, usable=True)
    reason = " ".join(answer.problem.split())
    remedy = answer.remedy
    if reason.startswith("ModuleNotFoundError"):
        reason, remedy = reason.partition(": ")[2], _INSTALLATION
    return DeviceVerdict(device=device, automatic=automatic, usable=False, reason=reason, remedy=remedy)


def _tried(facts: ModelFacts, verdict: DeviceVerdict, options: dict[str, Any]) -> DeviceVerdict:
    """The verdict with the model tried, in a process of its own, where the device is there."""
    if not verdict.usable:
        return verdict
    limit = ENGINE_LIMIT if verdict.device.startswith("tensorrt") else TRIAL_LIMIT
    with waiting(f"trying {Path(facts.path).name} on {verdict.device}"):
        question = _question("devices", "trial", limit, path=facts.path, device=verdict.device, options=options)
        (answer,) = ask([question])
    if answer.problem is not None:
        reason = " ".join(answer.problem.split())
        return replace(verdict, usable=False, reason=reason, remedy=answer.remedy or "try another device")
    return replace(verdict, trial=probes.trial_of(answer.value))


def _fields(options: "RuntimeOptions | None") -> dict[str, Any]:
    """Options as they go to another process."""
    if options is None:
        return {}
    cache = options.cache if isinstance(options.cache, bool) else os.fspath(options.cache)
    return {**asdict(options), "cache": cache}


def _nvidia(answer: Answer) -> Nvidia:
    if answer.problem is not None:
        return Nvidia(problem=f"the NVIDIA driver could not be asked: {answer.problem}", remedy=answer.remedy)
    return nvidia_of(answer.value)


def _libraries(answer: Answer) -> tuple[Library, ...]:
    if answer.problem is not None:
        return tuple(Library(name=name, problem=answer.problem) for name in ("CUDA", "cuDNN", "TensorRT"))
    return tuple(Library(**library) for library in answer.value)


def _cache() -> Cache:
    try:
        from edgemask.runtimes.cache_folder import cache_folder, cache_size

        folder = cache_folder()
    except (ImportError, OutputError):  # onnx is not installed, or this user has no home
        return Cache()
    models, size = cache_size()
    return Cache(folder=str(folder), models=models, bytes=size)
