"""What the processes of a spawned pool run: each opens the model for itself."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgemask
from edgemask.runtimes import Detector, RuntimeOptions

_detector: Detector | None = None


def open_model(path: Path) -> None:
    """Initialiser of a pool."""
    global _detector
    _detector = edgemask.load(path, device="cpu", options=RuntimeOptions(threads=1))


def scores_of(image: NDArray[np.uint8]) -> list[float]:
    """Task of a pool."""
    assert _detector is not None
    scores: list[float] = _detector.predict(image).scores.tolist()
    return scores
