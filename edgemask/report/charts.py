"""Shapes of the charts on the HTML page: numbers only, in the units of an SVG of `WIDTH` x `HEIGHT`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgemask.parity import Histogram, Measure

WIDTH, HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 28
_LOG_FROM = 50  # a bar this many times as high as another one leaves nothing of it to see
_FOOT = 0.25  # decades below one, so that a count of one has a bar, too
_LIMIT_AT = 2 / 3  # where the limit stands on the scale of a meter


@dataclass(frozen=True, slots=True)
class Bar:
    """How many values lie in one part of 0 to 1, as a rectangle and in words."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one series that are not empty, and its outline as the data of an SVG path."""

    name: str
    bars: tuple[Bar, ...]
    outline: str

    @property
    def words(self) -> str:
        """All bars in words."""
        return f"{self.name}: {'; '.join(bar.words for bar in self.bars) or 'none'}."


@dataclass(frozen=True, slots=True)
class Chart:
    """A histogram, ready to be drawn.

    Attributes:
        name: what was counted.
        is_log: whether each step of the vertical axis is ten times the one before.
        series: in the record's order.
        rows: places and labels of the vertical axis.
        columns: those of the horizontal one.
    """

    name: str
    is_log: bool
    series: tuple[Series, ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]

    @property
    def words(self) -> str:
        """The chart for those who do not see it."""
        return " ".join(series.words for series in self.series)


def chart(histogram: Histogram) -> Chart:
    """Returns the shape of a histogram; counts on a logarithmic axis where else small ones could not be seen."""
    counts = [count for series in histogram.counts.values() for count in series if count]
    most = max(counts, default=1)
    is_log = most >= _LOG_FROM * min(counts, default=1)

    def level(count: float) -> float:
        if not count:
            return HEIGHT - _BOTTOM
        share = (math.log10(count) + _FOOT) / (math.log10(most) + _FOOT) if is_log else count / most
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    rows = tuple((level(count), f"{count:,}") for count in (_decades(most) if is_log else _steps(most)))
    columns = tuple((_place(share), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1))
    return Chart(histogram.name, is_log, tuple(_series(histogram.counts, level)), rows, columns)


def used(measure: Measure) -> float:
    """The share of what is allowed that a value uses up: above 1 it is too much; NaN where nothing is asked.

    What is allowed is the distance of the limit from the best value: from 1 where more is better, else from 0.
    """
    if measure.limit is None or math.isnan(measure.value):
        return math.nan
    off, allowed = (measure.value, measure.limit) if measure.side == "most" else (1 - measure.value, 1 - measure.limit)
    if off <= 0 or allowed <= 0:
        return 0.0 if measure.passed else math.inf
    return off / allowed


def meter(share: float) -> float:
    """Where a share of what is allowed lies on the scale of a meter, in 0-1; `meter(1)` is the place of the limit."""
    return min(share * _LIMIT_AT, 1.0)


def log_meter(share: float) -> float:
    """The same over twelve decades, for shares that differ by as much."""
    decades = math.log10(share) if share > 0 else -math.inf
    return min(max(_LIMIT_AT + decades / 12, 0.01), 1.0)


def _place(share: float) -> float:
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _series(counts: Mapping[str, Sequence[int]], level: Callable[[float], float]) -> Iterator[Series]:
    for name, values in counts.items():
        edges = [_place(number / len(values)) for number in range(len(values) + 1)]
        tops = [round(level(count), 1) for count in values]
        bars = tuple(
            Bar(
                left,
                top,
                round(right - left, 1),
                round(HEIGHT - _BOTTOM - top, 1),
                f"{number / len(values):g} to {(number + 1) / len(values):g}: {count:,}",
            )
            for number, (left, right, top, count) in enumerate(zip(edges, edges[1:], tops, values, strict=False))
            if count
        )
        steps = " ".join(f"V{top} H{right}" for top, right in zip(tops, edges[1:], strict=True))
        yield Series(name, bars, f"M{edges[0]} {HEIGHT - _BOTTOM} {steps} V{HEIGHT - _BOTTOM}")


def _decades(most: int) -> list[int]:
    powers = range(int(math.log10(most)) + 1)
    return [10**power for power in powers if power % math.ceil(len(powers) / 5) == 0]


def _steps(most: int) -> list[int]:
    """Up to five round numbers from 0 on."""
    decade = 10 ** int(math.log10(most))
    step = next(step for step in (decade // 5, decade // 2, decade, 2 * decade) if most < 5 * step)
    return list(range(0, most + 1, step))
