"""Records of this package as JSON text and as tables on a terminal."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgemask.checks import printable

if TYPE_CHECKING:
    from edgemask.validation import ValidationReport


def to_json(record: object) -> str:
    """Returns a record as JSON text, indented, in ASCII, the same for equal records.

    A dataclass becomes an object of its fields and public properties (`passed`, `failures` ...); NaN and infinity
    become null, tuples lists, paths text, numpy scalars and arrays numbers.

    Raises:
        TypeError: something that JSON has no form for.
    """
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, member in vars(type(value)).items() if isinstance(member, property) and name[0] != "_"]
        return {name: _plain(getattr(value, name)) for name in names}
    raise TypeError(f"a record holds a {type(value).__name__}, which JSON has no form for")


def table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Returns a table with a column for each key of the rows; figures stand right, what is missing is empty.

    Control characters and markup in the values are shown as they are written.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in columns:
        figures = all(isinstance(row.get(name), int | float | None) for row in rows)
        made.add_column(Text(name), justify="right" if figures else "left", header_style="dim")
    for row in rows:
        made.add_row(*(Text(_shown(row.get(name))) for name in columns))
    return made


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return printable(str(value))


def print_validation(report: "ValidationReport", console: Console | None = None) -> None:
    """Prints what a validation found: the measures, COCO metrics where there are any, and what is wrong."""
    console = console or Console(highlight=False, markup=False, emoji=False)

    def say(text: str) -> None:
        console.print(Text(printable(text)), soft_wrap=True)

    parity = report.parity
    say(f"{report.model} on {report.device} against {report.reference} on {report.reference_device}")
    say(parity.headline)
    say(f"{report.milliseconds:.1f} ms per image, the reference {report.reference_milliseconds:.1f} ms (medians)")
    console.print(table("Measured", _measure_rows(report)))
    if report.coco is not None:
        console.print(table("COCO", _coco_rows(report)))
    if report.excluded:
        shown = ", ".join(report.excluded[:3]) + (" ..." if len(report.excluded) > 3 else "")
        subject = "1 image is" if len(report.excluded) == 1 else f"{len(report.excluded)} images are"
        say(f"{subject} too large for the model's canvas, left out: {shown}")
    for note in report.notes:
        say(f"note: {note}")
    for image in parity.worst[:5]:
        say(f"{image.name}: {image.reason}")
    for failure in report.failures:
        say(f"FAILED: {failure}")
    if report.passed:
        say("passed")


def _measure_rows(report: "ValidationReport") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for measure in report.measures:
        asked = None if measure.limit is None else f"at {measure.side} {measure.show(measure.limit)}"
        value = "-" if math.isnan(measure.value) else measure.show(measure.value)
        rows.append(
            {
                "metric": measure.name,
                "value": value,
                "asked": asked,
                "ok": None if measure.limit is None else measure.passed,
            }
        )
    return rows


def _coco_rows(report: "ValidationReport") -> list[dict[str, object]]:
    if report.coco is None:
        return []
    return [
        {
            "task": task,
            "metric": name.upper().replace("_", " "),
            "reference": expected,
            "model": getattr(report.coco["candidate"][task], name),
            "difference": getattr(report.coco["candidate"][task], name) - expected,
        }
        for task, metrics in report.coco["reference"].items()
        for name, expected in dataclasses.asdict(metrics).items()
    ]
