"""The devices that a model can run on, and how one is chosen."""

import re
from dataclasses import dataclass

from edgemask.errors import DeviceUnavailable, EdgemaskError, UsageError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.ort import OrtCpu, OrtCuda
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


# In the order in which `auto` tries them.
DEVICES = (
    Device("cuda", OrtCuda, "0"),
    Device("openvino:GPU", OpenVino, "GPU"),
    Device("openvino:CPU", OpenVino, "CPU"),
    Device("cpu", OrtCpu, ""),
    Device("openvino:NPU", OpenVino, "NPU", automatic=False),
)


def open_runtime(model: ModelFile, device: str) -> tuple[Runtime, tuple[str, ...]]:
    """Opens a model on a device.

    Args:
        model: what `read_model` gave.
        device: a name of `DEVICES`, `cuda:N`, `openvino` for its CPU, or `auto` for the first that works.

    Returns:
        The runtime, and for `auto` one line for each device that was tried before and could not be used.

    Raises:
        UsageError: no such device.
        DeviceUnavailable: the device named, or every device, cannot run this model here; says why.
    """
    if device != "auto":
        check_device(device)
        entry = _named(device)
        return entry.runtime(model, entry.target), ()
    refusals: list[str] = []
    for entry in (entry for entry in DEVICES if entry.automatic):
        try:
            if reason := entry.runtime.unavailable(entry.target):
                raise reason
            return entry.runtime(model, entry.target), tuple(refusals)
        except EdgemaskError as error:
            line = f"{entry.name}: {error.problem}: {error.remedy}"
            refusals.append(" ".join(line.split()))  # a library's words may go over several lines
    raise DeviceUnavailable("no device can run this model here:\n" + "\n".join(refusals), "mend one of these")


def check_device(device: str) -> str:
    """Returns the full name of a device that is there, whatever model it is for; `auto` is known only with a model.

    Raises:
        UsageError: no such device.
        DeviceUnavailable: the device is not usable here; says why.
    """
    if device == "auto":
        return device
    entry = _named(device)
    if reason := entry.runtime.unavailable(entry.target):
        raise reason
    return entry.name


def _named(device: str) -> Device:
    aliases = {"openvino": "openvino:CPU", "cuda:0": "cuda"}
    for entry in DEVICES:
        if entry.name == aliases.get(device, device):
            return entry
    if re.fullmatch(r"cuda:[0-9]{1,3}", device):
        return Device(device, OrtCuda, device.removeprefix("cuda:"))
    names = ", ".join(["auto", *(entry.name for entry in DEVICES), "cuda:N"])
    raise UsageError(f"there is no device {device!r}", f"the devices are: {names}")
