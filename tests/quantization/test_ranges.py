"""Histograms against numpy's, and each way to a range against a case whose answer is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.errors import UsageError
from edgemask.quantization.ranges import BINS, Histogram, clipped_share, value_range
from edgemask.quantization.recipes import METHODS, Recipe


def counted(*samples: Any) -> Histogram:
    histogram = Histogram()
    for sample in samples:
        values = np.asarray(sample, np.float32)
        histogram.add(values, float(values.min()), float(values.max()))
    return histogram


def ranged(histogram: Histogram, method: Any, **options: Any) -> tuple[float, float]:
    return value_range(histogram, Recipe(name="a", method=method, **options))


def normal(count: int = 200_000, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, count).astype(np.float32)


def test_counts_are_those_of_numpy() -> None:
    samples = [normal(5000, seed) * scale for seed, scale in enumerate((0.01, 3, 0.5, 40))]
    histogram = counted(*samples)
    every = np.concatenate(samples)
    edges = np.linspace(-histogram.extent, histogram.extent, 2 * BINS + 1)
    assert np.array_equal(histogram.counts, np.histogram(every.astype(np.float64), edges)[0])
    assert histogram.total == len(every)
    assert (histogram.low, histogram.high) == (every.min(), every.max())
    assert histogram.extent / 2 <= np.abs(every).max() < histogram.extent


def test_order_changes_nothing_and_memory_stays() -> None:
    samples = [np.array([value, -value / 3], np.float32) for value in (1, 1e-30, 0.25, 3e38, 7, 2**20, 2**-9)]
    one, other = counted(*samples), counted(*samples[::-1])
    assert np.array_equal(one.counts, other.counts)
    assert (one.low, one.high, one.extent) == (other.low, other.high, other.extent)
    assert one.counts.nbytes == Histogram().counts.nbytes == 16 * BINS


def test_extremes_are_of_all_values_not_of_the_sample() -> None:
    histogram = Histogram()
    histogram.add(np.array([1, 2], np.float32), 0.5, 9)
    assert (histogram.low, histogram.high) == (0.5, 9)
    histogram.add(np.array([3], np.float32), 3, 3)
    assert (histogram.low, histogram.high) == (0.5, 9)
    assert ranged(histogram, "minmax") == (0, 9)


def test_no_values_change_nothing() -> None:
    histogram = counted([2, 3])
    histogram.add(np.zeros(0, np.float32), np.inf, -np.inf)
    assert (histogram.low, histogram.high, histogram.total) == (2, 3, 2)


@pytest.mark.parametrize(
    ("sample", "low", "high"), [([np.nan, 1], 0, 1), ([1], 0, np.inf), ([1], 2, 3), ([4], 2, 3), ([1], np.nan, 3)]
)
def test_refuses_what_are_no_numbers_within_the_extremes(sample: list[float], low: float, high: float) -> None:
    histogram = Histogram()
    with pytest.raises(UsageError, match="sample: expected numbers from"):
        histogram.add(np.array(sample, np.float32), low, high)
    assert histogram.total == 0


def test_there_and_back() -> None:
    histogram = counted(normal(1000))
    again = Histogram.from_arrays(**histogram.to_arrays())
    assert (again.low, again.high, again.extent) == (histogram.low, histogram.high, histogram.extent)
    assert np.array_equal(again.counts, histogram.counts)
    again.add(np.array([100], np.float32), 100, 100)
    assert histogram.total == 1000


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [
        (np.zeros(2), np.zeros(2 * BINS, np.int64)),
        (np.array([0, 1, 2.0]), np.zeros(2 * BINS, np.int32)),
        (np.array([0, 1, 2.0]), np.full(2 * BINS, -1)),
        (np.array([0, 1, 2.0]), np.full(2 * BINS, 2**62)),
        (np.array([0, 1, 3.0]), np.zeros(2 * BINS, np.int64)),
        (np.array([1, 0, 2.0]), np.zeros(2 * BINS, np.int64)),
        (np.array([0, 2, 2.0]), np.zeros(2 * BINS, np.int64)),
        (np.array([np.nan, 1, 2.0]), np.zeros(2 * BINS, np.int64)),
        (np.array([0, 1, np.inf]), np.zeros(2 * BINS, np.int64)),
    ],
)
def test_refuses_arrays_that_are_no_histogram(bounds: NDArray[Any], counts: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match=r"^(bounds|counts): expected"):
        Histogram.from_arrays(bounds, counts)


def test_min_max_is_exact_and_holds_zero() -> None:
    assert ranged(counted([-1.25, 3.3]), "minmax") == (-1.25, float(np.float32(3.3)))
    assert ranged(counted([2, 5]), "minmax") == (0, 5)
    assert ranged(counted([-4, -3]), "minmax") == (-4, 0)
    assert ranged(counted([-1, 3]), "minmax", symmetric=True) == (-3, 3)


def test_percentile_leaves_out_as_much_as_it_says() -> None:
    values = np.linspace(-1, 3, 100_001, dtype=np.float32)
    histogram = counted(values)
    low, high = ranged(histogram, "percentile", percentile=90)
    assert (low, high) == pytest.approx((-0.6, 2.6), abs=2 * histogram.width)
    assert ranged(histogram, "percentile", percentile=90, symmetric=True) == (-high, high)
    assert ranged(histogram, "percentile", percentile=100) == (-1, 3)
    # A side without values stays 0, and an edge of a bin is not taken for more than was seen.
    assert ranged(counted(values[values >= 0]), "percentile", percentile=99.99)[0] == 0
    assert ranged(counted([1, 3.0001]), "percentile")[1] == float(np.float32(3.0001))


def squared_error(values: NDArray[np.float32], low: float, high: float, levels: int = 255) -> float:
    scale = (high - low) / levels
    zero = round(-low / scale)
    quantized = np.clip(np.round(values / scale), -zero, levels - zero) * scale
    return float(np.square(quantized - values).mean())


def test_least_squares_of_a_normal_distribution() -> None:
    """Banner and others (2019) have 5.06 standard deviations for Laplace and 3.92 for normal at 8 bits: about 4."""
    values = normal()
    histogram = counted(values)
    low, high = ranged(histogram, "mse", symmetric=True)
    assert low == -high
    assert high == pytest.approx(3.92, abs=0.15)
    grid = np.linspace(2, 5, 61)
    least = min(squared_error(values, -t, t, 254) for t in grid)
    assert squared_error(values, low, high, 254) <= 1.01 * least


def test_least_squares_moves_each_side_by_its_own() -> None:
    values = np.abs(normal(40_000))
    values[:2] = (6, -3)  # what is rare and far out is clipped on either side, and not as far on both
    low, high = ranged(counted(values), "mse")
    assert -2.9 < low < 0
    assert 3 < high < 5.9
    least = min(squared_error(values, a, b) for a in np.linspace(-3, 0, 16) for b in np.linspace(3, 6, 16))
    assert squared_error(values, low, high) <= 1.01 * least


def test_least_squares_keeps_what_is_uniform() -> None:
    low, high = ranged(counted(np.linspace(-2, 6, 100_000)), "mse")
    assert (low, high) == pytest.approx((-2, 6), rel=0.02)


def test_entropy_clips_an_outlier_and_keeps_what_is_uniform() -> None:
    values = normal()
    assert ranged(counted(np.linspace(-2, 6, 400_000)), "entropy") == (-2, 6)
    values[0] = 60
    low, high = ranged(counted(values), "entropy")
    assert -60 < low < -3
    assert 3 < high < 10
    assert ranged(counted(values), "entropy", symmetric=True)[1] < 10
    assert ranged(counted(values, -values), "entropy")[0] > -10


def test_entropy_forgets_about_zeros() -> None:
    """As many zeros as one likes, which are exact at any scale, do not make the range another one."""
    values = np.abs(normal())
    few, many = counted(values), counted(values, np.zeros(5 * len(values)))
    assert ranged(many, "entropy") == ranged(few, "entropy")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_is_usable_whatever_was_seen(method: str, symmetric: bool) -> None:
    unit = (-1, 1) if symmetric else (0, 1)
    for nothing in (Histogram(), counted([0, 0, 0]), counted([1e-30, 0])):
        assert ranged(nothing, method, symmetric=symmetric) == unit
    for values in ([7], [7, 7, 7], [-7], [1e-9], [3e38, -3e38]):
        low, high = ranged(counted(values), method, symmetric=symmetric)
        assert low <= 0 <= high
        assert high > low
        if symmetric:
            assert low == -high
        else:
            assert low >= min(np.float32(values).min(), 0)
            assert high <= max(np.float32(values).max(), 0)


@pytest.mark.parametrize("method", METHODS)
def test_one_value_is_kept(method: str) -> None:
    assert ranged(counted([7.0] * 50), method) == pytest.approx((0, 7), rel=0.01)
    assert ranged(counted([-7.0] * 50), method) == pytest.approx((-7, 0), rel=0.01)


def test_clipped_share() -> None:
    values = np.linspace(-1, 3, 40_001)
    histogram = counted(values)
    for low, high in ((-1, 3), (-0.5, 3), (-1, 1), (0, 0), (-0.25, 2.75)):
        share = np.mean((values < low) | (values > high))
        assert clipped_share(histogram, low, high) == pytest.approx(share, abs=1e-3)
    assert clipped_share(histogram, *ranged(histogram, "minmax")) == 0
    assert clipped_share(histogram, -100, 100) == 0
    assert clipped_share(Histogram(), 0, 1) == 0
