"""Values beside what is asked of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from edgemask.evaluation import CocoMetrics, Interval, TaskComparison
from edgemask.parity import Measure
from edgemask.validation.baseline import Baseline
from edgemask.validation.judging import CocoComparison, judged, precisions
from edgemask.validation.limits import COCO_METRICS, Kind, Limit

VALUES = (
    Measure("matched share", 0.98, unit="%", key="matched_share"),
    Measure("lowest box IoU", 0.9, key="box_iou_min"),
    Measure("time", 0.8, None, "most", "x", "latency_ratio"),
)
BASELINE = Baseline("before.json", "2026-01-01", "cpu", 9, {"matched_share": 0.99, "latency_ratio": 0.5, "box_ap": 0.5})


def metrics(ap: float) -> CocoMetrics:
    return CocoMetrics(**dict.fromkeys(COCO_METRICS, ap))


def coco(before: float = 0.5, after: float = 0.48, interval: tuple[float, float] = (-0.03, 0.005)) -> CocoComparison:
    compared = TaskComparison(
        reference=metrics(before), candidate=metrics(after), intervals={"ap": Interval(*interval)}, images=9, classes=()
    )
    return CocoComparison(truth="annotations", tasks={"boxes": compared, "masks": compared})


def judge(*limits: Limit, scored: CocoComparison | None = None) -> dict[str, Measure]:
    values: Sequence[Measure] = (*VALUES, *precisions(scored))
    found = judged(values, limits, scored, BASELINE)
    assert len({measure.key for measure in found}) == len(found)
    return {measure.key: measure for measure in found}


def test_values_without_a_limit_are_shown_and_pass() -> None:
    found = judge()
    assert list(found) == ["matched_share", "box_iou_min"]
    assert all(measure.passed and measure.limit is None for measure in found.values())


@pytest.mark.parametrize(
    ("limit", "passed"),
    [
        (Limit("matched_share", "least", 0.98), True),
        (Limit("matched_share", "least", 0.981), False),
        (Limit("latency_ratio", "most", 0.8), True),
        (Limit("latency_ratio", "most", 0.79), False),
    ],
)
def test_own_values(limit: Limit, passed: bool) -> None:
    assert judge(limit)[limit.key].passed is passed


@pytest.mark.parametrize("kind", ["least", "most", "max_drop", "max_regression"])
def test_a_limit_without_a_measured_value_fails(kind: Kind) -> None:
    key = {"most": "keypoint_distance"}.get(kind, "mask_ap75")
    (measure,) = [one for one in judge(Limit(key, kind, 0.5)).values() if not one.passed]
    assert measure.key.startswith(key)
    assert math.isnan(measure.value)
    assert "could not be measured" in str(measure.failure)


def test_a_bare_metric_asks_for_every_task_and_fails_without_any() -> None:
    assert {"box_ap.drop", "mask_ap.drop"} <= judge(Limit("ap", "max_drop", 0.01), scored=coco()).keys()
    unscored = judge(Limit("ap", "max_drop", 0.01))
    assert not any(unscored[f"{word}_ap.drop"].passed for word in ("box", "mask", "keypoint"))


def test_drops() -> None:
    scored = coco(0.5, 0.48)
    drop = judge(Limit("box_ap", "max_drop", 0.021), scored=scored)["box_ap.drop"]
    assert drop.passed
    assert drop.value == pytest.approx(0.02)
    assert drop.note == "95 % interval -0.50 to 3.00"
    assert not judge(Limit("box_ap", "max_drop", 0.019), scored=scored)["box_ap.drop"].passed
    relative = judge(Limit("box_ap", "max_drop", 0.041, relative=True), scored=scored)["box_ap.drop"]
    assert relative.value == pytest.approx(0.04)
    assert relative.passed
    assert not judge(Limit("box_ap", "max_drop", 0.039, relative=True), scored=scored)["box_ap.drop"].passed


@pytest.mark.parametrize("order", [1, -1])
def test_a_limit_for_one_task_goes_before_one_for_all(order: int) -> None:
    limits = [Limit("mask_ap", "max_drop", 0.01), Limit("ap", "max_drop", 0.5)][::order]
    found = judge(*limits, scored=coco())
    assert (found["box_ap.drop"].limit, found["mask_ap.drop"].limit) == (0.5, 0.01)


def test_a_gain_is_no_drop_but_a_difference() -> None:
    scored = coco(0.5, 0.52)
    assert judge(Limit("box_ap", "max_drop", 0.0), scored=scored)["box_ap.drop"].passed
    difference = judge(Limit("box_ap", "max_difference", 0.01), scored=scored)["box_ap.difference"]
    assert not difference.passed
    assert difference.note == "95 % interval -3.00 to 0.50"


def test_an_uncertain_drop_fails_only_where_it_is_asked_as_measured() -> None:
    measured, certain = (Limit("box_ap", "max_drop", 0.01, certain=sure) for sure in (False, True))
    few = coco(0.5, 0.48, interval=(-0.05, 0.01))
    assert not judge(measured, scored=few)["box_ap.drop"].passed
    assert judge(certain, scored=few)["box_ap.drop"].passed
    gross = coco(0.5, 0.45, interval=(-0.12, 0.0))  # all of the drop on a few images, which many sets leave out
    assert not judge(certain, scored=gross)["box_ap.drop"].passed
    many = coco(0.5, 0.48, interval=(-0.025, -0.015))
    assert not judge(certain, scored=many)["box_ap.drop"].passed
    unknown = coco(0.5, 0.48, interval=(math.nan, math.nan))
    assert not judge(certain, scored=unknown)["box_ap.drop"].passed


def test_no_regression_from_nothing() -> None:
    baseline = replace(BASELINE, values={"matched_share": 0.0, "latency_ratio": 0.0})
    asked = [Limit(key, "max_regression", 0.1, relative=True) for key in ("matched_share", "latency_ratio")]
    one, other = (measure for measure in judged(VALUES, asked, None, baseline) if measure.key.endswith("regression"))
    assert (one.value, one.passed) == (0.0, True)
    assert (other.value, other.passed) == (math.inf, False)


def test_regressions() -> None:
    found = judge(
        Limit("matched_share", "max_regression", 0.011),
        Limit("latency_ratio", "max_regression", 0.5, relative=True),
        Limit("box_ap", "max_regression", 0.01),
        scored=coco(0.6, 0.52),
    )
    assert found["matched_share.regression"].value == pytest.approx(0.01)
    assert found["matched_share.regression"].passed
    assert found["matched_share.regression"].note == "before 99 %"
    slower = found["latency_ratio.regression"]
    assert slower.value == pytest.approx(0.6)
    assert not slower.passed
    assert found["box_ap.regression"].value == pytest.approx(-0.02)
    assert found["box_ap.regression"].passed
