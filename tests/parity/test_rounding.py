"""Numbers for people never say what is not so."""

import math
from decimal import Decimal

import numpy as np
import pytest

from edgemask.parity import figures


@pytest.mark.parametrize(
    ("value", "limit", "unit", "shown"),
    [
        (1.0, None, "", ("1", "")),
        (1.0, 0.999, "%", ("100 %", "99.9 %")),
        (0.9999996, None, "", ("0.9999996", "")),
        (0.9999996, 0.999, "%", ("99.99996 %", "99.9 %")),
        (1 - 2**-53, None, "", ("0.9999999999999999", "")),
        (1.0000004, None, "%", ("100.00004 %", "")),
        (0.99499964, 0.995, "", ("0.9949996", "0.995")),
        (0.995, 0.995, "", ("0.995", "0.995")),
        (0.0010000001, 0.001, "points", ("0.10000001 points", "0.1 points")),
        (np.nextafter(0.999, 0), 0.999, "%", ("99.89999999999999 %", "99.9 %")),
        (0.99146, 0.999, "%", ("99.146 %", "99.9 %")),
        (5.123456e-6, 1e-3, "", ("5.1235e-6", "0.001")),
        (0.0, 0.5, "px", ("0 px", "0.5 px")),
        (-0.0, None, "", ("0", "")),
        (0.00021, None, "", ("0.00021", "")),
        (0.9990000000000001, 0.999, "%", ("99.90000000000001 %", "99.9 %")),
        (1234567.8, None, "MB", ("1234568 MB", "")),
        (-0.0213, 0.001, "points", ("-2.13 points", "0.1 points")),
        (math.nan, 0.9, "", ("-", "0.9")),
        (math.nan, None, "", ("-", "")),
        (math.inf, None, "x", ("inf x", "")),
        (math.inf, 1.5, "x", ("inf x", "1.5 x")),
        (np.float32(0.5), 1 - 0.99, "%", ("50 %", "1 %")),
    ],
)
def test_figures(value: float, limit: float | None, unit: str, shown: tuple[str, str]) -> None:
    assert figures(value, limit, unit) == shown


def test_no_figure_changes_sides() -> None:
    """Values a few bits beside a limit, and beside 1, at any size of the step, are shown on the side where they lie."""
    generator = np.random.default_rng(7)
    for limit in (0.999, 0.995, 0.97, 0.5, 1e-3, 1 - 0.99, 0.1 + 0.2):
        for step in 10.0 ** generator.uniform(-17, -2, 100):
            for value in (float(limit - step), float(limit + step), limit):
                for unit in ("", "%", "points"):
                    shown, asked = (Decimal(text.split()[0]) for text in figures(value, limit, unit))
                    assert (shown < asked, shown > asked) == (value < limit, value > limit)
    for step in 10.0 ** generator.uniform(-16, -2, 100):
        assert Decimal(figures(1 - step)[0]) < 1
        assert Decimal(figures(1 - step, None, "%")[0].split()[0]) < 100
