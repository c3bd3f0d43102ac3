"""The devices that a model can run on, and how one is chosen."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgemask.checks import did_you_mean
from edgemask.errors import DeviceUnavailable, EdgemaskError, UsageError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.options import UNCACHED, RuntimeOptions
from edgemask.runtimes.ort import OrtCpu
from edgemask.runtimes.ort_gpu import OrtCuda, OrtTensorRt
from edgemask.runtimes.ov import OpenVino
from edgemask.runtimes.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Device:
    """One entry of `DEVICES`.

    Attributes:
        name: what the user writes.
        runtime: the class that opens a model.
        target: what that class is told.
        automatic: whether `auto` tries it.
    """

    name: str
    runtime: type[Runtime]
    target: str
    automatic: bool = True


# In the order in which `auto` tries them. It does not try what compiles for minutes, nor what rounds.
DEVICES = (
    Device("cuda", OrtCuda, "0"),
    Device("openvino:GPU", OpenVino, "GPU"),
    Device("openvino:CPU", OpenVino, "CPU"),
    Device("cpu", OrtCpu, ""),
    Device("tensorrt", OrtTensorRt, "0", automatic=False),
    Device("openvino:NPU", OpenVino, "NPU", automatic=False),
    Device("openvino:AUTO", OpenVino, "AUTO", automatic=False),
)
TORCH = "torch"  # the PyTorch model itself, which needs its checkpoint
_PROCESSORS = ("openvino:CPU", "cpu")
_NUMBERED = {"cuda": OrtCuda, "tensorrt": OrtTensorRt}
_ALIASES = {"openvino": "openvino:CPU", "cuda:0": "cuda", "tensorrt:0": "tensorrt"}


def open_runtime(
    model: ModelFile, device: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
) -> tuple[Runtime, tuple[str, ...]]:
    """Opens a model on a device.

    Args:
        model: what `read_model` gave.
        device: a name of `DEVICES`, `cuda:N`, `tensorrt:N`, `openvino` for its CPU, or `auto` for the first that works.
        options: how to open it.
        fallback: where the device named cannot be used, take what `auto` would, and where parts of the graph cannot
            run on it, let them run elsewhere; both are warned of.

    Returns:
        The runtime, and one line for each device that was tried before and could not be used.

    Raises:
        UsageError: no such device, or an option that it does not have.
        DeviceUnavailable: the device named, or every device, cannot run this model here; says why.
    """
    if device == "auto":
        return _first_of([entry for entry in DEVICES if entry.automatic], model, options)
    entry = device_named(device)
    if not fallback:
        if reason := entry.runtime.unavailable(entry.target):
            raise reason
        return entry.runtime(model, entry.target, options), ()
    others = [other for other in DEVICES if other.automatic and other.name != entry.name]
    runtime, refusals = _first_of([entry, *others], model, options, fallback=True)
    log = logging.getLogger("edgemask")
    if refusals:  # of those behind the device named, `refusals` tells
        log.warning("%s runs on %s, not on %s", model.path.name, runtime.device, refusals[0])
    for stray in runtime.strays:
        log.warning("%s does not run on %s alone: %s", model.path.name, runtime.device, stray)
    return runtime, refusals


def uses_processors(device: str) -> bool:
    """Whether a model on a device runs on the processors themselves; of `auto`, on the first device that is there."""
    if device.partition(":")[0] == TORCH:
        return False
    if device != "auto":
        return device_named(device).name in _PROCESSORS
    there = (entry.name for entry in DEVICES if entry.automatic and not entry.runtime.unavailable(entry.target))
    return next(there, None) in _PROCESSORS


def check_device(device: str) -> str:
    """Returns the full name of a device that is there, whatever model it is for; `auto` is known only with a model.

    Raises:
        UsageError: no such device.
        DeviceUnavailable: the device is not usable here; says why.
    """
    if device == "auto":
        return device
    entry = device_named(device)
    if reason := entry.runtime.unavailable(entry.target):
        raise reason
    return entry.name


def device_named(device: str) -> Device:
    """The entry of a device by any name of it, whether or not it is there.

    Raises:
        UsageError: no such device.
    """
    for entry in DEVICES:
        if entry.name == _ALIASES.get(device, device):
            return entry
    if found := re.fullmatch(r"(cuda|tensorrt):([0-9]{1,3})", device):
        return Device(device, _NUMBERED[found[1]], str(int(found[2])))
    if device.partition(":")[0] == TORCH:
        raise UsageError(
            "the device torch runs a PyTorch model, not an ONNX file",
            "give the checkpoint that the file was exported from, such as model.safetensors",
        )
    names = ["auto", *(entry.name for entry in DEVICES), "cuda:N", "tensorrt:N", TORCH]
    hint = did_you_mean(device, [*names, *_ALIASES], "")
    raise UsageError(f"there is no device {device!r}", f"{hint} the devices are: {', '.join(names)}".lstrip())


def _first_of(
    entries: Sequence[Device], model: ModelFile, options: RuntimeOptions, *, fallback: bool = False
) -> tuple[Runtime, tuple[str, ...]]:
    refusals: list[str] = []
    for entry in entries:
        try:
            if reason := entry.runtime.unavailable(entry.target):
                raise reason
            return entry.runtime(model, entry.target, options, fallback=fallback), tuple(refusals)
        except UsageError:
            raise  # a wrong option must not choose the device
        except EdgemaskError as error:
            line = f"{entry.name}: {error.problem}: {error.remedy}"
            refusals.append(" ".join(line.split()))  # a library's words may go over several lines
    raise DeviceUnavailable("no device can run this model here:\n" + "\n".join(refusals), "mend one of these")
