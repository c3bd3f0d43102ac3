"""Earlier reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_record import RECORDS, failing

from edgemask.errors import UsageError
from edgemask.report import to_json
from edgemask.validation import Validation
from edgemask.validation.baseline import read_baseline


def written(folder: Path, record: Any) -> Path:
    path = folder / "report.json"
    path.write_text(record if isinstance(record, str) else to_json(record), encoding="utf-8")
    return path


def test_the_values_of_a_report_come_back(tmp_path: Path) -> None:
    report = failing()
    record = Validation((report,))
    baseline = read_baseline(written(tmp_path, record), "another device, which is no matter where there is only one")
    measured = {value.key: value.value for value in report.values if value.key and value.value == value.value}
    assert baseline.values == pytest.approx(measured)
    assert (baseline.device, baseline.date) == (report.model.device, report.environment.date)


def test_of_several_devices_the_same_one_is_taken(tmp_path: Path) -> None:
    record = RECORDS["two devices"]()
    path = written(tmp_path, record)
    for report in record.reports:
        assert read_baseline(path, report.model.device).device == report.model.device
    with pytest.raises(UsageError, match="not for cuda:7"):
        read_baseline(path, "cuda:7")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": "1.0"}', '{"format_version": "1.0", "reports": [1]}']
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is no report of edgemask validate"):
        read_baseline(written(tmp_path, text), "cpu")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    document = json.loads(to_json(Validation((failing(),)))) | {"format_version": "2.0"}
    with pytest.raises(UsageError, match=r"has the format 2\.0"):
        read_baseline(written(tmp_path, json.dumps(document)), "cpu")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the baseline"):
        read_baseline(tmp_path / "absent.json", "cpu")
