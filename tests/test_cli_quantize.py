"""`edgemask quantize`: what it writes, prints and ends with."""

import json
from pathlib import Path

import pytest
from layered import write_layered
from pictures import smooth, written

from edgemask.cli import main
from edgemask.quantization import RECIPES, search_laboratory
from edgemask.quantization.accuracy import Accuracy, Judge, Kept
from edgemask.quantization.latency import Comparison
from edgemask.runtimes import ModelFile


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command; times are known before."""

    def sizes_decide(first: ModelFile, second: ModelFile, device: str, images: object) -> Comparison:
        times = [
            (8.0 if model.spec.precision == "fp32" else len(model.data) / 10_000,) * 4 for model in (first, second)
        ]
        return Comparison(device=device, first=times[0], second=times[1])

    monkeypatch.setattr(search_laboratory, "compare_latency", sizes_decide)
    write_layered(tmp_path / "model.onnx")
    written(tmp_path / "images", [smooth(seed) for seed in range(3)])
    files = [str(tmp_path / "model.onnx"), "-o", str(tmp_path / "int8.onnx"), "--calibration", str(tmp_path / "images")]
    return ["quantize", *files, "--device", "cpu"]


def test_the_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(recipe.name in printed for recipe in RECIPES)
    assert "mask_head/predictor/*" in printed
    assert main(["quantize", "--list", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["recipes"]] == [
        recipe.name for recipe in RECIPES
    ]


def test_a_file_is_written_and_told_of(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "int8.onnx").is_file()
    assert not (tmp_path / "int8.onnx.partial").exists()
    assert "- 3 images are few to take ranges from: give 100 or more" in printed
    assert "3 of 3" in printed
    assert "FP32 ms" in printed
    assert f"next: edgemask validate {tmp_path / 'int8.onnx'}" in printed
    assert main(["inspect", str(tmp_path / "int8.onnx")]) == 0
    assert "layers by recipe default; calibrated on 3 images" in capsys.readouterr().out


def test_json_is_the_whole_record(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--images", str(tmp_path / "images"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["passed"] is True
    assert record["search"]["accuracy"]["kept"][0]["what"] == "matched share"
    assert {stage["stage"] for stage in record["stages"]} == {"backbone", "fpn", "rpn", "box_head"}
    assert record["calibration"]["images"] == 3


def test_a_budget_that_is_not_met_ends_with_1(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(device="cpu", what="mask IoU", reference=1.0, own=0.4, allowed=0.05)
    poor = Accuracy(kept=(kept,), failures=("cpu: mask IoU is 0.4, at least 0.95 is asked",))
    monkeypatch.setattr(Judge, "measure", lambda judge, candidate: poor)
    assert main([*words, "--images", str(tmp_path / "images")]) == 1
    printed = capsys.readouterr().out
    assert "was not written" in printed
    assert "not reached: cpu: mask IoU is 0.4" in printed
    assert "next:" not in printed
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--recipe", "minmx"], "there is no recipe 'minmx'\ndid you mean minmax?"),
        (["--max-drop", "0.01"], "max_drop: there are no validation images"),
        (["--resume"], "nothing is kept in"),
        (["--device", "auto"], "expected the names of devices"),
    ],
)
def test_wrong_use_ends_with_2(
    words: list[str], more: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    assert problem in capsys.readouterr().err


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "model.onnx"]) == 2
    assert "there is no --output FILE, --calibration DIR" in capsys.readouterr().err
