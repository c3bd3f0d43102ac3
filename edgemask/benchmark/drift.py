"""Whether the machine stayed as it was while figures were taken."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgemask.benchmark.records import Conditions, ContestantResult

SYSTEM_FILES = Path("/")
SLOWER = 1.1  # last tenth over first tenth: a device that throttles goes far above it
CLOCK_FELL = 0.9  # after over before
BUSY = 0.5  # processes beside the benchmark
_LIKELY = (-30.0, 150.0)  # Celsius; a sensor that is off gives any number


def conditions(system: Path = SYSTEM_FILES) -> Conditions:
    """The machine now, as far as Linux tells it.

    Args:
        system: where `proc` and `sys` lie.
    """
    clocks = list(_clocks(system))
    heat = list(_temperatures(system))
    return Conditions(
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        megahertz=round(sum(clocks) / len(clocks)) if clocks else None,
        celsius=max(heat, default=None),
    )


def drift_notes(
    before: Conditions, after: Conditions, results: Sequence[ContestantResult], threads: int
) -> Iterator[str]:
    """What changed on the machine between two moments, where figures suffer from it.

    Args:
        before: the first moment.
        after: the second.
        results: what was measured in between.
        threads: how many worked at the same time, at most.
    """
    if before.load is not None and before.load > BUSY:
        yield f"the machine was not idle before: its load was {before.load:g}"
    if after.load is not None and after.load > threads + BUSY:
        yield f"others used the machine, too: at the end its load was {after.load:g}, of which {threads} ours"
    if None not in (before.megahertz, after.megahertz) and after.megahertz < CLOCK_FELL * before.megahertz:  # type: ignore[operator]
        yield f"the processors' clock fell from {before.megahertz:g} to {after.megahertz:g} MHz"
    for result in results:
        yield from _slowdown(result.title, "turns", result.drift)
        if result.scenario is not None:
            yield from _slowdown(result.title, "queries", result.scenario.drift)


def _slowdown(title: str, what: str, ratio: float | None) -> Iterator[str]:
    if ratio is not None and ratio > SLOWER:
        yield f"{title} became slower: its last tenth of {what} took {ratio:.2f} times as long as the first"


def _clocks(system: Path) -> Iterator[float]:
    """MHz of each processor: as it was set, or where that is hidden, as the processor was counted."""
    found = False
    for path in sorted(system.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        for kilohertz in _numbers(path):
            found = True
            yield kilohertz / 1000
    if not found:
        yield from (
            float(clock) for clock in re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", _text(system / "proc/cpuinfo"), re.M)
        )


def _temperatures(system: Path) -> Iterator[float]:
    for path in sorted(system.glob("sys/class/thermal/thermal_zone*/temp")):
        for thousandths in _numbers(path):
            if _LIKELY[0] < thousandths / 1000 < _LIKELY[1]:
                yield thousandths / 1000


def _numbers(path: Path) -> Iterator[float]:
    text = _text(path).strip()
    if re.fullmatch(r"-?\d+", text):
        yield float(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
