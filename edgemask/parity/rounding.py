"""Numbers for people: short, and never so short that they say something else."""

import math
from decimal import Decimal

_LEAST_DIGITS = 5
_ALL_DIGITS = 17  # of a float64
_SMALLEST_EXPONENT = -4  # of a number that is written without one
_HUNDREDFOLD = ("%", "points")  # units that show 0.01 as 1
_SHARES = ("%", "")  # units in which 1 means: all, the same


def figures(value: float, limit: float | None = None, unit: str = "") -> tuple[str, str]:
    """Returns a value and its limit in as few digits as tell the truth.

    Five digits, and more where a value would else look like its limit, or lie on the other side of it, or where a
    share or an IoU that is not 1 would look like it: 0.9999996 is shown as that, 0.99499964 beside a limit of 0.995 as
    0.9949996.

    Args:
        value: NaN is shown as "-".
        limit: what is asked; the text of None is empty.
        unit: as in `edgemask.parity.Measure`; shares and points are shown a hundredfold.
    """
    if not math.isfinite(value):
        text = "-" if math.isnan(value) else f"{value} {unit}".rstrip()
        return text, "" if limit is None else figures(limit, None, unit)[0]
    scale = 100 if unit in _HUNDREDFOLD else 1
    exact, asked = _decimal(value) * scale, None if limit is None else _decimal(limit) * scale
    for digits in range(max(_LEAST_DIGITS, min(exact.adjusted() + 1, _ALL_DIGITS)), _ALL_DIGITS + 1):
        shown, shown_limit = _rounded(exact, digits), None if asked is None else _rounded(asked, digits)
        keeps_order = shown_limit is None or asked is None or _sign(shown, shown_limit) == _sign(exact, asked)
        keeps_whole = unit not in _SHARES or (shown == scale) == (exact == scale)
        if keeps_order and keeps_whole:
            break
    return _text(shown, unit), "" if shown_limit is None else _text(shown_limit, unit)


def _decimal(value: float) -> Decimal:
    """The shortest decimal that is this float and no other, so that different floats stay different."""
    return Decimal(repr(float(value)))


def _rounded(value: Decimal, digits: int) -> Decimal:
    return Decimal(f"{value:.{digits}g}")


def _sign(value: Decimal, other: Decimal) -> int:
    return (value > other) - (value < other)


def _text(value: Decimal, unit: str) -> str:
    # Never by way of a float: a hundredfold has decimals that no float has.
    number = value.normalize() if value else Decimal(0)
    return f"{number:{'f' if number.adjusted() >= _SMALLEST_EXPONENT else 'e'}} {unit}".rstrip()
