"""Which of two models is faster on a device: they take turns, and only what the rounds agree on is believed.

On a machine that others use too, single times differ by half; of two turns in a row both meet the same neighbours.
"""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgemask.errors import UsageError
from edgemask.images import load_image
from edgemask.processors import let_threads_rest
from edgemask.runtimes import ModelFile
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import inputs_of
from edgemask.runtimes.runtime import Array, Runtime

SLOWER = 1.03  # times as long, from which on a difference that the rounds agree on counts
LEAST_ROUNDS = 6
MOST_ROUNDS = 30
ENOUGH_SECONDS = 12.0  # of rounds, from which on the least number of them will do
AGREEING = 0.75  # share of the rounds that have to be on the same side
PLAIN = 1.10  # a ratio, or its inverse, that four rounds show where all of them are on the same side
_PLAIN_ROUNDS = 4
# Worker threads of the model before may still spin for a few milliseconds, waiting for more work.


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models in turns on one device.

    Attributes:
        device: where.
        first: milliseconds of each round, of the graph alone.
        second: of the other model in the same rounds.
    """

    device: str
    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def milliseconds(self) -> tuple[float, float]:
        """The median of either."""
        return float(np.median(self.first)), float(np.median(self.second))

    @property
    def ratio(self) -> float:
        """The second's time as a multiple of the first's: the median of the rounds."""
        return float(np.median(self._ratios()))

    @property
    def clear(self) -> float:
        """The ratio where the rounds agree on which model is faster; else 1."""
        ratio = self.ratio
        return ratio if np.mean((self._ratios() > 1) == (ratio > 1)) >= AGREEING else 1.0

    def turned(self) -> "Comparison":
        """The same, with the second model as the first."""
        return Comparison(device=self.device, first=self.second, second=self.first)

    def to_record(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {"device": self.device, "first": list(self.first), "second": list(self.second)}

    @classmethod
    def from_record(cls, value: Any) -> Self:
        """Reads what `to_record` gave.

        Raises:
            TypeError, ValueError, KeyError: anything else.
        """
        first, second = (tuple(map(float, value[name])) for name in ("first", "second"))
        if len(first) != len(second) or not first or not min(first + second) > 0:
            raise ValueError("no rounds of two")
        return cls(device=str(value["device"]), first=first, second=second)

    def _ratios(self) -> Array:
        return np.divide(self.second, self.first)


def clear_ratio(comparisons: Sequence[Comparison]) -> float:
    """How many times as long the second model takes, over all devices: the geometric mean of what is clear."""
    return math.exp(sum(math.log(compared.clear) for compared in comparisons) / len(comparisons))


def compare_latency(first: ModelFile, second: ModelFile, device: str, images: Sequence[Path]) -> Comparison:
    """Lets two models take turns, as many rounds as it takes until one is seen to be faster, within bounds.

    Args:
        first: a model.
        second: another one, for the same inputs.
        device: where both run; see `edgemask.load`.
        images: one for each round, in turn; few, since each is run once before by either model.

    Raises:
        UsageError: no image, or models that take their proposals from the caller.
        ImageError: one cannot be read.
        DeviceUnavailable: the device cannot run a model here.
        OutOfMemory: too large for it.
    """
    if not images:
        raise UsageError("images: expected at least one to measure time on, got none", "name some")
    if first.spec.proposals == "input":
        raise UsageError("the model takes its proposals from the caller", "measure one that finds its own")
    inputs = [inputs_of(load_image(path), first.spec)[0] for path in images]
    with contextlib.ExitStack() as stack:
        runtimes = []
        for model in (first, second):
            runtime, _ = open_runtime(model, device)
            stack.callback(runtime.close)
            runtimes.append(runtime)
        for values in inputs:
            for runtime in runtimes:
                runtime.run(values)
        rounds = _take_turns(runtimes, inputs)
    return Comparison(device=runtimes[0].device, first=tuple(rounds[0]), second=tuple(rounds[1]))


def _take_turns(runtimes: Sequence[Runtime], inputs: Sequence[Mapping[str, Array]]) -> list[list[float]]:
    """Milliseconds of each round, of each model."""
    rounds: list[list[float]] = [[] for _ in runtimes]
    started = time.monotonic()
    while not is_enough(*rounds, seconds=time.monotonic() - started):
        number = len(rounds[0])
        # Which of them goes first changes from round to round: the second one finds the caches warm.
        order = range(len(runtimes)) if number % 2 else reversed(range(len(runtimes)))
        for index in order:
            let_threads_rest()
            began = time.perf_counter()
            runtimes[index].run(inputs[number % len(inputs)])
            rounds[index].append(1000 * (time.perf_counter() - began))
    return rounds


def is_enough(first: Sequence[float], second: Sequence[float], *, seconds: float) -> bool:
    """Whether the rounds so far will do: they show which is faster, or have taken long enough."""
    count = len(first)
    if count < _PLAIN_ROUNDS:
        return False
    ratios = np.divide(second, first)
    same_side = bool(np.all(ratios > 1) or np.all(ratios < 1))
    ratio = float(np.median(ratios))
    if same_side and max(ratio, 1 / ratio) >= PLAIN:
        return True
    return count >= LEAST_ROUNDS and (same_side or count >= MOST_ROUNDS or seconds >= ENOUGH_SECONDS)
