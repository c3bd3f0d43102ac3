"""The record as rows: of the tables that people read, and of a CSV file."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from edgemask.benchmark.records import BenchReport, ContestantResult, Timing
from edgemask.benchmark.results import STAGES
from edgemask.checks import printable

Row = dict[str, object]
_FORMULA = ("=", "+", "-", "@")  # with which one begins
# Of the stages that come one after another in a table; `total` and `pasted` have a table of their own.
_SHOWN = {
    "decode": "decode",
    "preprocess": "before",
    "inference": "inference",
    "postprocess": "after",
    "end_to_end": "with decode",
}
_FIGURES = ("p50_ms", "p90_ms", "p99_ms", "images_per_second", "ratio")
_ONCE = ("load_ms", "first_run_ms", "new_shape_ms", "new_shape_again_ms", "peak_mib", "before_mib", "gpu_mib")


def tables(report: BenchReport) -> dict[str, list[Row]]:
    """The tables by title, each with rows of equal columns; those that nothing was measured for are left out."""
    found = {
        "Milliseconds for an image in memory": [_total(result) for result in report.contestants],
        "Stages, medians in milliseconds": [_stages(result) for result in report.contestants],
        "Once, in milliseconds": [_once(result) for result in report.contestants],
        "Several images a call, several threads": [row for one in report.contestants for row in _calls(one)],
        f"MLPerf {report.plan.scenario}, milliseconds of a query; not a submission": [
            row for result in report.contestants for row in _scenario(result)
        ],
        "Peak memory of a process of its own, MiB": [row for one in report.contestants for row in _memory(one)],
        "Not measured": _refusals(report),
    }
    return {title: _shown(rows) for title, rows in found.items() if rows}


def to_csv(report: BenchReport) -> str:
    """The record as comma-separated values: a row for each contestant, and one for each other way of calling it.

    `measure` is `image`, one at a time in turns with the others; `calls`, with `images` in a call and `threads` that
    call; or the name of a scenario, whose percentile is its estimate. What was not measured is empty.
    """
    stages = [f"{stage}_ms" for stage in STAGES if stage != "total"]
    columns = ["contestant", "device", "precision", "measure", "images", "threads", *_FIGURES, *stages, *_ONCE]
    columns += ["found", "accuracy_report", *sorted({name for one in report.contestants for name in _accuracy(one)})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in (row for result in report.contestants for row in _csv_rows(result)):
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    """Text as a spreadsheet shows it: what a file is called must not be taken for a formula."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(_FORMULA) else printable(value)


def _total(result: ContestantResult) -> Row:
    total, pasted = result.stages["total"], result.stages.get("pasted")
    return {
        "contestant": result.title,
        "p50": total.median,
        "p90": total.p90,
        "p99": total.p99,
        "images/s": result.images_per_second,
        "ratio": total.ratio,
        "pasted": None if pasted is None else pasted.median,
        "pasted ratio": None if pasted is None else pasted.ratio,
        "found": result.detections,
    }


def _stages(result: ContestantResult) -> Row:
    row: Row = {"contestant": result.title}
    return row | {shown: _median(result.stages, stage) for stage, shown in _SHOWN.items()}


def _median(stages: Mapping[str, Timing], stage: str) -> float | None:
    return stages[stage].median if stage in stages else None


def _once(result: ContestantResult) -> Row:
    firsts = result.first_runs
    return {
        "contestant": result.title,
        "load": result.load,
        "first run": firsts.first,
        "new shape": firsts.new_shape,
        "new shape again": firsts.new_shape_again,
    }


def _calls(result: ContestantResult) -> Iterator[Row]:
    for calls in result.throughput:
        yield {
            "contestant": result.title,
            "images a call": calls.images,
            "at a time": calls.at_a_time,
            "threads": calls.streams,
            "a call": calls.milliseconds,
            "images/s": calls.images_per_second,
            "ratio to one": calls.ratio,
        }


def _scenario(result: ContestantResult) -> Iterator[Row]:
    scenario = result.scenario
    if scenario is not None:
        yield {
            "contestant": result.title,
            "images": scenario.images,
            "queries": scenario.queries,
            "seconds": scenario.seconds,
            "median": scenario.median,
            f"p{scenario.percent} estimate": math.nan if scenario.estimate is None else scenario.estimate,
            "dropped": scenario.dropped,
            "long enough": scenario.long_enough,
        }


def _memory(result: ContestantResult) -> Iterator[Row]:
    memory = result.memory
    if memory is not None:
        yield {"contestant": result.title, "peak": memory.peak, "before opening": memory.before, "GPU": memory.gpu}


def _refusals(report: BenchReport) -> list[Row]:
    titles: dict[str, list[str]] = {}
    for refusal in report.refusals:
        titles.setdefault(refusal.reason, []).append(refusal.title)
    return [{"contestant": ", ".join(own), "reason": reason} for reason, own in titles.items()]


def _shown(rows: Sequence[Row]) -> list[Row]:
    """Without the columns that nobody has anything in; from 1000 on, whole numbers are told more easily."""
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: _rounded(row[name]) for name in used} for row in rows]


def _rounded(value: object) -> object:
    return round(value) if isinstance(value, float) and value >= 1000 else value


def _csv_rows(result: ContestantResult) -> Iterator[Row]:
    who: Row = {"contestant": result.name, "device": result.device, "precision": result.precision}
    total, firsts, memory = result.stages["total"], result.first_runs, result.memory
    sizes = (None, None, None) if memory is None else (memory.peak, memory.before, memory.gpu)
    once = (result.load, firsts.first, firsts.new_shape, firsts.new_shape_again, *sizes)
    stages = {f"{stage}_ms": timing.median for stage, timing in result.stages.items() if stage != "total"}
    figures = (total.median, total.p90, total.p99, result.images_per_second, total.ratio)
    yield (
        who
        | {"measure": "image", "images": 1, "threads": 1, "found": result.detections}
        | _named(_FIGURES, figures)
        | _named(_ONCE, once)
        | stages
        | _accuracy(result)
        | {"accuracy_report": None if result.accuracy is None else result.accuracy.report}
    )
    for calls in result.throughput:
        figures = (calls.milliseconds, None, None, calls.images_per_second, calls.ratio)
        yield who | {"measure": "calls", "images": calls.images, "threads": calls.streams} | _named(_FIGURES, figures)
    if result.scenario is not None:
        scenario = result.scenario
        own: Row = {"measure": scenario.name, "images": scenario.images, "threads": 1, "p50_ms": scenario.median}
        yield who | own | {f"p{scenario.percent}_ms": scenario.estimate}


def _named(names: Sequence[str], values: Sequence[float | None]) -> Row:
    return dict(zip(names, values, strict=True))


def _accuracy(result: ContestantResult) -> Row:
    return {} if result.accuracy is None else dict(result.accuracy.values)
