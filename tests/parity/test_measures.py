"""Values beside their limits."""

import math

import pytest

from edgemask.parity import Measure


@pytest.mark.parametrize(
    ("measure", "failure"),
    [
        (Measure("matched share", 0.992, 0.999, unit="%"), "matched share 99.2 % is below 99.9 %"),
        (Measure("matched share", 0.99899, 0.999, unit="%"), "matched share 99.899 % is below 99.9 %"),
        (Measure("matched share", 0.999, 0.999, unit="%"), None),
        (Measure("distance", 0.75, 0.5, "most", "px"), "distance 0.75 px is above 0.5 px"),
        (Measure("distance", 0.5, 0.5, "most", "px"), None),
        (Measure("mean mask IoU", math.nan, 0.995), "mean mask IoU could not be measured, 0.995 is asked"),
        (Measure("mean mask IoU", math.nan), None),
    ],
)
def test_measures(measure: Measure, failure: str | None) -> None:
    assert measure.failure == failure
    assert measure.passed is (failure is None)
