"""A validation as Markdown, for a comment on a pull request."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgemask.evaluation import TASK_WORDS
from edgemask.report.escaping import code, prose
from edgemask.report.rows import (
    MetricRow,
    asked_of,
    difference,
    failing_first,
    images_of,
    labels_of,
    metric_rows,
    op_tests_of,
    points,
    side_of,
    some_of,
    stages_of,
    time_of,
    truth_of,
)

if TYPE_CHECKING:
    from edgemask.evaluation import TaskComparison
    from edgemask.validation.reports import Validation, ValidationReport

MOST_CHARACTERS = 60_000  # GitHub takes 65,536, and a workflow may put words of its own around it
_MOST_FAILURES = 20  # of each device
_MOST_CLASSES = 20
_RESERVE = 400  # characters for the words about what was left out
_NO_METRIC = MetricRow("", False, "-", "-", "-", "")
_Labelled = Sequence[tuple[str, "ValidationReport"]]


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the page that may be cut between two of its rows; every row is one line.

    Attributes:
        head: lines before the rows.
        rows: the rows.
        tail: lines after them.
    """

    head: tuple[str, ...]
    rows: tuple[str, ...]
    tail: tuple[str, ...] = ()

    def cut(self, room: int) -> tuple[str, int]:
        """Its text with as many rows as there is room for, and how many were left out."""
        kept = len(self.rows)
        left = room - sum(len(line) + 1 for line in (*self.head, *self.tail, ""))
        for number, row in enumerate(self.rows):
            left -= len(row) + 1
            if left < 0:
                kept = number
                break
        if left < 0 and not kept:
            return "", len(self.rows)
        return "\n".join((*self.head, *self.rows[:kept], *self.tail, "")) + "\n", len(self.rows) - kept


def to_markdown(validation: "Validation") -> str:
    """Returns a validation as Markdown of at most `MOST_CHARACTERS`; where something was cut, it says so.

    Names of files, classes and devices, and sentences about them, are escaped: none can break a table, add markup or
    mention somebody.
    """
    reports = list(zip(labels_of(validation.reports), validation.reports, strict=True))
    first = reports[0][1]
    machine = "\n".join(("<sub>" + prose(_machine(first, validation.format_version)) + "</sub>", ""))
    text, missing = "", 0
    for section in _sections(reports):
        part, left_out = section.cut(MOST_CHARACTERS - _RESERVE - len(text) - len(machine))
        text += part
        missing += left_out
    if missing:
        text += f"**{missing} lines were left out**, this comment would be too long: the JSON report has all.\n\n"
    return text + machine


def _sections(reports: _Labelled) -> Iterator[_Section]:
    yield from _opening(reports)
    yield from _failures(reports)
    yield _measures(reports)
    yield from _stages(reports)
    yield from _metrics(reports)
    for label, report in reports:
        yield from _classes(label, report)
    yield from _worst(reports)


def _opening(reports: _Labelled) -> Iterator[_Section]:
    first = reports[0][1]
    passed = all(report.passed for _, report in reports)
    yield _Section((f"## edgemask validate: {'passed' if passed else 'FAILED'}",), ())
    model = side_of(replace(first.model, device=", ".join(label for label, _ in reports)))
    sides = [(first.model.name, model), (first.reference.name, side_of(first.reference))]
    yield _Section((" against ".join(f"{code(name)} ({prose(known)})" for name, known in sides),), ())
    lines = [
        f"- {code(label)}: **{prose(report.verdict)}**. {prose(report.parity.headline)}. "
        f"{prose(time_of(report.latency).capitalize())}."
        for label, report in reports
    ]
    yield _Section((), tuple(lines))


def _failures(reports: _Labelled) -> Iterator[_Section]:
    rows: list[str] = []
    for label, report in reports:
        failures = report.other_failures()
        rows += [f"- {code(label)}: {prose(failure)}" for failure in failures[:_MOST_FAILURES]]
        if len(failures) > _MOST_FAILURES:
            rows.append(f"- {code(label)}: and {len(failures) - _MOST_FAILURES} more")
    if rows:
        yield _Section(("### What failed", ""), tuple(rows))
    notes = []
    for label, report in reports:
        images = report.images
        left_out = (("too large", images.too_large), ("not usable", [name for name, _ in images.unreadable]))
        for why, which in left_out:
            if which:
                notes.append(f"- {code(label)}: {images_of(len(which))} {why}, left out: {prose(some_of(which, 5))}")
        notes += [f"- {code(label)}: {prose(note)}" for note in report.notes]
    if notes:
        yield _Section(("### Worth knowing", ""), tuple(notes))


def _measures(reports: _Labelled) -> _Section:
    """A row per measure, those first that failed on any device."""
    cells = [_cells(report) for _, report in reports]
    rows = {
        measure.name: _row(
            prose(measure.name), prose(asked_of(measure)[1]), *(column.get(measure.name, "-") for column in cells)
        )
        for measure in failing_first([measure for _, report in reports for measure in report.measures])
    }
    return _Section(_header("measured", "asked", *(code(label) for label, _ in reports)), tuple(rows.values()))


def _cells(report: "ValidationReport") -> dict[str, str]:
    """Every measure by its name, with a mark where it failed."""
    missed, cells = {measure.name for measure in report.misses()}, {}
    for measure in report.measures:
        text = prose(asked_of(measure)[0]) + (f" ({prose(measure.note)})" if measure.note else "")
        cells[measure.name] = f"**FAILED: {text}**" if measure.name in missed else text
    return cells


def _stages(reports: _Labelled) -> Iterator[_Section]:
    """The op self-test and the first bad stage in a line each, then the numbers of what failed."""
    lines, rows = [], []
    for label, report in reports:
        lines += [f"- {code(label)}: {prose(text)}" for text in (op_tests_of(report), stages_of(report)) if text]
        checks = () if report.stages is None else report.stages.checks
        broken = [check for check in checks if not check.passed]
        rows += [_row(code(label), code(c.stage), f"{c.error:.3g}", f"{c.tolerance:.3g}") for c in broken]
        wrong = [test for test in report.op_tests if not test.passed]
        rows += [_row(code(label), code(t.name), f"{t.error:.3g}", f"{t.tolerance:.3g}") for t in wrong]
    if lines:
        yield _Section((), tuple(lines))
    if rows:
        yield _Section(_header("device", "stage or op", "error", "allowed"), tuple(rows))


def _metrics(reports: _Labelled) -> Iterator[_Section]:
    """The metrics over all sizes of objects at once, those of one size to be unfolded."""
    scored = [(label, report.coco) for label, report in reports if report.coco is not None]
    if not scored:
        return
    labels = [label for label, _ in scored]
    tables = [{row.name: row for row in metric_rows(coco)} for _, coco in scored]
    names = {row.name: row.is_by_size for one in tables for row in one.values()}
    for is_by_size in (False, True):
        found = {
            name: [one.get(name, _NO_METRIC) for one in tables] for name, flag in names.items() if flag is is_by_size
        }
        header, rows = _metric_table(labels, found)
        if rows and not is_by_size:
            yield _Section((f"### COCO, in points, against {prose(truth_of(scored[0][1]))}", "", *header), rows)
        elif rows:
            yield _Section(("<details><summary>By size of object</summary>", "", *header), rows, ("", "</details>"))


def _metric_table(
    labels: Sequence[str], found: Mapping[str, Sequence[MetricRow]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A row per metric with the columns of every device; the reference once, where all have the same."""
    is_one = all(len({row.reference for row in rows}) == 1 for rows in found.values())
    columns = ["metric", *(["reference"] if is_one else [])]
    for label in labels:
        columns += [*([] if is_one else [f"reference, {code(label)}"]), code(label), "difference (95 % interval)"]
    lines = []
    for name, rows in found.items():
        cells = [prose(name), *([rows[0].reference] if is_one else [])]
        for row in rows:
            interval = f" ({row.interval})" if row.interval else ""
            cells += [*([] if is_one else [row.reference]), row.model, row.difference + interval]
        lines.append(_row(*cells))
    return _header(*columns), tuple(lines)


def _classes(label: str, report: "ValidationReport") -> Iterator[_Section]:
    for task, compared in {} if report.coco is None else report.coco.tasks.items():
        rows = list(_class_rows(compared))
        if len(rows) > 1:
            shown = (
                f"the {_MOST_CLASSES} that lost the most of {len(rows)}" if len(rows) > _MOST_CLASSES else "worst first"
            )
            summary = f"{TASK_WORDS[task].capitalize()} AP of each class on {code(label)}, {shown}"
            head = (
                f"<details><summary>{summary}</summary>",
                "",
                *_header("class", "objects", "reference", "model", "difference"),
            )
            yield _Section(head, tuple(rows[:_MOST_CLASSES]), ("", "</details>"))


def _class_rows(compared: "TaskComparison") -> Iterator[str]:
    """The classes that exist on the images, those first that lost the most."""
    present = [one for one in compared.classes if not math.isnan(one.candidate - one.reference)]
    for one in sorted(present, key=lambda one: one.candidate - one.reference):
        change = difference(one.candidate - one.reference)
        yield _row(code(one.name), str(one.objects), points(one.reference), points(one.candidate), change)


def _worst(reports: _Labelled) -> Iterator[_Section]:
    for label, report in reports:
        rows = [_row(code(image.name), prose(image.reason)) for image in report.parity.worst]
        if rows:
            head = (f"<details><summary>Worst images on {code(label)}</summary>", "", *_header("image", "what differs"))
            yield _Section(head, tuple(rows), ("", "</details>"))


def _machine(report: "ValidationReport", version: str) -> str:
    place = report.environment
    versions = ", ".join(f"{name} {number}" for name, number in place.versions.items())
    return (
        f"{place.date}, {place.processor}, {place.threads} threads, {place.system}; {versions}; report format {version}"
    )


def _header(*titles: str) -> tuple[str, ...]:
    return _row(*titles), _row(*("---" for _ in titles))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
