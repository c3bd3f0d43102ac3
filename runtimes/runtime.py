"""What every runtime is: one class per library, one method, declared in one tuple (`edgemask.runtimes.devices`)."""

import os
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemask.runtimes.modelfile import ModelFile

Array = NDArray[np.generic]


class Runtime(ABC):
    """A model opened by a library on a device.

    Opening proves that the promised device is the one in use, and raises `DeviceUnavailable` otherwise: nothing falls
    back in silence.
    """

    library: ClassVar[str]
    device: str

    @classmethod
    @abstractmethod
    def unavailable(cls, target: str) -> str | None:
        """One sentence with the remedy if `target` cannot be used here, else None."""

    @abstractmethod
    def __init__(self, model: ModelFile, target: str) -> None:
        """Opens a model that was read by `read_model`."""

    @abstractmethod
    def run(self, images: NDArray[np.float32], image_sizes: NDArray[np.int64]) -> dict[str, Array]:
        """Runs the graph once.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.

        Returns:
            The graph's outputs by name.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the model; the runtime cannot be used afterwards."""


def thread_count() -> int:
    """Processors that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
