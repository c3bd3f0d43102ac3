"""Percentiles that the number of values can bear, drift, and MLPerf's early stopping against scipy's binomial."""

import numpy as np
import pytest
from scipy.stats import binom

from edgemask.benchmark.percentiles import drift, early_stop, percentile, timing


def test_a_percentile_needs_a_value_above_it() -> None:
    assert percentile(range(9), 90) is None
    assert percentile(range(10), 90) == pytest.approx(8.1)
    assert percentile(range(99), 99) is None
    assert percentile(range(100), 99) == pytest.approx(98.01)
    assert percentile([7.0, 1.0], 50) == 4.0


def test_timing() -> None:
    own = timing([*range(1, 101)], [101.0, 99.0, 1000.0])
    assert (own.median, own.p90, own.p99) == (50.5, pytest.approx(90.1), pytest.approx(99.01))
    assert own.ratio == 0.5
    assert timing([1.0], [0.0]).ratio is None


def test_drift_is_the_last_tenth_over_the_first() -> None:
    steady = [10.0] * 30
    assert drift(steady) == 1.0
    assert drift([10.0, 10.0, 10.0, *[11.0] * 24, 12.0, 13.0, 50.0]) == 1.3
    assert drift(steady[:19]) is None
    assert drift([0.0] * 20) is None


@pytest.mark.parametrize(("percent", "needed"), [(90, 64), (99, 662)])
def test_early_stopping_needs_as_many_queries_as_the_rules_say(percent: int, needed: int) -> None:
    short = early_stop([1.0] * (needed - 1), percent)
    assert (short.needed, short.dropped, short.estimate) == (needed, None, None)
    latencies = [float(value) for value in range(needed)]
    # Of so few, the longest one is the estimate.
    assert early_stop(latencies[::-1], percent).estimate == needed - 1
    assert early_stop(latencies, percent).dropped == 0


@pytest.mark.parametrize("count", [64, 80, 81, 97, 500, 3000])
@pytest.mark.parametrize("percent", [90, 99])
def test_early_stopping_is_the_binomial_test(count: int, percent: int) -> None:
    values = np.random.default_rng(count).permutation(count).astype(float)
    chances = binom.cdf(np.arange(count + 1), count, 1 - percent / 100)
    allowed = int(np.searchsorted(chances, 0.01, side="right")) - 1
    found = early_stop(list(values), percent)
    if allowed < 1:
        assert found.estimate is None
    else:
        assert found.dropped == allowed - 1
        assert found.estimate == count - allowed
        assert chances[allowed] <= 0.01 < chances[allowed + 1]


def test_early_stopping_of_a_long_run() -> None:
    """The chance of no slow query in 60,000 is smaller than a float can be."""
    found = early_stop([float(value) for value in range(60_000)], 90)
    allowed = int(binom.ppf(0.01, 60_000, 0.1))
    assert found.dropped is not None
    assert abs(found.dropped + 1 - allowed) <= 1
    assert found.estimate == 60_000 - (found.dropped + 1)
