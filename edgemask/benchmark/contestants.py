"""Who takes part in a benchmark: each is timed from the outside, doing exactly what it does for a user."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.spec import ModelSpec

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Turn:
    """One image, once: milliseconds of each stage, and how many objects were found.

    `paste` is the time of pasting all masks afterwards: 0 where that is part of the inference, None where it was not
    done. `decode` is that of reading and decoding the image file; None where there is none.
    """

    preprocess: float
    inference: float
    postprocess: float
    paste: float | None
    detections: int
    decode: float | None = None

    @property
    def total(self) -> float:
        """From the image in memory to what the contestant gives."""
        return self.preprocess + self.inference + self.postprocess

    @property
    def end_to_end(self) -> float | None:
        """From the image file on."""
        return None if self.decode is None else self.decode + self.total

    @property
    def pasted(self) -> float | None:
        """The total with pasted masks."""
        return None if self.paste is None else self.total + self.paste


class Contestant(ABC):
    """One way from images to detections.

    Every call comes back with its results in the memory of the processor, so that a GPU has finished by then.

    Attributes:
        name: what it is.
        device: where it runs.
        load: milliseconds that opening it took.
        spec: how it resizes images, and its thresholds.
        precision: the arithmetic asked for; see `ContestantResult`.
        sha256: of its file or weights.
        canvas: (H, W) of the network input in its last turn; None where only the graph knows.
        at_a_time: images that went through the network together at last; None where only the graph knows.
        batch: images that it takes at a time; None: any number.
        any_size: whether images of another size make another shape of the network's input.
        shared: whether several threads may call it at the same time.
        pastes_itself: whether masks come pasted.
    """

    name: str
    device: str
    load: float
    spec: ModelSpec
    precision = "file"
    sha256: str | None = None
    canvas: tuple[int, int] | None = None
    at_a_time: int | None = None
    batch: int | None = None
    any_size = False
    shared = False
    pastes_itself = False

    @abstractmethod
    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """Detects on an image.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            paste: paste the masks too, and time it; ignored by one that cannot.
        """

    @abstractmethod
    def predict(self, images: Sequence[Picture]) -> None:
        """Detects on images [H, W, 3] in one call, as a user would who has so many."""

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
