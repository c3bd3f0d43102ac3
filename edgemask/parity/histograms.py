"""Numbers of which only their sum, their extremes and their distribution are kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 20  # of equal width, from 0 to 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """How values between 0 and 1 are spread.

    Attributes:
        name: what was counted.
        counts: by series, how many values lie in each of `BINS` equal parts of 0 to 1; the last one includes 1.
    """

    name: str
    counts: Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class Tally:
    """A stream of numbers. Mean, least and most are NaN where there was none."""

    count: int = 0
    total: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    _bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float64]) -> None:
        """Takes some numbers in."""
        if not len(values):
            return
        self.count += len(values)
        self.total += float(values.sum())
        self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))
        self._bins += np.bincount((values * BINS).clip(0, BINS - 1).astype(np.int64), minlength=BINS)

    @property
    def mean(self) -> float:
        """Of all numbers."""
        return self.total / self.count if self.count else math.nan

    @property
    def least(self) -> float:
        """The lowest number."""
        return self.lowest if self.count else math.nan

    @property
    def most(self) -> float:
        """The highest number."""
        return self.highest if self.count else math.nan

    @property
    def bins(self) -> tuple[int, ...]:
        """How many numbers lie in each part of 0 to 1; what lies outside is in the first or the last one."""
        return tuple(self._bins.tolist())
