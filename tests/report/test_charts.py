"""Shapes of the charts: nothing that was counted is too small to be seen, and a meter's end is its limit."""

import itertools
import math

import pytest

from edgemask.parity import Histogram, Measure
from edgemask.parity.histograms import BINS
from edgemask.report.charts import HEIGHT, WIDTH, chart, log_meter, meter, used


def bins(**counts: int) -> tuple[int, ...]:
    """Counts by the number of their bin: `_19=5`."""
    values = {int(name[1:]): count for name, count in counts.items()}
    return tuple(values.get(number, 0) for number in range(BINS))


def test_one_of_a_million_is_seen() -> None:
    drawn = chart(Histogram("box IoU", {"pairs": bins(_3=1, _19=1_000_000)}))
    assert drawn.is_log
    small, large = drawn.series[0].bars
    assert small.height >= 5
    assert small.height < large.height
    assert [label for _, label in drawn.rows] == ["1", "100", "10,000", "1,000,000"]
    assert drawn.words == "pairs: 0.15 to 0.2: 1; 0.95 to 1: 1,000,000."


def test_counts_alike_stand_on_a_linear_axis() -> None:
    drawn = chart(Histogram("score", {"reference": bins(_0=10, _19=20), "model": bins(_0=5, _19=40)}))
    assert not drawn.is_log
    heights = [[bar.height for bar in series.bars] for series in drawn.series]
    assert heights[0][1] == pytest.approx(2 * heights[0][0], abs=0.2)
    assert heights[1][1] == pytest.approx(4 * heights[0][0], abs=0.2)  # both sides on one scale
    assert [label for _, label in drawn.rows] == ["0", "10", "20", "30", "40"]


def test_bars_stand_on_the_axis_side_by_side() -> None:
    drawn = chart(Histogram("score", {"pairs": tuple(range(1, BINS + 1))}))
    bars = drawn.series[0].bars
    assert len({round(bar.y + bar.height, 1) for bar in bars}) == 1
    for left, right in itertools.pairwise(bars):
        assert left.x + left.width == pytest.approx(right.x, abs=0.05)
    assert bars[-1].x + bars[-1].width <= WIDTH
    assert all(0 <= bar.y <= HEIGHT for bar in bars)
    assert drawn.series[0].outline.startswith(f"M{bars[0].x} {round(bars[0].y + bars[0].height, 1):g} V")


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 9, 10, 11, 39, 41, 99, 12_345])
def test_linear_axes_have_few_round_numbers(most: int) -> None:
    labels = [label for _, label in chart(Histogram("score", {"pairs": (most,) * BINS})).rows]
    numbers = [int(label.replace(",", "")) for label in labels]
    assert 2 <= len(numbers) <= 5
    assert numbers[0] == 0
    assert most / 2 <= numbers[-1] <= most


def test_a_histogram_of_nothing_is_empty() -> None:
    drawn = chart(Histogram("score", {"reference": (0,) * BINS}))
    assert drawn.series[0].bars == ()
    assert drawn.words == "reference: none."


@pytest.mark.parametrize(
    ("measure", "share"),
    [
        (Measure("share", 0.99, 0.98), 0.5),
        (Measure("share", 0.97, 0.98), 1.5),
        (Measure("share", 1.0, 0.98), 0.0),
        (Measure("share", 1.0, 1.0), 0.0),
        (Measure("share", 0.999, 1.0), math.inf),
        (Measure("distance", 0.25, 0.5, "most"), 0.5),
        (Measure("drop", -0.3, 0.1, "most"), 0.0),
        (Measure("drop", 0.1, 0.0, "most"), math.inf),
        (Measure("drop", 0.0, 0.0, "most"), 0.0),
    ],
)
def test_what_is_used_of_what_is_allowed(measure: Measure, share: float) -> None:
    assert used(measure) == pytest.approx(share)
    assert (used(measure) > 1) is not measure.passed


def test_nothing_is_used_where_nothing_is_asked_or_known() -> None:
    assert math.isnan(used(Measure("share", 0.9)))
    assert math.isnan(used(Measure("share", math.nan, 0.9)))


def test_meters_end_and_pass_the_limit_at_one_place() -> None:
    assert meter(1) == pytest.approx(log_meter(1))
    assert meter(0) == 0
    assert meter(math.inf) == log_meter(math.inf) == 1
    assert 0 < log_meter(0) < log_meter(1e-6) < log_meter(0.5) < meter(1) < log_meter(2)
