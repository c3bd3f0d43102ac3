"""Earlier reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_record import RECORDS, failing

from edgemask.errors import UsageError
from edgemask.report import to_json
from edgemask.validation import Validation
from edgemask.validation.baseline import baseline_for, read_baselines


def written(folder: Path, record: Any) -> Path:
    path = folder / "report.json"
    path.write_text(record if isinstance(record, str) else to_json(record), encoding="utf-8")
    return path


def test_the_values_of_a_report_come_back(tmp_path: Path) -> None:
    report = failing()
    record = Validation((report,))
    (baseline,) = read_baselines(written(tmp_path, record))
    measured = {value.key: value.value for value in report.values if value.key and value.value == value.value}
    assert baseline.values == pytest.approx(measured)
    assert (baseline.device, baseline.date) == (report.model.device, report.environment.date)


def test_of_several_devices_the_same_one_is_taken(tmp_path: Path) -> None:
    record = RECORDS["two devices"]()
    baselines = read_baselines(written(tmp_path, record))
    assert [baseline.device for baseline in baselines] == [report.model.device for report in record.reports]
    assert [baseline_for(baseline.device, baselines) for baseline in baselines] == list(baselines)
    assert baseline_for("cuda:7", baselines) is None
    assert baseline_for("cuda:7", baselines[:1]) == baselines[0]


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no figures"):
        read_baselines(written(tmp_path, Validation(())))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": "1.0"}', '{"format_version": "1.0", "reports": [1]}']
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is no report of edgemask validate"):
        read_baselines(written(tmp_path, text))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    document = json.loads(to_json(Validation((failing(),)))) | {"format_version": "2.0"}
    with pytest.raises(UsageError, match=r"has the format 2\.0"):
        read_baselines(written(tmp_path, json.dumps(document)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the baseline"):
        read_baselines(tmp_path / "absent.json")
