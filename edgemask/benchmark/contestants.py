"""Who takes part in a benchmark: each is timed from the outside, doing exactly what it does for a user."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Turn:
    """One image, once: milliseconds of each stage, and how many objects were found.

    `paste` is the time of pasting all masks afterwards: 0 where that is part of the inference, None where it was not
    done.
    """

    preprocess: float
    inference: float
    postprocess: float
    paste: float | None
    detections: int

    @property
    def total(self) -> float:
        """From the image in memory to what the contestant gives."""
        return self.preprocess + self.inference + self.postprocess

    @property
    def pasted(self) -> float | None:
        """The total with pasted masks."""
        return None if self.paste is None else self.total + self.paste


class Contestant(ABC):
    """One way from an image to detections.

    Attributes:
        name: what it is.
        device: where it runs.
        load: milliseconds that opening it took.
        canvas: (H, W) of the network input in its last turn; None where only the graph knows.
        pastes_itself: whether masks come pasted.
    """

    name: str
    device: str
    load: float
    canvas: tuple[int, int] | None = None
    pastes_itself = False

    @abstractmethod
    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """Detects on an image.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            paste: paste the masks too, and time it; ignored by one that cannot.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees what was opened; no turn may follow."""


class Lap:
    """When inference began and ended within a prediction, in seconds of `time.perf_counter`."""

    began = 0.0
    ended = 0.0

    def time(self, predict: Callable[[Picture], Detections], pixels: Picture, *, paste: bool) -> Turn:
        """Times a prediction that sets `began` and `ended` on its way."""
        started = time.perf_counter()
        found = predict(pixels)
        done = time.perf_counter()
        if paste and found.masks is not None:
            found.bitmaps()
        pasted = time.perf_counter()
        return Turn(
            preprocess=1000 * (self.began - started),
            inference=1000 * (self.ended - self.began),
            postprocess=1000 * (done - self.ended),
            paste=1000 * (pasted - done) if paste else None,
            detections=len(found),
        )


class FileContestant(Contestant):
    """A model file of ours, through `Detector.predict`.

    Args:
        path: the file.
        device: where to open it; see `edgemask.load`.

    Raises:
        ModelFileError: no sound model.
        DeviceUnavailable: the device cannot run it here.
    """

    def __init__(self, path: str | Path, device: str) -> None:
        from edgemask.runtimes import Detector, read_model

        contestant, lap = self, Lap()

        class TimedDetector(Detector):
            """Notes when the graph starts and ends within `predict`."""

            def run(self, images: NDArray[np.float32], *others: Any) -> dict[str, NDArray[np.generic]]:
                contestant.canvas = images.shape[2], images.shape[3]
                lap.began = time.perf_counter()
                outputs = super().run(images, *others)
                lap.ended = time.perf_counter()
                return outputs

        started = time.perf_counter()
        self._detector = TimedDetector(read_model(path), device)
        self.load = 1000 * (time.perf_counter() - started)
        self._lap = lap
        self.name = str(path)
        self.device = self._detector.device
        self.spec = self._detector.spec

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """See `Contestant.turn`."""
        return self._lap.time(self._detector.predict, pixels, paste=paste)

    def close(self) -> None:
        """See `Contestant.close`."""
        self._detector.close()
