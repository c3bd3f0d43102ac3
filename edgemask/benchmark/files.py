"""Model files of ours as contestants."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.benchmark.contestants import Contestant, Lap, Picture, Turn
from edgemask.runs import file_digest

if TYPE_CHECKING:
    from edgemask.runtimes.options import RuntimeOptions


class FileContestant(Contestant):
    """A model file, through `Detector.predict`.

    A runtime gives its outputs as arrays in the processor's memory: a run is over when it returns, on a GPU too.

    Args:
        path: the file.
        device: where to open it; see `edgemask.load`.
        options: how; see `edgemask.load`.

    Raises:
        ModelFileError: no sound model.
        UsageError: an option that the device does not have.
        DeviceUnavailable: the device cannot run it here.
    """

    shared = True

    def __init__(self, path: str | Path, device: str, options: "RuntimeOptions | None" = None) -> None:
        from edgemask.runtimes import Detector, read_model
        from edgemask.runtimes.options import RuntimeOptions

        contestant, lap = self, Lap()

        class TimedDetector(Detector):
            """Notes when the graph starts and ends within `predict`."""

            def run(self, images: NDArray[np.float32], *others: Any) -> dict[str, NDArray[np.generic]]:
                contestant.at_a_time = images.shape[0]
                contestant.canvas = images.shape[2], images.shape[3]
                lap.began = time.perf_counter()
                outputs = super().run(images, *others)
                lap.ended = time.perf_counter()
                return outputs

        options = RuntimeOptions() if options is None else options
        started = time.perf_counter()
        self._detector = TimedDetector(read_model(path), device, options=options)
        self.load = 1000 * (time.perf_counter() - started)
        self._lap = lap
        self.name = str(path)
        self.device = self._detector.device
        self.precision = options.precision
        self.sha256 = file_digest(path)
        self.spec = self._detector.spec
        self.batch = self.spec.batch
        self.any_size = self.spec.canvas is None

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """See `Contestant.turn`."""
        return self._lap.time(self._detector.predict, pixels, paste=paste)

    def predict(self, images: Sequence[Picture]) -> None:
        """See `Contestant.predict`."""
        self._detector.predict(list(images))

    def close(self) -> None:
        """See `Contestant.close`."""
        self._detector.close()
