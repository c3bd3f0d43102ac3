"""Percentiles that the number of values can bear."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemask.benchmark.records import Timing

CONFIDENCE = 0.99  # of MLPerf's early stopping
_DRIFT_FROM = 20  # values, so that a tenth has two


def percentile(values: Sequence[float], percent: int) -> float | None:
    """A percentile, by linear interpolation; None where no value lies above it.

    Of fewer than 10 values the 90th would be an extrapolation, of fewer than 100 the 99th.
    """
    if len(values) * (100 - percent) < 100:
        return None
    return float(np.percentile(values, percent))


def timing(values: Sequence[float], first: Sequence[float]) -> Timing:
    """The figures of one stage.

    Args:
        values: milliseconds of the rounds, at least one.
        first: those of the first contestant.
    """
    median, unit = float(np.median(values)), float(np.median(first))
    ratio = median / unit if unit > 0 else None
    return Timing(median, percentile(values, 90), percentile(values, 99), ratio)


def drift(values: Sequence[float]) -> float | None:
    """Median of the last tenth as a multiple of that of the first tenth, in the order of time; None for too few."""
    tenth = len(values) // 10
    if len(values) < _DRIFT_FROM:
        return None
    before = float(np.median(values[:tenth]))
    return float(np.median(values[-tenth:])) / before if before > 0 else None


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """An estimate of a percentile that is too low in at most one of a hundred runs.

    Attributes:
        needed: how many values it takes.
        dropped: how many of the longest were left out; None for too few values.
        estimate: the longest of the others.
    """

    needed: int
    dropped: int | None
    estimate: float | None


def early_stop(latencies: Sequence[float], percent: int) -> EarlyStop:
    """MLPerf's early stopping of the single-stream and multi-stream scenarios.

    Let t be the largest number for which t or fewer of n queries above the percentile have a chance of at most 0.01:
    the t - 1 longest are dropped, and the longest of the others is the estimate. Source: mlcommons/inference,
    `loadgen/early_stopping.cc` and `loadgen/results.cc`, with a tolerance of 0.

    Args:
        latencies: of the queries, in any order.
        percent: which percentile.
    """
    above = 1 - percent / 100
    allowed = _most_above(len(latencies), above)
    if allowed < 1:
        return EarlyStop(_queries_needed(above), None, None)
    estimate = float(np.sort(np.asarray(latencies, np.float64))[len(latencies) - allowed])
    return EarlyStop(_queries_needed(above), allowed - 1, estimate)


def _most_above(count: int, share: float) -> int:
    """The most values t that may lie above, of `count`, each with the chance `share`: P(X <= t) <= 0.01; -1: none."""
    total, most = 0.0, -1
    for above in range(count + 1):
        # By logarithms: the chance of none in a thousand queries is smaller than a float can be.
        chance = math.lgamma(count + 1) - math.lgamma(above + 1) - math.lgamma(count - above + 1)
        chance += above * math.log(share) + (count - above) * math.log1p(-share)
        total += math.exp(chance)
        if total > 1 - CONFIDENCE:
            return most
        most = above
    return most


def _queries_needed(share: float) -> int:
    """The fewest values of which one may lie above."""
    count = 1
    while _most_above(count, share) < 1:
        count += 1
    return count
