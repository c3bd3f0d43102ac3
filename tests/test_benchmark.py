"""The benchmark: turns, figures and notes on made-up contestants; the real ones on models of a few channels."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from toy_model import SCORES, SPEC, toy_proto, write_toy

from edgemask.benchmark import AGAINST, bench
from edgemask.benchmark.contestants import Contestant, FileContestant, Picture, Turn
from edgemask.benchmark.measurement import summarised, take_turns
from edgemask.benchmark.pytorch import export_legacy
from edgemask.checkpoints import save_checkpoint
from edgemask.cli import main
from edgemask.description import spec_of
from edgemask.errors import DeviceUnavailable, UnsupportedModel, UsageError
from edgemask.export import export_onnx
from edgemask.models import build
from edgemask.reference import ReferenceDetector
from edgemask.runtimes import write_model
from edgemask.runtimes.runtime import thread_count
from edgemask.scenes import draw_scene

TINY = {"widths": (8, 16, 16, 16), "pyramid_channels": 16, "head_width": 16, "min_size": 96, "max_size": 160}
BLACK = np.zeros((64, 64, 3), np.uint8)


class Scripted(Contestant):
    """Gives one prepared turn after the other, and writes its name into a common log."""

    device = "nowhere"
    load = 5.0

    def __init__(self, name: str, turns: Sequence[Turn], log: list[str], *, pastes_itself: bool = False) -> None:
        self.name = name
        self.pastes_itself = pastes_itself
        self._turns = iter(turns)
        self._log = log

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        self._log.append(f"{self.name} pasted" if paste else self.name)
        return next(self._turns)

    def close(self) -> None:
        raise AssertionError("whoever opened it closes it")


def steady(inference: float, *, paste: float | None = None) -> Turn:
    return Turn(preprocess=1.0, inference=inference, postprocess=2.0, paste=paste, detections=3)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and the file exported from it, of a model that finds 100 objects everywhere."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    spec = spec_of(model, builder="maskrcnn_compact_fpn", builder_arguments=TINY)
    save_checkpoint(folder / "tiny.safetensors", model, spec)
    export_onnx(model, folder / "tiny.onnx", spec=spec, max_detections=7, verify=False)
    return folder / "tiny.safetensors", folder / "tiny.onnx"


def test_contestants_take_turns_and_warm_up_rounds_are_not_counted() -> None:
    log: list[str] = []
    first = Scripted("a", [steady(value) for value in (90, 10, 20)], log)
    second = Scripted("b", [steady(value) for value in (80, 30, 40)], log)
    turns = take_turns([first, second], BLACK, repeats=2, warmup=1)
    assert log == ["a", "b"] * 3
    assert [[turn.inference for turn in own] for own in turns] == [[10, 20], [30, 40]]


def test_everybody_pastes_where_one_cannot_do_without() -> None:
    log: list[str] = []
    own = Scripted("a", [steady(10, paste=5)], log)
    other = Scripted("b", [steady(36, paste=0)], log, pastes_itself=True)
    turns = take_turns([own, other], BLACK, repeats=1, warmup=0)
    assert log == ["a pasted", "b pasted"]
    assert [own[0].pasted for own in turns] == [18, 39]


def test_figures_are_medians_and_ratios_of_medians() -> None:
    first = [steady(value, paste=4) for value in (10, 7, 7, 7, 7, 7, 7, 7, 7, 7, 100)]
    second = [steady(value) for value in (17, 18, 16, 30)]
    contestants = [Scripted("a", [], []), Scripted("b", [], [])]
    mine, other = summarised(contestants, [first, second])
    assert (mine.stages["total"].median, mine.stages["total"].p90, mine.stages["total"].ratio) == (10, 13, 1)
    assert other.stages["inference"].median == 17.5
    assert other.stages["inference"].ratio == 2.5
    assert other.stages["total"].ratio == 2.05
    assert other.stages["preprocess"].ratio == 1
    assert (mine.stages["pasted"].median, mine.stages["pasted"].p90) == (14, 17)
    assert "pasted" not in other.stages
    assert (other.detections, other.load, other.threads) == (3, 5.0, thread_count())


def test_a_stage_that_takes_no_time_has_no_ratio() -> None:
    turns = [Turn(1.0, 2.0, 0.0, None, 0)]
    (result,) = summarised([Scripted("a", [], [])], [turns])
    assert result.stages["postprocess"].ratio is None


def test_model_file_is_timed_within_predict(toy: Path) -> None:
    contestant = FileContestant(toy, "cpu")
    turn = contestant.turn(np.zeros((64, 96, 3), np.uint8), paste=True)
    contestant.close()
    assert turn.detections == len(SCORES)
    assert contestant.canvas == (64, 96)
    assert contestant.device == "cpu"
    assert contestant.load > 0
    assert turn.paste is not None
    assert min(turn.preprocess, turn.inference, turn.postprocess, turn.paste) > 0


def test_record(toy: Path) -> None:
    report = bench([toy], devices=["cpu", "cpu"], image_size=(64, 128), repeats=2, warmup=0)
    assert report.image_size == (64, 128)
    assert (report.warmup, report.repeats) == (0, 2)
    assert [result.name for result in report.contestants] == [str(toy)] * 2
    first = report.contestants[0]
    assert set(first.stages) == {"preprocess", "inference", "postprocess", "total"}
    assert {timing.ratio for timing in first.stages.values()} == {1}
    assert report.environment.threads == thread_count()
    assert {"edgemask", "python", "numpy", "torch"} <= report.environment.versions.keys()
    assert report.environment.processor


def test_the_image_is_the_one_given(toy: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(path)
    report = bench([toy], devices=["cpu"], image=path, repeats=1, warmup=0)
    assert (report.image, report.image_size) == (str(path), (32, 40))
    assert bench([toy], devices=["cpu"], image=BLACK, repeats=1, warmup=0).image_size == (64, 64)


def test_drawn_image_fills_a_fixed_canvas(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    write_model(toy_proto(), SPEC.replace(canvas=(64, 96)), path)
    report = bench([path], devices=["cpu"], repeats=1, warmup=0)
    assert report.image_size == report.contestants[0].canvas == (64, 96)


def test_differences_between_contestants_are_noted(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    write_model(toy_proto(), SPEC.replace(canvas=(64, 64), max_detections=50), other)
    notes = bench([toy, other], devices=["cpu"], image_size=(64, 128), repeats=1, warmup=0).notes
    assert any("in max_detections" in note and str(other) in note for note in notes)
    assert any("64 x 128: more than" in note and str(other) in note for note in notes)
    assert any("64 x 64" in note and "different sizes" in note for note in notes)
    assert bench([toy], devices=["cpu"], image_size=(64, 64), repeats=1, warmup=0).notes == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"models": []}, "nothing to measure", id="no model"),
        pytest.param({"devices": []}, "nothing to measure", id="no device"),
        pytest.param({"against": ["tvm"], "reference": "x"}, "'tvm'.*eager", id="unknown"),
        pytest.param({"against": ["eager"]}, "--reference", id="no reference"),
        pytest.param({"reference": "x.safetensors"}, "--against", id="idle reference"),
        pytest.param({"image": BLACK, "image_size": (8, 8)}, "either", id="two images"),
        pytest.param({"repeats": 0}, "0 repeats", id="no rounds"),
        pytest.param({"warmup": -1}, "-1 for warm-up", id="negative"),
    ],
)
def test_arguments_that_cannot_be_meant(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        bench(**{"models": ["absent.onnx"], **changes})


def test_models_that_need_more_than_an_image_are_refused(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("proposals", onnx.TensorProto.FLOAT, ["R", 5]))
    write_model(proto, SPEC.replace(proposals="input"), tmp_path / "fast.onnx")
    with pytest.raises(UsageError, match=r"fast\.onnx takes its proposals from the caller"):
        bench([tmp_path / "fast.onnx"], devices=["cpu"])
    write_model(toy_proto(), SPEC.replace(tasks=("semantic",), mask_size=None), tmp_path / "map.onnx")
    with pytest.raises(UsageError, match=r"map\.onnx labels pixels"):
        bench([tmp_path / "map.onnx"], devices=["cpu"])


def test_a_device_that_is_absent_ends_the_run(toy: Path) -> None:
    with pytest.raises(DeviceUnavailable):
        bench([toy], devices=["cpu", "cuda:93"], repeats=1)


@pytest.fixture
def other_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count() + 1)
    yield thread_count() + 1
    torch.set_num_threads(before)


def test_against_pytorch_and_torchvision(tiny: tuple[Path, Path], other_threads: int) -> None:
    """All do the same work: the limit of 7 detections is the file's, not the checkpoint's."""
    checkpoint, path = tiny
    report = bench(
        [path],
        devices=["cpu"],
        reference=str(checkpoint),
        against=AGAINST,
        image_size=(96, 120),
        repeats=1,
        warmup=0,
    )
    names = [result.name for result in report.contestants]
    assert names == [str(path), *AGAINST]
    assert [result.detections for result in report.contestants] == [7] * 4
    assert [result.canvas for result in report.contestants] == [(96, 128), (96, 128), None, None]
    assert [result.device for result in report.contestants] == ["cpu", "torch:cpu", "cpu", "cpu"]
    assert ["pasted" in result.stages for result in report.contestants] == [True, True, True, False]
    assert all(result.load > 0 for result in report.contestants)
    assert any(note.startswith("torchvision-onnx: export took") and "paste" in note for note in report.notes)
    assert not any("weights" in note for note in report.notes)
    assert torch.get_num_threads() == other_threads


def test_a_reference_with_other_weights_is_noted(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    spec = spec_of(model, builder="maskrcnn_compact_fpn", builder_arguments=TINY)
    save_checkpoint(tmp_path / "other.safetensors", model, spec)
    other = str(tmp_path / "other.safetensors")
    report = bench([tiny[1]], devices=["cpu"], reference=other, against=["eager"], repeats=1, warmup=0)
    assert any(note.startswith(f"{other} does not hold the weights") for note in report.notes)


@pytest.mark.parametrize("paste", [True, False])
def test_legacy_export_does_what_torchvision_does(paste: bool) -> None:
    """On an image of the traced size that the trace did not see."""
    import onnxruntime

    torch.manual_seed(0)
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    spec = spec_of(model).replace(max_detections=9)
    data = export_legacy(model, spec, draw_scene(0).image[:120, :150].copy(), paste=paste)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    pixels = draw_scene(1).image[:120, :150].copy()
    expected = ReferenceDetector(model, spec).predict(pixels)
    boxes, labels, scores, masks = session.run(None, {"image": pixels.transpose(2, 0, 1).astype(np.float32) / 255})
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    if paste:
        np.testing.assert_allclose(boxes, expected.boxes, atol=1e-2)
        assert masks.shape == (9, 1, 120, 150)
        assert ((masks[:, 0] > 0.5) != expected.bitmaps()).mean() < 1e-3
    else:
        np.testing.assert_allclose(boxes * 120 / 96, expected.boxes, atol=1e-2)
        assert expected.masks is not None
        np.testing.assert_allclose(masks[:, 0], expected.masks, atol=1e-4)


def test_legacy_export_that_fails_names_the_way_out() -> None:
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    spec = spec_of(model)
    model.roi_heads.mask_head = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1), Untraceable())
    with pytest.raises(UnsupportedModel, match=r"(?s)has no way.*--against"):
        export_legacy(model, spec, draw_scene(0).image)


class Untraceable(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("this layer has no way into a trace")


def test_command_prints_the_record(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", str(toy), "--device", "cpu", "--repeats", "2", "--warmup", "0", "--image-size", "48x64"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["image_size"] == [48, 64]
    assert record["contestants"][0]["stages"]["total"]["ratio"] == 1
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "toy.onnx on cpu" in printed
    assert "48 x 64 (H x W)" in printed
    assert "2, after 0 for warm-up" in printed
    assert f"{thread_count()} for each" in printed


def test_command_runs_eager_where_only_a_reference_is_named(
    tiny: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, path = tiny
    words = ["bench", str(path), "--device", "cpu", "--reference", str(checkpoint), "--repeats", "1", "--warmup", "0"]
    assert main([*words, "--image-size", "96x96", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["contestants"]] == [str(path), "eager"]


@pytest.mark.parametrize("words", [["--against", "eager"], ["--image-size", "12"], ["--repeats", "0"]])
def test_command_used_wrongly(toy: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(toy), "--device", "cpu", *words]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.soak
def test_sample_measures_every_goal(repository: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        Image.fromarray(draw_scene(index, seed=4).image).save(images / f"{index}.png")
    command = [sys.executable, "samples/bench_resnet50.py", "--images", str(images), "--output", str(tmp_path / "out")]
    command += ["--builder", "maskrcnn_compact_fpn", "--arguments", json.dumps(TINY), "--classes", "5"]
    command += ["--canvas", "96x96", "--device", "cpu", "--photographs", "2", "--repeats", "1", "--warmup", "0"]
    result = subprocess.run(
        command,
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    (stages,) = summary["stages"]
    assert stages["passed"], stages["worst"]
    # The weights make a model that uses all the room it has, as a trained one does on a crowded photograph.
    assert [count["detections"] for count in stages["counts"]] == [100, 100]
    assert all(one["detections"] == 100 for one in summary["bench"]["answer"]["contestants"])
    goals = summary["goals"]
    assert {name for name, goal in goals.items() if goal["goal"] is not None} == {
        "export_seconds",
        "verified_export_seconds",
        "export_gib",
        "stages_equal",
        "speed_over_eager",
        "speed_over_torchvision_onnx",
    }
    assert all(goal["measured"] > 0 for goal in goals.values())
