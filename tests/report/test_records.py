"""Records as JSON text."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_record import HOSTILE, RECORDS, failing

from edgemask.report import to_json
from edgemask.validation.baseline import read_baselines


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
    picture: bytes = field(default=b"JPEG", metadata={"json": False})
    words: str = field(default="", metadata={"unit": "px"})


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
        "words": "",
    }


def test_several_records_at_once() -> None:
    assert json.loads(to_json({"a": [Inner(1.0)]})) == {"a": [{"value": 1.0, "doubled": 2.0}]}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", Inner])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="which JSON has no form for"):
        to_json({"value": value})


@pytest.mark.parametrize("name", RECORDS)
def test_a_validation_as_json(name: str) -> None:
    """The same text for equal records; what was found is in it, without the pictures."""
    validation = RECORDS[name]()
    text = to_json(validation)
    assert text == to_json(RECORDS[name]())
    assert text.isascii()
    document = json.loads(text)
    assert document["format_version"] == "1.0"
    assert document["passed"] == validation.passed
    for report, entry in zip(validation.reports, document["reports"], strict=True):
        assert entry["failures"] == list(report.failures)
        assert entry["passed"] == report.passed
        assert entry["culprit"] == report.culprit
        assert entry["model"]["name"] == report.model.name
        assert len(entry["gallery"]) == len(report.gallery)
        assert not any({"reference", "candidate"} & picture.keys() for picture in entry["gallery"])


def test_hostile_names_come_back_as_they_were() -> None:
    (report, _) = json.loads(to_json(RECORDS["hostile"]()))["reports"]
    assert report["class_names"][0] == report["notes"][0] == HOSTILE


def test_a_report_is_the_baseline_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(to_json(RECORDS["two devices"]()), encoding="utf-8")
    _, openvino = read_baselines(path)
    values = openvino.values
    expected = {value.key: value.value for value in failing().values}
    assert values["matched_share"] == expected["matched_share"]
    assert values["latency_ratio"] == expected["latency_ratio"]
    assert values["mask_ap"] == expected["mask_ap"]
