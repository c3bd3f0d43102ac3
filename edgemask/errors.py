"""Everything that edgemask raises on purpose.

EdgemaskError                     exit code
├── UsageError (ValueError)       2   an argument, option or array that cannot be meant
├── UnsupportedModel              2   a PyTorch model with a part that the exporter cannot carry
├── ModelFileError                2   a file that is no sound edgemask model, checkpoint or stored run
├── ImageError                    2   a file or array that is no usable image
├── DatasetError                  2   annotations or images that do not fit together
├── CalibrationError              2   images from which no quantization range can be taken
├── ForkedProcessError            2   a detector used in a child process made by fork
├── ParityError                   1   the exported model does not do what the PyTorch model does
├── BrokenOutput                  1   a model that gave something that is no result
├── DependencyMissing             3   a Python package that this task needs is missing, or too old to be safe
├── DeviceUnavailable             3   the device asked for cannot run this model here
├── OutOfMemory                   3   the device has too little memory for this input
└── OutputError                   3   a file could not be written; what was there before is intact

A message says what was wrong, with the value received; the remedy says what to do about it.
"""

from typing import ClassVar


class EdgemaskError(Exception):
    """Base of all errors of this package.

    Args:
        problem: what was wrong, naming the value received.
        remedy: what the user can do about it; printed on a line of its own.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem if remedy is None else f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["EdgemaskError"], tuple[str, str | None]]:
        return type(self), (self.problem, self.remedy)


class UsageError(EdgemaskError, ValueError):
    """An argument, option or array that cannot be meant."""

    exit_code = 2


class UnsupportedModel(EdgemaskError):
    """A PyTorch model with a part that the exporter cannot carry."""

    exit_code = 2


class ModelFileError(EdgemaskError):
    """A file that is no sound edgemask model, checkpoint or stored run."""

    exit_code = 2


class ImageError(EdgemaskError):
    """A file or array that is no usable image."""

    exit_code = 2


class DatasetError(EdgemaskError):
    """Annotations or images that do not fit together."""

    exit_code = 2


class CalibrationError(EdgemaskError):
    """Images from which no quantization range can be taken."""

    exit_code = 2


class ForkedProcessError(EdgemaskError):
    """A detector used in a child process made by fork."""

    exit_code = 2


class ParityError(EdgemaskError):
    """The exported model does not do what the PyTorch model does."""

    exit_code = 1


class BrokenOutput(EdgemaskError):
    """A model that gave something that is no result."""

    exit_code = 1


class DependencyMissing(EdgemaskError):
    """A Python package that this task needs is missing, or too old to be safe."""

    exit_code = 3


class DeviceUnavailable(EdgemaskError):
    """The device asked for cannot run this model here."""

    exit_code = 3


class OutOfMemory(EdgemaskError):
    """The device has too little memory for this input."""

    exit_code = 3


class OutputError(EdgemaskError):
    """A file could not be written; what was there before is intact."""

    exit_code = 3
