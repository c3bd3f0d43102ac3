"""Accuracy out of the reports of validations."""

import json
from pathlib import Path
from typing import Any

import pytest
from contenders import result
from report_record import RECORDS, passing

from edgemask.benchmark.accuracy import accuracy_of, common_metric, read_accuracies
from edgemask.benchmark.records import Accuracy
from edgemask.errors import UsageError
from edgemask.report import to_json
from edgemask.validation.reports import Validation, ValidationReport


def write(path: Path, *reports: ValidationReport) -> Path:
    path.write_text(to_json(Validation(reports)), encoding="utf-8")
    return path


def test_both_sides_of_a_validation_with_annotations(tmp_path: Path) -> None:
    report = passing()
    path = write(tmp_path / "report.json", report)
    known = read_accuracies([path])
    own = accuracy_of(result(sha256=report.model.sha256, device=report.model.device), known)
    assert own is not None
    assert (own.report, own.images) == (str(path), report.images.compared)
    assert own.values == {"mask_ap": 0.4421, "box_ap": 0.4421, "matched_share": 1.0}
    eager = result("eager", sha256=report.reference.sha256, device="torch:cpu", precision="fp32")
    found = accuracy_of(eager, known)
    assert found is not None
    assert found.values == {"mask_ap": 0.4421, "box_ap": 0.4421}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sha256": "0" * 64}, id="another file of that name"),
        pytest.param({"device": "openvino:CPU"}, id="another device"),
        pytest.param({"precision": "bf16"}, id="another arithmetic"),
        pytest.param({"sha256": None}, id="nobody knows which"),
    ],
)
def test_what_was_not_validated_has_no_accuracy(tmp_path: Path, changes: dict[str, Any]) -> None:
    report = passing()
    known = read_accuracies([write(tmp_path / "report.json", report)])
    same: dict[str, Any] = {"name": report.model.name, "sha256": report.model.sha256, "device": report.model.device}
    assert accuracy_of(result(**same), known) is not None
    assert accuracy_of(result(**same | changes), known) is None


@pytest.mark.parametrize("name", ["compile", "eager-fp16"])
def test_what_pytorch_compiles_or_rounds_was_not_validated(tmp_path: Path, name: str) -> None:
    report = passing()
    known = read_accuracies([write(tmp_path / "report.json", report)])
    precision = "fp16" if name == "eager-fp16" else "fp32"
    other = result(name, sha256=report.reference.sha256, device="torch:cpu", precision=precision)
    assert accuracy_of(other, known) is None


def test_the_last_report_counts(tmp_path: Path) -> None:
    report = passing()
    known = read_accuracies([write(tmp_path / name, report) for name in ("old.json", "new.json")])
    found = accuracy_of(result(sha256=report.model.sha256, device=report.model.device), known)
    assert found is not None
    assert found.report == str(tmp_path / "new.json")


def test_without_annotations_ap_against_the_reference_is_no_accuracy(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", passing())
    document = json.loads(path.read_text())
    document["reports"][0]["coco"]["truth"] = "reference"
    path.write_text(json.dumps(document))
    (own,) = read_accuracies([path])
    assert own.accuracy.values == {"matched_share": 1.0}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_report_can_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(to_json(RECORDS[name]()), encoding="utf-8")
    assert all(set(one.accuracy.values) for one in read_accuracies([path]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no report of edgemask validate"),
        ("[]", "is no report of edgemask validate"),
        ('{"format_version": "1.0", "reports": [{}]}', "is no report of edgemask validate"),
        ('{"format_version": "2.0", "reports": []}', "has the format 2.0"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_accuracies([path])
    with pytest.raises(UsageError, match="cannot read"):
        read_accuracies([tmp_path / "absent.json"])


def test_the_metric_of_most() -> None:
    boxes, masks = Accuracy("r", 8, {"box_ap": 0.5}), Accuracy("r", 8, {"box_ap": 0.5, "mask_ap": 0.4})
    assert common_metric([masks, masks]) == "mask_ap"
    assert common_metric([masks, boxes]) == "box_ap"
    assert common_metric([]) is None
