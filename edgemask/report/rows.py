"""What the forms of a report share: the record's figures as words, row by row."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemask.evaluation import COCO_METRICS, metric_name
from edgemask.parity import figures

if TYPE_CHECKING:
    from edgemask.evaluation import Interval
    from edgemask.parity import Measure
    from edgemask.validation.judging import CocoComparison
    from edgemask.validation.reports import Latency, ModelFacts, ValidationReport


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A COCO metric of a task on both sides, in points (0-100), as text.

    Attributes:
        name: task and metric.
        is_by_size: whether it is of objects of one size.
        reference: the reference's.
        model: the model's.
        difference: the model's less the reference's, with its sign.
        interval: where 95 % of the resampled differences lie; empty where that is not known.
    """

    name: str
    is_by_size: bool
    reference: str
    model: str
    difference: str
    interval: str


def metric_rows(coco: "CocoComparison | None") -> Iterator[MetricRow]:
    """A row for each task and metric that either side has a value of."""
    for task, compared in () if coco is None else coco.tasks.items():
        for name in COCO_METRICS:
            before, after = getattr(compared.reference, name), getattr(compared.candidate, name)
            if not (math.isnan(before) and math.isnan(after)):
                yield MetricRow(
                    name=metric_name(task, name),
                    is_by_size="_" in name,
                    reference=points(before),
                    model=points(after),
                    difference=difference(after - before),
                    interval=_interval(compared.intervals.get(name)),
                )


def truth_of(coco: "CocoComparison") -> str:
    """What the COCO metrics were measured against, in words."""
    return "annotations" if coco.truth == "annotations" else "the reference's detections taken for the truth"


def points(value: float) -> str:
    """A COCO metric of 0-1 in points."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def difference(value: float) -> str:
    """A difference of COCO metrics in points, with its sign; only none at all is shown as 0."""
    if math.isnan(value) or value == 0:
        return "-" if math.isnan(value) else "0"
    return f"{100 * value:+.2f}" if abs(value) >= 5e-5 else f"{100 * value:+.1g}"


def _interval(interval: "Interval | None") -> str:
    if interval is None or math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"{difference(interval.low)} to {difference(interval.high)}"


def asked_of(measure: "Measure") -> tuple[str, str]:
    """A measure's value and what is asked of it, as text; the latter is empty where nothing is."""
    value, limit = figures(measure.value, measure.limit, measure.unit)
    return value, f"at {measure.side} {limit}" if limit else ""


def failing_first(measures: Sequence["Measure"]) -> list["Measure"]:
    """The measures that failed, then those that passed, then those that nothing is asked of."""
    return sorted(measures, key=lambda measure: (measure.passed, measure.limit is None))


def labels_of(reports: Sequence["ValidationReport"]) -> list[str]:
    """A name for each report: its device, numbered where one was there before."""
    devices = [report.model.device for report in reports]
    return [
        device if device not in devices[:place] else f"{device} ({devices[:place].count(device) + 1})"
        for place, device in enumerate(devices)
    ]


def side_of(facts: "ModelFacts") -> str:
    """What is known of one side besides its name: precision, size, device."""
    known = [facts.precision, None if facts.bytes is None else f"{facts.bytes / 1e6:.1f} MB"]
    return ", ".join(part for part in (*known, f"on {facts.device}") if part)


def time_of(latency: "Latency") -> str:
    """A sentence about the time per image."""
    if math.isnan(latency.median):
        return "time per image: not measured"
    own = f"time per image: {latency.median:.1f} ms (90 % within {latency.p90:.1f} ms)"
    if math.isnan(latency.reference_median):
        return own
    other = f"the reference {latency.reference_median:.1f} ms (90 % within {latency.reference_p90:.1f} ms)"
    if math.isnan(latency.ratio):
        return f"{own}; {other}, not timed side by side"
    return f"{own}; {other}: {latency.ratio:.3g} x"


def op_tests_of(report: "ValidationReport") -> str:
    """A sentence about the op self-test; empty where there was none."""
    tests = report.op_tests
    if not tests:
        return ""
    size = f"{len(tests)} {'op' if len(tests) == 1 else 'ops'}, {sum(test.vectors for test in tests)} vectors"
    broken = sum(not test.passed for test in tests)
    return f"op self-test: {size}, {f'{broken} FAILED' if broken else 'all as specified'}"


def stages_of(report: "ValidationReport") -> str:
    """A sentence about the stages; empty where they were not compared."""
    if report.stages is None:
        return ""
    checks, first = report.stages.checks, report.stages.first
    outcome = "all as the reference's" if first is None else f"the first that differs is {first.stage}"
    return f"stages: {len(checks)} on {report.stages.image}, each fed with the reference's own input, {outcome}"


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def images_of(count: int) -> str:
    """A number of images in words."""
    return "1 image" if count == 1 else f"{count} images"
