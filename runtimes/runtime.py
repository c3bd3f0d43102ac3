"""What every runtime is: one class per library, one method, declared in one tuple (`edgemask.runtimes.devices`)."""

import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edgemask.checks import printable
from edgemask.errors import DeviceUnavailable, EdgemaskError, OutOfMemory, UsageError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.options import UNCACHED, RuntimeOptions
from edgemask.runtimes.profiles import NodeRun

Array = NDArray[Any]  # of the dtype that its name says

# What ONNX Runtime, CUDA, cuBLAS, OpenVINO, OpenCL and the C++ library say when there is no memory left.
_NO_MEMORY = re.compile(
    r"out of memory|bad_alloc|failed to allocate|cannot allocate|ALLOC_FAILED|BFCArena|CL_OUT_OF|ALLOCATION_FAILURE|"
    r"max size of memory object",
    re.IGNORECASE,
)
# What they say of an option that they do not know, or of its value.
_NO_OPTION = re.compile(
    r"unknown provider option|failed to parse provider option|unsupported property|not found property|"
    r"(invalid|wrong) value.{0,80}for property|wrong value of |could not read .{1,80} from str|\bstoi\b",
    re.IGNORECASE,
)
# Where in its own source files ONNX Runtime noticed it, and on which machine.
_PLACES = re.compile(r"^/\S+\.cc:\d+ .*?(?=\[ONNXRuntimeError\])|; (hostname|file|line|expr)=[^;]*")
_SOURCES = ("Exception from ", "Check '")
_WORDS_LIMIT = 500


class Runtime(ABC):
    """A model opened by a library on a device.

    Opening proves that the promised device is the one in use, and raises `DeviceUnavailable` otherwise: nothing falls
    back in silence.

    Attributes:
        device: the device in use.
        strays: what runs elsewhere, one line each; only where that was allowed.
    """

    device: str
    strays: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """Says why `target` cannot be used here, and what to do about it; None if it can, as far as can be told."""

    @abstractmethod
    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        """Opens a model that was read by `read_model`.

        Args:
            model: what to open.
            target: the library's name of the device.
            options: how to open it.
            fallback: allow that parts of the graph run elsewhere.

        Raises:
            UsageError: an option that this device does not have.
            DeviceUnavailable: the device cannot run this model here, or would not be the one in use.
            OutOfMemory: too little memory for it.
        """

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once.

        Args:
            inputs: the graph's inputs by name, as `Detector.run` takes them.

        Returns:
            The graph's outputs by name; they stay as they are when the graph runs again.

        Raises:
            DeviceUnavailable: the device failed.
            OutOfMemory: too large for it.
        """

    @property
    @abstractmethod
    def promised(self) -> tuple[str, ...]:
        """Names of what the heavy nodes have to run on, as `NodeRun.provider` has them."""

    @abstractmethod
    def profile(self, model: ModelFile, inputs: Mapping[str, Array]) -> tuple[NodeRun, ...]:
        """Says what each node does in a run, the second of two.

        The model is opened a second time for it: libraries take times only where that was asked for at opening.

        Args:
            model: the one that this runtime was opened with.
            inputs: as for `run`.

        Raises:
            DeviceUnavailable: the device failed.
            OutOfMemory: too little memory for both.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the model; the runtime cannot be used afterwards."""


def failure(what: str, error: Exception) -> EdgemaskError:
    """The exception of ours for what a library raised.

    Args:
        what: what was being done, for the message.
        error: the library's exception; of its words those that name its own source files are left out.
    """
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith(_SOURCES)]
    # They quote the names in the file.
    words = printable(_PLACES.sub("", " ".join(filter(None, lines)))) or type(error).__name__
    problem = f"{what}: {textwrap.shorten(words, _WORDS_LIMIT, placeholder=' ...')}"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(words):
        return OutOfMemory(problem, "use smaller images or a smaller batch")
    if _NO_OPTION.search(words) and "CUDA failure" not in words:  # of a GPU that does not start it says both
        return UsageError(problem, "give an option that the library knows, with a value that it takes")
    return DeviceUnavailable(problem, "`edgemask doctor` says what is wrong with a device and which others work")
