"""The devices that a model can run on, and how one is chosen."""

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
    Device("openvino:AUTO", OpenVino, "AUTO", automatic=False),
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
    refusals: list[str] = []
    for entry in _candidates(device):
        reason = entry.runtime.unavailable(entry.target)
        if reason is None:
            try:
                return entry.runtime(model, entry.target), tuple(refusals)
            except EdgemaskError as error:
                if device != "auto":
                    raise
                reason = str(error).replace("\n", "; ")
        refusals.append(f"{entry.name}: {reason}")
    if device == "auto":
        raise DeviceUnavailable("no device can run this model here:\n" + "\n".join(refusals), "mend one of these")
    problem, _, remedy = refusals[0].rpartition(": ")
    raise DeviceUnavailable(problem, remedy)


def _candidates(device: str) -> list[Device]:
    if device == "auto":
        return [entry for entry in DEVICES if entry.automatic]
    aliases = {"openvino": "openvino:CPU", "cuda:0": "cuda"}
    for entry in DEVICES:
        if entry.name == aliases.get(device, device):
            return [entry]
    kind, _, target = device.partition(":")
    if kind == "cuda":
        return [Device(device, OrtCuda, target)]
    names = ", ".join(["auto", *(entry.name for entry in DEVICES), "cuda:N"])
    raise UsageError(f"there is no device {device!r}", f"the devices are: {names}")
