"""The script that gates a pull request, run as a CI runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from coloured import write_folder
from toy_model import write_toy

from edgemask.validation import read_gate

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, a model, another one, and a command `edgemask`."""
    write_folder(tmp_path)
    write_toy(tmp_path / "toy.onnx")
    write_toy(tmp_path / "other.onnx", scores=(0.9, 0.3))
    command = tmp_path / "bin" / "edgemask"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgemask "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


def gate(repository: Path, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(repository / "samples" / "ci" / "gate.sh"), *words],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(repository)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_that_holds(repository: Path, folder: Path) -> None:
    result = gate(repository, folder, "toy.onnx", "images", "out", REFERENCE="toy.onnx")
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (folder / "out" / "report").iterdir()}
    assert names == {"report.html", "report.json", "report.md", "junit.xml"}


def test_a_model_that_does_not(repository: Path, folder: Path) -> None:
    summary = folder / "summary.md"
    environment = {"REFERENCE": "toy.onnx", "GITHUB_STEP_SUMMARY": str(summary)}
    result = gate(repository, folder, "other.onnx", "images", "out", **environment)
    assert result.returncode == 1, result.stderr
    assert "matched share 50 % is below 99 %" in result.stdout
    assert summary.read_text(encoding="utf-8") == (folder / "out" / "report" / "report.md").read_text(encoding="utf-8")


def test_wrong_use(repository: Path, folder: Path) -> None:
    assert gate(repository, folder, "toy.onnx").returncode == 2
    assert "CHECKPOINT IMAGES OUTPUT" in gate(repository, folder).stderr
    assert gate(repository, folder, "toy.onnx", "absent", "out", REFERENCE="toy.onnx").returncode == 2
    alone = gate(repository, folder, "toy.onnx", "images", "out")
    assert alone.returncode != 0
    assert "an .onnx needs its reference" in alone.stderr


def test_the_gate_file_is_one(repository: Path) -> None:
    limits = {(limit.kind, limit.key): limit.value for limit in read_gate(repository / "samples" / "ci" / "gate.toml")}
    assert limits["least", "matched_share"] == 0.99
    assert limits["max_drop", "ap"] == 0.005


def test_the_workflow_calls_the_script_and_keeps_the_report(repository: Path) -> None:
    workflow = yaml.safe_load((repository / "samples" / "ci" / "github.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    runs = [step.get("run", "") for step in steps]
    (called,) = [run for run in runs if "gate.sh" in run]
    assert (repository / called.split()[1]).is_file()
    (kept,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert kept["with"]["path"] == f"{called.split()[4]}/report"
