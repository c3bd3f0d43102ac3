"""`edgemask bench` at the command line."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_model import write_tiny
from toy_model import write_toy

from edgemask.cli import main
from edgemask.processors import thread_count


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


def test_command_prints_the_record(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", str(toy), "--device", "cpu", "--repeats", "2", "--warmup", "0", "--image-size", "48x64"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["image_size"] == [48, 64]
    assert record["contestants"][0]["stages"]["total"]["ratio"] == 1
    assert record["contestants"][0]["stages"]["total"]["p99"] is None
    assert record["contestants"][0]["title"] == "toy.onnx on cpu"
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "toy.onnx on cpu" in printed
    assert "48 x 64 (H x W)" in printed
    assert "2, after 0 for warm-up" in printed
    assert f"{thread_count()} for each" in printed


def test_command_measures_all_that_it_is_asked_for(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    figures, plot = tmp_path / "figures.csv", tmp_path / "plot.SVG"
    words = ["bench", str(toy), "--device", "cpu", "--device", "cuda:93", "--precision", "file", "--precision", "bf16"]
    words += ["--option", "threads=1", "--repeats", "10", "--warmup", "0", "--image-size", "64x64"]
    words += ["--batch", "2", "--streams", "2", "--memory", "--scenario", "single-stream", "--duration", "0.2"]
    assert main([*words, "--csv", str(figures), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    for title in (
        "Milliseconds for",
        "Stages,",
        "Once,",
        "Several images",
        "MLPerf single-stream",
        "Peak memory",
        "Not",
    ):
        assert any(line.startswith(title) for line in printed.splitlines()), title
    assert "1 for each" in printed
    assert "toy.onnx on cpu, bf16" in printed  # refused
    with figures.open(newline="") as file:
        measures = [row["measure"] for row in csv.DictReader(file)]
    assert measures == ["image", "calls", "single-stream"]
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_command_runs_eager_where_only_a_reference_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, path = write_tiny(tmp_path)
    words = ["bench", str(path), "--device", "cpu", "--reference", str(checkpoint), "--repeats", "1", "--warmup", "0"]
    assert main([*words, "--image-size", "96x96", "--plot", str(tmp_path / "plot.html"), "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["contestants"]] == [str(path), "eager"]
    assert (tmp_path / "plot.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "eager"], "--reference"),
        (["--image-size", "12"], "--image-size"),
        (["--repeats", "0"], "--repeats"),
        (["--precision", "int4"], "precision"),
        (["--option", "threads"], "KEY=VALUE"),
        (["--scenario", "offline"], "single-stream"),
        (["--duration", "5"], "--scenario"),
        (["--plot", "plot.png"], ".svg or .html"),
        (["--accuracy", "absent.json"], "absent.json"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_command_used_wrongly(toy: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(toy), "--device", "cpu", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_a_device_that_cannot_be_used_is_exit_code_3(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(toy), "--device", "cuda:93"]) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_a_folder_that_is_missing_is_said_before_the_work(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "absent.onnx", option, "nowhere/figures.svg"]) == 3
    assert "there is no folder nowhere" in capsys.readouterr().err
