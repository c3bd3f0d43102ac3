"""A validation on a terminal: what a reader wants to know first stands first, and the verdict last."""

import math
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from edgemask.checks import printable
from edgemask.report.rows import (
    asked_of,
    images_of,
    labels_of,
    metric_rows,
    op_tests_of,
    side_of,
    some_of,
    stages_of,
    time_of,
    truth_of,
)
from edgemask.report.tables import table

if TYPE_CHECKING:
    from edgemask.parity import Measure
    from edgemask.validation.reports import StageComparison, Validation, ValidationReport

_MOST_FAILURES = 20  # the record has them all
_MOST_IMAGES = 5
_FAIL = "FAIL"
_Row = dict[str, object]


def print_validation(record: "ValidationReport | Validation", console: Console | None = None) -> None:
    """Prints what a validation found; of several devices one after the other, and then side by side.

    Args:
        record: of one device, or of several.
        console: where to; standard output if none is given. On a terminal long lines are broken between words,
            elsewhere a sentence is a line.
    """
    # Loaded already, by whoever made the record: the commands that print other tables need none of it.
    from edgemask.validation.reports import Validation

    console = console or Console(highlight=False, markup=False, emoji=False)
    reports = record.reports if isinstance(record, Validation) else (record,)
    page = _Page(console)
    for number, report in enumerate(reports):
        if number:
            console.print()
        page.show(report)
    if len(reports) > 1:
        console.print()
        console.print(table("Side by side", list(_side_by_side(reports))))
        console.print()
        page.say(_together(reports), "bold" if all(report.passed for report in reports) else "bold red")


class _Page:
    """What is printed about one device."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str, style: str = "") -> None:
        """Prints a sentence; a word, such as a path, is never broken."""
        lines = [printable(text)]
        if self.console.is_terminal:
            width = self.console.width
            lines = textwrap.wrap(
                lines[0], width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
        for line in lines:
            self.console.print(Text(line, style=style), soft_wrap=True)

    def tabulate(self, title: str, rows: Sequence[_Row]) -> None:
        """Prints a table with an empty line above it."""
        if rows:
            self.console.print()
            if title:
                self.say(title, "bold")
            self.console.print(table("", rows))

    def show(self, report: "ValidationReport") -> None:
        """Prints all of it."""
        style = "bold" if report.passed else "bold red"
        self.say(f"{report.model.name} ({side_of(report.model)})")
        self.say(f"against {report.reference.name} ({side_of(report.reference)})")
        self.say(report.parity.headline)
        self.say(report.verdict, style)
        self.tabulate("", list(_measures(report)))
        if report.coco is not None:
            self.tabulate(f"COCO, in points, against {truth_of(report.coco)}", list(_metrics(report)))
        self._say_stages(report)
        self.say(time_of(report.latency))
        self._say_images(report)
        for note in report.notes:
            self.say(f"note: {note}")
        failures = report.failures
        for failure in failures[:_MOST_FAILURES]:
            self.say(f"FAILED: {failure}", "red")
        if len(failures) > _MOST_FAILURES:
            self.say(f"and {len(failures) - _MOST_FAILURES} more failures, all of them in the JSON report", "red")
        self.say(report.verdict, style)

    def _say_stages(self, report: "ValidationReport") -> None:
        broken = any(not test.passed for test in report.op_tests)
        if broken:
            self.tabulate(op_tests_of(report), list(_op_tests(report)))
        differs = report.stages is not None and report.stages.first is not None
        if report.stages is not None and differs:
            self.tabulate(stages_of(report), list(_stages(report.stages)))
        self.console.print()
        for sentence in ([] if broken else [op_tests_of(report)]) + ([] if differs else [stages_of(report)]):
            if sentence:
                self.say(sentence)

    def _say_images(self, report: "ValidationReport") -> None:
        images = report.images
        if images.resumed:
            self.say(f"{images_of(images.resumed)} taken over from the interrupted run")
        if images.too_large:
            count, names = len(images.too_large), some_of(images.too_large, _MOST_IMAGES)
            self.say(f"{images_of(count)} too large for the model's canvas, left out: {names}")
        if images.unreadable:
            self.say(f"{images_of(len(images.unreadable))} could not be used, left out:")
            for name, reason in images.unreadable[:_MOST_IMAGES]:
                self.say(f"  {name}: {reason}")
            if len(images.unreadable) > _MOST_IMAGES:
                self.say(f"  and {len(images.unreadable) - _MOST_IMAGES} more")
        if report.parity.worst:
            self.say("worst images:")
        for image in report.parity.worst[:_MOST_IMAGES]:
            self.say(f"  {image.name}: {image.reason}")


def _together(reports: Sequence["ValidationReport"]) -> str:
    failed = [label for label, report in zip(labels_of(reports), reports, strict=True) if not report.passed]
    return f"FAILED on {', '.join(failed)}" if failed else f"passed on all {len(reports)} devices"


def _mark(passed: bool) -> Text:
    return Text("ok") if passed else Text(_FAIL, style="bold red")


def _verdict(measure: "Measure", missed: Collection[str]) -> Text | None:
    """A mark, where something is asked and was looked at: nothing is where there was nothing to compare."""
    if measure.limit is None or not (measure.passed or measure.name in missed):
        return None
    return _mark(measure.passed)


def _measures(report: "ValidationReport") -> Iterator[_Row]:
    missed = {measure.name for measure in report.misses()}
    before = {} if report.baseline is None else report.baseline.values
    for measure in report.measures:
        value, asked = asked_of(measure)
        row: _Row = {
            "": _verdict(measure, missed),
            "measured": measure.name,
            "value": value,
            "asked": asked,
        }
        if measure.key in before:
            row["before"] = measure.show(before[measure.key])
        yield row
        if measure.note:
            yield {"measured": Text(f"  {printable(measure.note)}", style="dim")}


def _metrics(report: "ValidationReport") -> Iterator[_Row]:
    for row in metric_rows(report.coco):
        yield {
            "metric": row.name,
            "reference": row.reference,
            "model": row.model,
            "difference": row.difference,
            "95 % interval": row.interval,
        }


def _op_tests(report: "ValidationReport") -> Iterator[_Row]:
    for test in report.op_tests:
        yield {
            "": _mark(test.passed),
            "op": test.name,
            "stage": test.stage,
            "wrong": f"{test.failed} of {test.vectors}",
            "error": test.error,
            "allowed": test.tolerance,
        }
        if test.example:
            yield {"op": Text(f"  {printable(test.example)}", style="dim")}


def _stages(stages: "StageComparison") -> Iterator[_Row]:
    first = stages.first
    for check in stages.checks:
        yield {
            "": _mark(check.passed),
            "stage": check.stage,
            "error": check.error,
            "allowed": check.tolerance if math.isfinite(check.tolerance) else None,
            " ": "<- the first" if check is first else None,
        }


def _side_by_side(reports: Sequence["ValidationReport"]) -> Iterator[_Row]:
    """A row per measure with a column per device, and what became of each."""
    labels = labels_of(reports)
    columns = [_cells(report) for report in reports]
    for name in dict.fromkeys(name for cells in columns for name in cells):
        yield {"measured": name, **{label: cells.get(name, "-") for label, cells in zip(labels, columns, strict=True)}}
    both = list(zip(labels, reports, strict=True))
    yield {"measured": "ms per image", **{label: f"{report.latency.median:.1f}" for label, report in both}}
    yield {"measured": "first bad stage", **{label: report.culprit or "" for label, report in both}}
    yield {"measured": "result", **{label: "passed" if report.passed else "FAILED" for label, report in both}}


def _cells(report: "ValidationReport") -> dict[str, str]:
    """Every measure by its name, with a mark where it failed."""
    missed = {measure.name for measure in report.misses()}
    return {
        measure.name: asked_of(measure)[0] + (f"  {_FAIL}" if measure.name in missed else "")
        for measure in report.measures
    }
