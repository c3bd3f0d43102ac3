"""Who is to take part, and what to do where one cannot."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from edgemask.benchmark.contestants import Contestant, Picture
from edgemask.benchmark.records import Refusal
from edgemask.errors import DeviceUnavailable, EdgemaskError, OutOfMemory, UnsupportedModel, UsageError
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgemask.benchmark.files import FileContestant
    from edgemask.benchmark.pytorch import Reference
    from edgemask.runtimes.options import RuntimeOptions

AGAINST = ("eager", "compile", "eager-fp16", "torchvision-onnx", "torchvision-onnx-unpasted")
# What the machine, not the user, is to blame for: the others are measured all the same.
_REFUSED = (DeviceUnavailable, OutOfMemory, UnsupportedModel)
Result = TypeVar("Result")


class Entry(Protocol):
    """A contestant that is not open yet."""

    @property
    def name(self) -> str:
        """What it is."""

    @property
    def device(self) -> str:
        """Where it is to run."""

    @property
    def precision(self) -> str:
        """Its arithmetic; see `ContestantResult`."""

    def open(self) -> Contestant:
        """Opens it."""

    def job(self) -> dict[str, Any] | None:
        """What another process has to know to open it, as JSON; None where that would measure something else."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A model file on a device, with options."""

    path: str
    device: str
    options: "RuntimeOptions"

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    @property
    def precision(self) -> str:
        """That of the options."""
        return self.options.precision

    def open(self) -> "FileContestant":
        """See `Entry.open`."""
        from edgemask.benchmark.files import FileContestant

        return FileContestant(self.path, self.device, self.options)

    def job(self) -> dict[str, Any]:
        """See `Entry.job`."""
        cache = self.options.cache
        plain = asdict(self.options) | {"cache": cache if isinstance(cache, bool) else os.fspath(cache)}
        return {"path": self.path, "device": self.device, "options": plain | {"library": dict(self.options.library)}}


@dataclass(frozen=True, slots=True)
class ReferenceEntry:
    """What is made of the PyTorch model: one of `AGAINST`.

    Attributes:
        name: which.
        reference: the model.
        spec: of the first model file: thresholds, limits and image sizes.
        target: PyTorch's device.
        threads: for what runs on the CPU.
        pixels: uint8 [H, W, 3] RGB, for an exporter that traces.
    """

    name: str
    reference: "Reference"
    spec: ModelSpec
    target: str
    threads: int
    pixels: Picture = field(repr=False)

    @property
    def device(self) -> str:
        """As the contestant has it."""
        return "cpu" if self._is_export else f"torch:{self.target}"

    @property
    def precision(self) -> str:
        """That of the weights, or of the arithmetic."""
        return "fp16" if self.name == "eager-fp16" else "fp32"

    @property
    def _is_export(self) -> bool:
        return self.name.startswith("torchvision-onnx")

    def open(self) -> Contestant:
        """See `Entry.open`."""
        from edgemask.benchmark import pytorch
        from edgemask.benchmark.legacy import TorchvisionOnnxContestant

        if self._is_export:
            paste = self.name == "torchvision-onnx"
            return TorchvisionOnnxContestant(self.reference, self.spec, self.pixels, self.threads, paste=paste)
        kinds = (pytorch.EagerContestant, pytorch.CompiledContestant, pytorch.HalfContestant)
        (kind,) = (kind for kind in kinds if kind.name == self.name)
        return kind(self.reference, self.spec, self.target)

    def job(self) -> dict[str, Any] | None:
        """See `Entry.job`: an export takes more memory than what is exported."""
        if self._is_export:
            return None
        source = {"source": self.reference.source, "weights": self.reference.weights}
        own = {"name": self.name, "spec": self.spec.to_json(), "target": self.target, "threads": self.threads}
        return source | own


def entry_of(job: dict[str, Any], pixels: Picture) -> FileEntry | ReferenceEntry:
    """The entry that gave a job."""
    if "path" in job:
        from edgemask.runtimes.options import RuntimeOptions

        return FileEntry(job["path"], job["device"], RuntimeOptions(**job["options"]))
    from edgemask.benchmark.pytorch import Reference

    spec = ModelSpec.from_json(job["spec"])
    reference = Reference(job["source"], job["weights"], spec.class_names)
    return ReferenceEntry(job["name"], reference, spec, job["target"], job["threads"], pixels)


def file_entries(
    models: Sequence[str | os.PathLike[str]],
    devices: Sequence[str],
    precisions: Sequence[str],
    options: "RuntimeOptions",
) -> list[FileEntry]:
    """Every model on every device with every precision, in this order.

    Raises:
        UsageError: nothing to measure, no such device or precision, or two words about the precision.
    """
    from edgemask.runtimes.devices import device_named

    if not models or not devices:
        raise UsageError("there is nothing to measure", "give at least one model and one device")
    if precisions and options.precision != "file":
        raise UsageError(
            f"precision {options.precision} is an option, and {', '.join(precisions)} stands beside it",
            "give every precision by --precision",
        )
    for device in devices:
        if device != "auto":
            device_named(device)
    choices = [replace(options, precision=precision) for precision in precisions] or [options]  # type: ignore[arg-type]
    return [FileEntry(os.fspath(path), device, choice) for path in models for device in devices for choice in choices]


class Attempts:
    """Does what may fail for one contestant without ending the others' benchmark.

    Attributes:
        refusals: those that could not be measured.
        errors: why, in the same order.
    """

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.errors: list[EdgemaskError] = []

    def of(self, entry: Entry, work: Callable[[], Result]) -> Result | None:
        """What `work` gives, or None where the contestant cannot be measured here.

        Raises:
            EdgemaskError: what is wrong with the benchmark itself, such as a file that is no model.
        """
        try:
            return work()
        except EdgemaskError as error:
            # A precision that a device does not have is one cell of the table; any other wrong option is in all cells.
            if not isinstance(error, _REFUSED) and not (isinstance(error, UsageError) and entry.precision != "file"):
                raise
            reason = " ".join(": ".join(filter(None, (error.problem, error.remedy))).split())
            self.refusals.append(Refusal(entry.name, entry.device, entry.precision, reason))
            self.errors.append(error)
            return None


@contextlib.contextmanager
def torch_threads(threads: int) -> "Iterator[None]":
    """Lets PyTorch use as many threads as the runtimes do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def import_runtimes() -> None:
    """Loads the libraries ahead, so that the first contestant's load time does not hold their import."""
    import edgemask.runtimes  # noqa: F401  # before openvino, whose telemetry it keeps out

    for name in ("onnxruntime", "openvino"):
        with contextlib.suppress(ImportError):
            __import__(name)
