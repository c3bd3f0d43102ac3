"""Records as JSON and as tables."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgemask.evaluation import CocoMetrics
from edgemask.parity import TOLERANCES, ParityReport, WorstImage
from edgemask.report import print_validation, table, to_json
from edgemask.validation import ValidationReport


@dataclass(frozen=True, slots=True)
class Inner:
    value: float

    @property
    def doubled(self) -> float:
        return 2 * self.value

    @property
    def _hidden(self) -> float:
        raise AssertionError("private")


@dataclass(frozen=True)
class Record:
    path: Path
    inner: tuple[Inner, ...]
    table: dict[int, Any]
    nothing: None = None


def test_records_become_plain_json() -> None:
    record = Record(
        Path("a") / "b",
        (Inner(1.5), Inner(math.nan)),
        {1: np.float32(0.5), 2: np.arange(3), 3: math.inf, 4: np.array([math.nan, 1.0]), 5: np.bool_(True), 6: "é"},
    )
    text = to_json(record)
    assert text.isascii()
    assert json.loads(text) == {
        "path": "a/b",
        "inner": [{"value": 1.5, "doubled": 3.0}, {"value": None, "doubled": None}],
        "table": {"1": 0.5, "2": [0, 1, 2], "3": None, "4": [None, 1.0], "5": True, "6": "é"},
        "nothing": None,
    }


def test_several_records_at_once() -> None:
    assert json.loads(to_json({"a": [Inner(1.0)]})) == {"a": [{"value": 1.0, "doubled": 2.0}]}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", Inner])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="which JSON has no form for"):
        to_json({"value": value})


def printed(show: Callable[[Console], Any], width: int = 100) -> str:
    text = io.StringIO()
    show(Console(width=width, file=text, highlight=False))
    return text.getvalue()


def test_tables() -> None:
    rows = [
        {"name": "[red]a[/red]\x1b[31m", "share": 0.123456, "ok": True},
        {"name": "b", "share": math.nan, "more": 7},
        {"name": "c", "share": None, "ok": False},
    ]
    lines = [line.rstrip() for line in printed(lambda console: console.print(table("Title", rows))).splitlines()]
    assert lines[0] == "Title"
    assert lines[1].split() == ["name", "share", "ok", "more"]
    assert lines[2].split() == ["[red]a[/red]\\x1b[31m", "0.1235", "yes"]
    assert lines[3].split() == ["b", "-", "7"]
    assert lines[4].split() == ["c", "no"]


def validation(**changes: Any) -> ValidationReport:
    parity = ParityReport(
        images=80,
        images_without_objects=1,
        tasks=("boxes", "masks"),
        reference=1000,
        candidate=999,
        matched=990,
        flips=2,
        lost=10,
        ghosts=7,
        matched_share=0.991,
        box_iou_mean=0.9999,
        box_iou_min=0.97,
        score_difference_max=1.2e-5,
        mask_iou_mean=0.9991,
        mask_iou_min=0.9,
        keypoint_distance_median=math.nan,
        keypoint_distance_max=math.nan,
        keypoint_score_difference_max=math.nan,
        worst=(WorstImage("bad.png", "9 lost"),),
        problems=(),
        tolerance=TOLERANCES["fp32"],
    )
    metrics = CocoMetrics(0.5, 0.75, 0.6, math.nan, 0.5, 0.55, 0.6)
    record: dict[str, Any] = {
        "model": "m.onnx",
        "reference": "c.safetensors",
        "device": "cpu",
        "reference_device": "torch",
        "precision": "fp32",
        "parity": parity,
        "coco": {"reference": {"boxes": metrics}, "candidate": {"boxes": metrics}},
        "milliseconds": 23.04,
        "reference_milliseconds": 41.06,
        "excluded": ("huge.png",),
        "notes": ("other weights",),
    }
    return ValidationReport(**(record | changes))


def test_a_validation_on_the_terminal() -> None:
    text = printed(lambda console: print_validation(validation(), console))
    for part in (
        "m.onnx on cpu against c.safetensors on torch",
        "80 images, 1 of them without objects",
        "990 matched, 2 at the threshold, 10 lost, 7 invented",
        "23.0 ms per image, the reference 41.1 ms",
        "1 image is too large for the model's canvas, left out: huge.png",
        "note: other weights",
        "bad.png: 9 lost",
        "FAILED: matched share 99.1 % is below 99.9 %",
    ):
        assert part in text.replace("\n", " ").replace("  ", " ")
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["matched share"].split()[2:] == ["99.1", "%", "at", "least", "99.9", "%", "no"]
    assert rows["mean mask IoU"].split()[3:] == ["0.9991", "at", "least", "0.995", "yes"]
    assert rows["lowest box IoU"].split()[3:] == ["0.97"]
    assert "keypoint" not in text
    assert "passed" not in text


def test_a_validation_that_passed() -> None:
    good = replace(validation().parity, matched_share=1.0, worst=())
    text = printed(lambda console: print_validation(validation(parity=good, coco=None, excluded=(), notes=()), console))
    assert text.rstrip().endswith("passed")
    assert "FAILED" not in text
    assert "COCO" not in text
    assert "note" not in text


def test_a_validation_as_json() -> None:
    record = json.loads(to_json(validation()))
    assert record["passed"] is False
    assert record["failures"] == ["matched share 99.1 % is below 99.9 %"]
    assert record["parity"]["matched"] == 990
    assert record["parity"]["keypoint_distance_median"] is None
    assert record["coco"]["reference"]["boxes"]["ap_small"] is None
    assert {"name", "value", "limit", "passed"} <= record["measures"][0].keys()
