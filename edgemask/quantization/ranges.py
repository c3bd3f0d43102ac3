"""Histograms of tensors that grow with the values seen, and the range that eight bits are spread over."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, refuse
from edgemask.quantization.recipes import Recipe

BINS = 4096  # on either side of zero; of these more than half lie within the largest magnitude
LEVELS = 255  # steps of eight bits
SYMMETRIC_LEVELS = 254  # of -127 ... 127
# Below this a scale could become a denormal number, or a product of two zero.
LEAST_WIDTH = 1e-20

_FIRST_EXTENT = 2.0**-20
_CANDIDATES = 128  # ranges that are compared at a time
_NARROWEST = 0.05  # of a side, that the least squared error is sought in
_ABSENT = 1e-12  # stands for a probability of zero in a logarithm

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Range = tuple[float, float]


class Histogram:
    """How often the values of a tensor lie where: `BINS` equal bins on either side of zero, and the exact extremes.

    The outermost edge is a power of two. It doubles, and adjacent bins become one, when a larger value comes; so memory
    is bounded whatever comes, and the order in which values come changes nothing.

    Attributes:
        low: least value seen; 0 where nothing was.
        high: greatest value seen.
        extent: outermost edge; values lie in -extent < v < extent.
        counts: int64 [2 * BINS], from -extent on. A bin holds its lower edge, and not its upper one.
    """

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 0.0
        self.extent = _FIRST_EXTENT
        self.counts: Counts = np.zeros(2 * BINS, np.int64)

    @property
    def total(self) -> int:
        """Values counted; 0 for a tensor that was empty on every image."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.extent / BINS

    def add(self, sample: NDArray[np.float32], low: float, high: float) -> None:
        """Counts values of a tensor.

        Args:
            sample: float32 [N], some of them or all; none of no values leaves everything as it is.
            low: the least of all, those outside the sample too.
            high: the greatest.

        Raises:
            UsageError: values that are not numbers, or beyond the extremes.
        """
        if sample.size == 0:
            return
        least, greatest = float(sample.min()), float(sample.max())
        if not -np.inf < low <= least <= greatest <= high < np.inf:
            refuse("sample", f"numbers from {low:g} to {high:g}", Described(f"{least:g} to {greatest:g}"))
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self.total else (low, high)
        while max(-low, high) >= self.extent:
            self._double()
        # A product with a power of two rounds nothing: a value lies in the same bin now and after any doubling.
        places = np.floor(sample.astype(np.float64) / self.width).astype(np.int64) + BINS
        self.counts += np.bincount(places, minlength=2 * BINS)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Returns what `from_arrays` takes: `bounds` float64 [3] of low, high and extent, and `counts`."""
        return {"bounds": np.array([self.low, self.high, self.extent]), "counts": self.counts}

    @classmethod
    def from_arrays(cls, bounds: NDArray[Any], counts: NDArray[Any]) -> "Histogram":
        """Makes a histogram of what `to_arrays` gave.

        Raises:
            UsageError: anything else.
        """
        for name, array, dtype, shape in (
            ("bounds", bounds, np.float64, (3,)),
            ("counts", counts, np.int64, (2 * BINS,)),
        ):
            if array.dtype != dtype or array.shape != shape:
                refuse(name, f"{np.dtype(dtype)} {list(shape)}", Described(f"{array.dtype} {list(array.shape)}"))
        low, high, extent = map(float, bounds)
        # Every entry is compared alone first: a sum of huge ones could pass the type.
        if (counts < 0).any() or (counts > 1 << 48).any():
            refuse("counts", f"numbers from 0 to {1 << 48}", Described(f"{counts.min()} to {counts.max()}"))
        if not -extent < low <= high < extent < np.inf or np.frexp(extent)[0] != 0.5 or extent < _FIRST_EXTENT:
            refuse("bounds", "low <= high within a power of two", Described(f"{low:g}, {high:g}, {extent:g}"))
        own = cls()
        own.low, own.high, own.extent, own.counts = low, high, extent, counts.copy()
        return own

    def _double(self) -> None:
        merged = self.counts.reshape(BINS, 2).sum(1)
        self.counts = np.zeros_like(self.counts)
        self.counts[BINS // 2 : BINS // 2 + BINS] = merged
        self.extent *= 2


def value_range(histogram: Histogram, recipe: Recipe) -> Range:
    """Says from which value to which a tensor is quantized.

    Args:
        histogram: of its values.
        recipe: `method`, `percentile` and `symmetric` are used.

    Returns:
        Low <= 0 and high >= 0, neither beyond the extremes seen, and not equal: a range of zeros alone, or of a tensor
        that was always empty, is made 1 wide. Symmetric: low is -high.
    """
    low, high = _METHODS[recipe.method](histogram, recipe)
    low, high = float(max(min(low, 0), min(histogram.low, 0))), float(min(max(high, 0), max(histogram.high, 0)))
    if high - low < LEAST_WIDTH:
        low, high = 0.0, 1.0
    reach = max(-low, high)
    return (-reach, reach) if recipe.symmetric else (low, high)


def clipped_share(histogram: Histogram, low: float, high: float) -> float:
    """Returns the share, 0-1, of the values that a range leaves out; those of a bin that it cuts count as inside."""
    edges = _edges(histogram)
    below = 0 if low <= histogram.low else int(histogram.counts[edges[1:] <= low].sum())
    above = 0 if high >= histogram.high else int(histogram.counts[edges[:-1] >= high].sum())
    return (below + above) / max(histogram.total, 1)


def _edges(histogram: Histogram) -> Floats:
    return np.arange(-BINS, BINS + 1, dtype=np.float64) * histogram.width


def _extremes(histogram: Histogram, recipe: Recipe) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, recipe: Recipe) -> Range:
    """The outer edges of the bins in which the percentiles of either side lie."""
    if histogram.total == 0 or recipe.percentile == 100:
        return _extremes(histogram, recipe)
    share = recipe.percentile / 100
    edges, total = _edges(histogram), histogram.total
    upper = int(np.searchsorted(np.cumsum(histogram.counts), share * total))
    lower = int(np.searchsorted(np.cumsum(histogram.counts[::-1]), share * total))
    return float(edges[2 * BINS - 1 - lower]), float(edges[upper + 1])


def _least_squares(histogram: Histogram, recipe: Recipe) -> Range:
    """The range of least squared error: one side is moved while the other is held, in two rounds, the second finer."""
    present = np.flatnonzero(histogram.counts)
    values: Floats = (present.astype(np.float64) - BINS + 0.5) * histogram.width
    counts = histogram.counts[present].astype(np.float64)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if recipe.symmetric:
        reach = max(-low, high) * np.linspace(_NARROWEST, 1, 2 * _CANDIDATES)
        best = float(reach[np.argmin(_errors(values, counts, -reach, reach, SYMMETRIC_LEVELS))])
        return -best, best
    steps = np.linspace(_NARROWEST, 1, _CANDIDATES)
    for _ in range(2):
        sides = np.minimum(high * steps, max(histogram.high, 0.0))
        high = float(sides[np.argmin(_errors(values, counts, np.full_like(sides, low), sides, LEVELS))])
        sides = np.maximum(low * steps, min(histogram.low, 0.0))
        low = float(sides[np.argmin(_errors(values, counts, sides, np.full_like(sides, high), LEVELS))])
        steps = np.linspace(0.9, 1.1, _CANDIDATES // 4 + 1)
    return low, high


def _errors(values: Floats, counts: Floats, low: Floats, high: Floats, levels: int) -> Floats:
    """Squared errors, float64 [C], of values [V] that come so often, quantized to each of the ranges [C]."""
    scale = np.maximum(high - low, LEAST_WIDTH) / levels
    zero = np.round(-low / scale)
    errors = np.empty(len(scale))
    for index in range(len(scale)):  # one at a time stays in the cache
        quantized = np.clip(np.round(values / scale[index]), -zero[index], levels - zero[index])
        errors[index] = np.square(quantized * scale[index] - values) @ counts
    return errors


def _least_divergence(histogram: Histogram, recipe: Recipe) -> Range:
    """As TensorRT's calibration: of what is left when values beyond +-t are clipped, the t of which least is lost.

    Both tails are clipped at the same distance from zero, as far as they reach.
    """
    if histogram.total == 0:
        return _extremes(histogram, recipe)
    counts = histogram.counts.copy()
    # Zeros, of which a Relu makes half of all values, are exact at any scale: there is nothing about them to lose.
    counts[BINS] = min(counts[BINS], counts[BINS + 1])
    present = np.flatnonzero(histogram.counts) - BINS
    first, last = min(int(present[0]), 0), max(int(present[-1]) + 1, 0)
    reach = max(-first, last)
    if recipe.symmetric:
        first, last = -reach, reach
    limits = np.unique(np.linspace(min(LEVELS, reach), reach, _CANDIDATES).astype(np.int64)).tolist()
    losses = [_divergence(counts, BINS + max(first, -limit), BINS + min(last, limit)) for limit in limits]
    best = int(np.argmin(losses))
    if best == len(limits) - 1:
        return _extremes(histogram, recipe)
    return -limits[best] * histogram.width, limits[best] * histogram.width


def _divergence(counts: Counts, start: int, stop: int) -> float:
    """Of the counts, clipped to some bins, from the same at `LEVELS` levels (Kullback and Leibler)."""
    inside = counts[start:stop].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    level = np.arange(len(inside)) * LEVELS // len(inside)
    present = inside > 0
    sums = np.bincount(level, inside, LEVELS) / np.maximum(np.bincount(level, present, LEVELS), 1)
    coarse = np.where(present, sums[level], 0)
    some = clipped > 0
    exact, rounded = clipped[some] / max(clipped.sum(), 1), coarse[some] / max(coarse.sum(), 1)
    return float((exact * np.log(exact / np.maximum(rounded, _ABSENT))).sum())


_METHODS: dict[str, Callable[[Histogram, Recipe], Range]] = {
    "minmax": _extremes,
    "percentile": _percentile,
    "entropy": _least_divergence,
    "mse": _least_squares,
}
