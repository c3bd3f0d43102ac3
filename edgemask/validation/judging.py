"""Measured values beside what is asked of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgemask.evaluation import COCO_METRICS, TASK_WORDS, TaskComparison, metric_name
from edgemask.parity import Measure
from edgemask.validation.baseline import Baseline
from edgemask.validation.limits import GROSS, HIGHER, LOWER, Limit

_ALWAYS = {*HIGHER, *LOWER} - {"milliseconds", "latency_ratio", "file_size_mb"}  # shown where nothing is asked, too


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoComparison:
    """COCO metrics of both sides.

    Attributes:
        truth: `annotations`, or `reference`: the reference's own detections taken for the truth.
        tasks: by task, `boxes`, `masks`, `keypoints`.
    """

    truth: str
    tasks: Mapping[str, TaskComparison]


def precisions(coco: CocoComparison | None) -> tuple[Measure, ...]:
    """The model's COCO metrics as values that a gate can ask for."""
    if coco is None:
        return ()
    return tuple(
        Measure(metric_name(task, metric), getattr(compared.candidate, metric), unit="points", key=_key(task, metric))
        for task, compared in coco.tasks.items()
        for metric in COCO_METRICS
    )


def judged(
    values: Sequence[Measure], limits: Sequence[Limit], coco: CocoComparison | None, baseline: Baseline | None
) -> tuple[Measure, ...]:
    """Every value of the comparison, and every limit beside its value; one without a value has NaN, which fails.

    Args:
        values: what was measured.
        limits: what is asked.
        coco: COCO metrics of both sides.
        baseline: an earlier report.
    """
    known = {value.key: value for value in values}
    named = {(limit.key, limit.kind) for limit in limits}
    # A limit for one task goes before one for all.
    asked = [
        one for given in limits for one in _expanded(given, coco) if one == given or (one.key, one.kind) not in named
    ]
    own = {limit.key: limit for limit in asked if limit.kind in ("least", "most")}
    shown = [
        replace(value, limit=own[value.key].value if value.key in own else None)
        for value in values
        if value.key in own or value.key in _ALWAYS or not value.key
    ]
    missing = [Measure(_words(key), math.nan, own[key].value, _side(key), key=key) for key in own if key not in known]
    return (
        *shown,
        *missing,
        *(_drop(limit, coco) for limit in asked if limit.kind in ("max_drop", "max_difference")),
        *(_regression(limit, known, baseline) for limit in asked if limit.kind == "max_regression"),
    )


def _expanded(limit: Limit, coco: CocoComparison | None) -> Iterator[Limit]:
    """A bare COCO metric asks for that of every task; where there are none, for one that nobody measured."""
    if limit.key not in COCO_METRICS:
        yield limit
    else:
        tasks = TASK_WORDS if coco is None else coco.tasks
        yield from (replace(limit, key=_key(task, limit.key)) for task in tasks)


def _drop(limit: Limit, coco: CocoComparison | None) -> Measure:
    """How far a COCO metric lies below the reference's, or from it."""
    word, _, metric = limit.key.partition("_")
    task = next(task for task, name in TASK_WORDS.items() if name == word)
    compared = None if coco is None else coco.tasks.get(task)
    what = "difference" if limit.kind == "max_difference" else "drop"
    name = f"{metric_name(task, metric)} {what}"
    if compared is None:
        return Measure(name, math.nan, limit.value, "most", "points", f"{limit.key}.{what}")
    before, after = getattr(compared.reference, metric), getattr(compared.candidate, metric)
    interval = compared.intervals.get(metric)
    drop = before - after
    known = interval is not None and not math.isnan(interval.low)
    if limit.kind == "max_difference":
        note = f"95 % interval {_points(interval.low)} to {_points(interval.high)}" if known and interval else ""
        return Measure(name, abs(drop), limit.value, "most", "points", f"{limit.key}.{what}", note)
    note = f"95 % interval {_points(-interval.high)} to {_points(-interval.low)}" if known and interval else ""
    if limit.certain and drop <= GROSS * limit.value * (before if limit.relative else 1):
        name, drop = f"{name}, 97.5 % sure", math.nan if interval is None else -interval.high
    if limit.relative:
        share = drop / before if before else math.nan
        return Measure(f"{name}, of the reference's", share, limit.value, "most", "%", f"{limit.key}.{what}", note)
    return Measure(name, drop, limit.value, "most", "points", f"{limit.key}.{what}", note)


def _regression(limit: Limit, known: Mapping[str, Measure], baseline: Baseline | None) -> Measure:
    """How much worse a value is than in the baseline."""
    value = known.get(limit.key)
    name = f"{_words(limit.key) if value is None else value.name}, worse than before by"
    if value is None or baseline is None or limit.key not in baseline.values:
        return Measure(name, math.nan, limit.value, "most", key=f"{limit.key}.regression")
    before = baseline.values[limit.key]
    worse = value.value - before if _side(limit.key) == "most" else before - value.value
    if limit.relative:
        share = worse / before if before else math.inf if worse > 0 else 0.0
        return Measure(name, share, limit.value, "most", "%", f"{limit.key}.regression", f"before {value.show(before)}")
    return Measure(
        name, worse, limit.value, "most", value.unit, f"{limit.key}.regression", f"before {value.show(before)}"
    )


def _points(difference: float) -> str:
    return f"{round(100 * difference, 2) + 0.0:.2f}"  # no negative zero


def _side(key: str) -> Literal["least", "most"]:
    return "most" if key in LOWER else "least"


def _key(task: str, metric: str) -> str:
    return f"{TASK_WORDS[task]}_{metric}"


def _words(key: str) -> str:
    return key.replace("_", " ")
