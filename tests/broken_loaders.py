"""Image loaders with a fault each, for the checks that have to notice it; a child process can import them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import ImageError


def untyped(path: Path) -> NDArray[np.uint8]:
    """Lets the decoder's own error out."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def crashing(path: Path) -> NDArray[np.uint8]:
    """Ends the process as an overflow in a decoder does."""
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("unreachable")


def hanging(path: Path) -> NDArray[np.uint8]:
    """Does not come back."""
    time.sleep(60)
    raise AssertionError("unreachable")


def slow(path: Path) -> NDArray[np.uint8]:
    """Refuses, but later than it could."""
    time.sleep(0.15)
    raise ImageError("no image")


def wasteful(path: Path) -> NDArray[np.uint8]:
    """Refuses, but takes 300 MiB before."""
    taken = np.ones(300 << 20, np.uint8)
    raise ImageError(f"no image: {len(taken)}")


def credulous(path: Path) -> NDArray[np.uint8]:
    """Takes anything for a picture."""
    return np.zeros((3, 4, 3), np.uint8)


def careless(path: Path) -> Any:
    """Gives nothing, and says nothing."""
    return None
