"""A scatter plot as SVG: numbered points, what no other point beats, and a list of them all below."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgemask.checks import printable

WIDTH = 760
_LEFT, _RIGHT, _TOP, _PLOT = 70, 24, 56, 320  # margins, and the height of the plot itself
_LINE = 20  # between two lines of text
_RADIUS = 9  # of a point that holds its number
_LOG_FROM = 8  # of the largest to the smallest latency: below, small ones can still be told apart
_INK, _PALE, _GRID, _ACCENT = "#1b1f24", "#59636e", "#dfe3e8", "#0b5fa5"
_STYLE = (
    f"text{{font:13px system-ui,sans-serif;fill:{_INK}}}.pale{{fill:{_PALE}}}.title{{font-weight:600}}"
    f".grid{{stroke:{_GRID}}}.front{{fill:none;stroke:{_ACCENT};stroke-width:2}}"
    f".point{{fill:#fff;stroke:{_PALE};stroke-width:1.5}}.best{{fill:{_ACCENT};stroke:{_ACCENT}}}"
    ".number{font-size:11px;text-anchor:middle}.best+.number{fill:#fff}"
)


@dataclass(frozen=True, slots=True)
class Point:
    """One point: less of `x` and more of `y` is better."""

    name: str
    x: float
    y: float


def scatter(
    title: str, points: Sequence[Point], *, x_name: str, x_unit: str, y_name: str, remarks: Sequence[str] = ()
) -> str:
    """Returns an SVG image that needs nothing else; encode it as UTF-8.

    Args:
        title: above the plot.
        points: in the order of their numbers, from 1 on; there may be none.
        x_name: of the horizontal axis, whose values are above 0.
        x_unit: of its values.
        y_name: of the vertical one.
        remarks: lines below the list of the points.
    """
    across = _axis([point.x for point in points], may_be_log=True)
    upward = _axis([point.y for point in points])
    best = _front(points)
    named = [f"{point.name}: {point.x:.4g} {x_unit}, {point.y:.4g}" for point in points]
    parts = [_text(_LEFT, 24, title, "title"), *_frame(across, upward, x_name, y_name)]
    places = [(_x(across.share(point.x)), _y(upward.share(point.y))) for point in points]
    parts += _steps([places[index] for index in best])
    for index, (x, y) in enumerate(places):
        kind = "point best" if index in best else "point"
        words = html.escape(printable(named[index]))
        parts.append(f'<g><title>{words}</title><circle class="{kind}" cx="{x}" cy="{y}" r="{_RADIUS}"/>')
        parts.append(f'<text class="number" x="{x}" y="{y + 4:.1f}">{index + 1}</text></g>')
    foot = _TOP + _PLOT
    lines = [f"{number}  {words}" for number, words in enumerate(named, 1)]
    for number, line in enumerate([*lines, *remarks]):
        parts.append(_text(_LEFT, foot + 66 + number * _LINE, line, "pale" if number >= len(lines) else ""))
    height = foot + 66 + (len(lines) + len(remarks)) * _LINE
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    name = html.escape(printable(title))
    return (
        f'{head} role="img" aria-label="{name}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """From `low` to `high`, with round numbers in between; by decades where `is_log`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0-1."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _axis(values: Sequence[float], *, may_be_log: bool = False) -> _Axis:
    least, most = min(values, default=0.0), max(values, default=1.0)
    if may_be_log and least > 0 and most >= _LOG_FROM * least:
        low, high = 10 ** math.floor(math.log10(least)), 10 ** math.ceil(math.log10(most))
        decades = range(round(math.log10(low)), round(math.log10(high)))
        ticks = [part * 10.0**decade for decade in decades for part in (1, 2, 5)]
        return _Axis(low, high, (*ticks, float(high)), is_log=True)
    if may_be_log:
        least = 0.0  # an honest length from zero on, where there is room for it
    spread = (most - least) or abs(most) or 1.0
    step = _round_step(spread / 4)
    low, high = math.floor(least / step - 0.25) * step, math.ceil(most / step + 0.25) * step
    low = max(low, 0.0) if least >= 0 else low
    return _Axis(low, high, tuple(low + number * step for number in range(round((high - low) / step) + 1)))


def _round_step(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below."""
    decade = 10 ** math.floor(math.log10(least))
    return float(next(step * decade for step in (1, 2, 5, 10) if step * decade >= least * (1 - 1e-9)))


def _frame(across: _Axis, upward: _Axis, x_name: str, y_name: str) -> Iterator[str]:
    foot = _TOP + _PLOT
    for value in across.ticks:
        x = _x(across.share(value))
        yield f'<path class="grid" d="M{x} {_TOP}V{foot}"/>'
        yield _text(x, foot + 18, f"{value:g}", "pale", "middle")
    for value in upward.ticks:
        y = _y(upward.share(value))
        yield f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
        yield _text(_LEFT - 8, y + 4, f"{value:.6g}", "pale", "end")
    yield _text((_LEFT + WIDTH - _RIGHT) / 2, foot + 38, x_name, "pale", "middle")
    yield _text(_LEFT, _TOP - 6, y_name, "pale")


def _front(points: Sequence[Point]) -> list[int]:
    """Those that no other one beats, from left to right."""
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index].x, -points[index].y)):
        if not found or points[index].y > points[found[-1]].y:
            found.append(index)
    return found


def _steps(places: Sequence[tuple[float, float]]) -> list[str]:
    """What can be had at each latency: the height of the best point up to there."""
    if not places:
        return []
    (x, y), *others = places
    path = f"M{x} {y}" + "".join(f"H{right}V{top}" for right, top in others)
    return [f'<path class="front" d="{path}H{WIDTH - _RIGHT}"/>']


def _x(share: float) -> float:
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _PLOT, 1)


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    shown = html.escape(printable(words))
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{shown}</text>'
