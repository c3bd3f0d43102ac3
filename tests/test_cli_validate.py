"""`edgemask validate`: what it writes, prints and ends with."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from coloured import write_folder
from toy_model import write_toy

from edgemask.cli import main

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


@pytest.fixture
def words(folder: Path) -> list[str]:
    """A model against itself."""
    toy = str(write_toy(folder / "toy.onnx"))
    return ["validate", toy, "--reference", toy, "--images", str(folder / "images"), "--device", "cpu"]


@pytest.fixture
def failing(folder: Path, words: list[str]) -> list[str]:
    """Another model against it."""
    return ["validate", str(write_toy(folder / "other.onnx", scores=(0.9, 0.3))), *words[2:]]


def test_every_form_of_the_report_is_written(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = folder / "report"
    assert main([*words, "--report", str(report), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert json.loads((report / "report.json").read_text()) == record
    assert record["format_version"] == "1.0"
    assert record["passed"] is True
    (one,) = record["reports"]
    assert (one["model"]["device"], one["parity"]["images"], len(one["gallery"])) == ("cpu", 5, 5)
    assert "reference" not in one["gallery"][0]
    page = (report / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/jpeg;base64,") == 10
    assert "passed" in (report / "report.md").read_text()
    assert ElementTree.parse(report / "junit.xml").getroot().find(".//failure") is None
    assert {path.name for path in report.iterdir()} == {"report.html", "report.json", "report.md", "junit.xml"}


@pytest.mark.openvino
def test_several_devices(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words, "--device", "openvino", "--limit", "1"]
    before, gate = words[5] + "-before", words[5] + ".toml"
    Path(gate).write_text("[max_regression]\nmatched_share = 0.1\n", encoding="utf-8")
    assert main([*words, "--report", before]) == 0
    capsys.readouterr()
    assert main([*words, "--baseline", f"{before}/report.json", "--gate", gate, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["model"]["device"] for one in record["reports"]] == ["cpu", "openvino:CPU"]
    assert [one["parity"]["images"] for one in record["reports"]] == [1, 1]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for part in ("cpu", "openvino:CPU", "matched share", "next: edgemask predict"):
        assert part in shown


def test_a_failure_is_exit_code_1(folder: Path, failing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    report = folder / "report"
    assert main([*failing, "--report", str(report)]) == 1
    shown = capsys.readouterr().out
    assert "matched share 50 % is below 99.9 %" in shown
    assert "next:" not in shown
    assert "FAILED" in (report / "report.md").read_text()
    assert ElementTree.parse(report / "junit.xml").getroot().find(".//failure") is not None
    assert main([*failing, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--min-matched", "0.5"], 0),
        (["--min-matched", "0.51"], 1),
        (["--min-matched", "0.5", "--max-drop", "1"], 0),
        (["--min-matched", "0.5", "--max-size", "1"], 0),
        (["--min-matched", "0.5", "--max-size", "0.0001"], 1),
        (["--min-matched", "0.5", "--min-mask-iou", "1.1"], 2),
        (["--min-matched", "nan"], 2),
        (["--max-drop", "-0.1"], 2),
        (["--min-matched", "0.5", "--max-latency-ratio", "0"], 1),
    ],
)
def test_flags_are_gates(failing: list[str], flags: list[str], code: int) -> None:
    assert main([*failing, *flags]) == code


def test_a_gate_file_decides_alone(folder: Path, failing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    gate = folder / "gate.toml"
    gate.write_text("[least]\nmatched_share = 0.4\n", encoding="utf-8")
    assert main([*failing, "--gate", str(gate)]) == 0
    assert main([*failing, "--gate", str(gate), "--min-matched", "0.6"]) == 1
    gate.write_text("[least]\nmatched_share = 0.4\noks = 0.5\n", encoding="utf-8")
    capsys.readouterr()
    assert main([*failing, "--gate", str(gate)]) == 1
    assert "oks could not be measured" in capsys.readouterr().out
    gate.write_text("[least]\nmatched_shares = 0.4\n", encoding="utf-8")
    assert main([*failing, "--gate", str(gate)]) == 2
    assert "did you mean matched_share?" in capsys.readouterr().err


def test_a_baseline_is_what_was_before(folder: Path, words: list[str], failing: list[str]) -> None:
    gate = folder / "gate.toml"
    gate.write_text("[max_regression]\nmatched_share = 0.1\n", encoding="utf-8")
    before = folder / "before"
    assert main([*words, "--report", str(before)]) == 0
    options = ["--gate", str(gate), "--baseline", str(before / "report.json")]
    assert main([*words, *options]) == 0
    assert main([*failing, *options]) == 1
    assert main([*words, "--gate", str(gate)]) == 1, "a regression from nothing known cannot hold"
    assert main([*words, *options[:2], "--baseline", str(gate)]) == 2


def test_an_outcome_of_before_does_not_survive(folder: Path, words: list[str]) -> None:
    report = folder / "report"
    assert main([*words, "--report", str(report)]) == 0
    assert main([*words, "--report", str(report), "--baseline", str(report / "report.json")]) == 2
    assert (report / "report.md").exists()
    (folder / "images" / "1.png").write_bytes(b"no picture")
    assert main([*words, "--report", str(report)]) == 2
    assert list(report.iterdir()) == []


def test_a_stored_run_takes_the_place_of_the_reference(folder: Path, words: list[str]) -> None:
    run = str(folder / "run.npz")
    assert main([*words, "--save-run", run]) == 0
    stored = [run if word == words[1] else word for word in words[2:]]
    assert main(["validate", words[1], *stored]) == 0
    assert main([*words, "--save-run", str(folder / "absent" / "run.npz")]) == 3
    assert main(["validate", words[1], *stored, "--save-run", run]) == 2


def test_what_cannot_be_meant(folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--resume"]) == 2
    assert "--report" in capsys.readouterr().err
    assert main([*words, "--seed", "1"]) == 2
    assert main([*words, "--save-run", str(folder / "run")]) == 2
    capsys.readouterr()
    assert main([*words, "--device", "openvin"]) == 2
    printed = capsys.readouterr().err
    assert "there is no device 'openvin'" in printed
    (folder / "images" / "1.png").write_bytes(b"no picture")
    assert main(words) == 2
    assert "1 of 5 images cannot be used: 1.png" in capsys.readouterr().err
    assert main([*words, "--skip-bad-images"]) == 0
    assert "1.png" in capsys.readouterr().out
