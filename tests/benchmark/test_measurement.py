"""The benchmark as a whole, on files of a few nodes and a PyTorch model of a few channels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from report_record import passing
from tiny_model import TINY, TinyFiles, write_tiny
from toy_model import SPEC, toy_proto, write_toy

from edgemask.benchmark import AGAINST, BenchPlan, bench
from edgemask.checkpoints import save_checkpoint
from edgemask.description import spec_of
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.models import build
from edgemask.processors import thread_count
from edgemask.report import to_json
from edgemask.runs import file_digest
from edgemask.runtimes import write_model
from edgemask.runtimes.options import RuntimeOptions
from edgemask.validation.reports import ModelFacts, Validation

BLACK = np.zeros((64, 64, 3), np.uint8)
ONCE = BenchPlan(repeats=1, warmup=0)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyFiles:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def test_record(toy: Path) -> None:
    plan = BenchPlan(repeats=2, warmup=0)
    report = bench([toy], devices=["cpu", "cpu"], image_size=(64, 128), plan=plan)
    assert report.image_size == (64, 128)
    assert report.plan == plan
    assert [result.name for result in report.contestants] == [str(toy)] * 2
    first = report.contestants[0]
    assert set(first.stages) == {"preprocess", "inference", "postprocess", "total"}
    assert {timing.ratio for timing in first.stages.values()} == {1}
    assert (first.precision, first.sha256, first.throughput, first.scenario) == ("file", file_digest(toy), (), None)
    assert min(first.first_runs.first, first.first_runs.new_shape or 0, first.first_runs.new_shape_again or 0) > 0
    assert report.environment.threads == first.threads == thread_count()
    assert {"edgemask", "python", "numpy", "torch"} <= report.environment.versions.keys()
    assert report.environment.processor
    assert report.refusals == ()


def test_everything_that_can_be_measured_of_a_file(toy: Path) -> None:
    plan = BenchPlan(repeats=2, warmup=1, batches=(1, 4), streams=2, scenario="single-stream", duration=0.05)
    (result,) = bench([toy], devices=["cpu"], image=BLACK, plan=plan).contestants
    (calls,) = result.throughput
    assert (calls.images, calls.streams, calls.at_a_time) == (1, 2, 1)
    assert calls.images_per_second > 0
    assert result.scenario is not None
    assert result.scenario.seconds >= 0.05
    assert result.memory is None


def test_the_image_is_the_one_given(toy: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(path)
    report = bench([toy], devices=["cpu"], image=path, plan=ONCE)
    assert (report.image, report.image_size) == (str(path), (32, 40))
    stages = report.contestants[0].stages
    assert stages["decode"].median > 0
    assert stages["end_to_end"].median == stages["decode"].median + stages["total"].median
    assert bench([toy], devices=["cpu"], image=BLACK, plan=ONCE).image_size == (64, 64)


def test_drawn_image_fills_a_fixed_canvas(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    write_model(toy_proto(), SPEC.replace(canvas=(64, 96)), path)
    report = bench([path], devices=["cpu"], plan=ONCE)
    assert report.image_size == report.contestants[0].canvas == (64, 96)
    assert report.contestants[0].first_runs.new_shape is None


def test_differences_between_contestants_are_noted(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    write_model(toy_proto(), SPEC.replace(canvas=(64, 64), max_detections=50), other)
    notes = bench([toy, other], devices=["cpu"], image_size=(64, 128), plan=ONCE).notes
    assert any("in max_detections" in note and str(other) in note for note in notes)
    assert any("64 x 128: more than" in note and str(other) in note for note in notes)
    assert any("64 x 64" in note and "different sizes" in note for note in notes)
    alone = bench([toy], devices=["cpu"], image_size=(64, 64), plan=ONCE).notes
    assert [note for note in alone if "machine" not in note] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"models": []}, "nothing to measure", id="no model"),
        pytest.param({"devices": []}, "nothing to measure", id="no device"),
        pytest.param({"devices": ["tpu"]}, "no device 'tpu'", id="no such device"),
        pytest.param({"against": ["tvm"], "reference": "x"}, "'tvm'.*eager", id="unknown"),
        pytest.param({"against": ["eager"]}, "--reference", id="no reference"),
        pytest.param({"reference": "x.safetensors"}, "--against", id="idle reference"),
        pytest.param({"image": BLACK, "image_size": (8, 8)}, "either", id="two images"),
        pytest.param({"reference_device": "tpu"}, "no device 'tpu'.*cuda", id="no such device of PyTorch"),
        pytest.param({"reference_device": "cuda:x"}, "no device 'cuda:x'", id="no number"),
        pytest.param({"accuracy": ["absent.json"]}, "cannot read absent.json", id="no report"),
    ],
)
def test_arguments_that_cannot_be_meant(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        bench(**{"models": ["absent.onnx"], **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repeats": 0}, "repeats: expected at least 1, got 0"),
        ({"warmup": -1}, "warmup: expected at least 0, got -1"),
        ({"streams": 0}, "streams: expected at least 1, got 0"),
        ({"batches": (4, 0)}, "batch: expected at least 1 image, got 0"),
        ({"scenario": "server"}, "scenario: expected single-stream or multi-stream, got 'server'"),
        ({"duration": 60.0}, "--scenario single-stream"),
        ({"scenario": "single-stream", "duration": 0.0}, "seconds above 0"),
        ({"scenario": "single-stream", "duration": float("nan")}, "seconds above 0"),
    ],
)
def test_a_plan_that_cannot_be_meant(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BenchPlan(**changes)


def test_models_that_need_more_than_an_image_are_refused(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("proposals", onnx.TensorProto.FLOAT, ["R", 5]))
    write_model(proto, SPEC.replace(proposals="input"), tmp_path / "fast.onnx")
    with pytest.raises(UsageError, match=r"fast\.onnx takes its proposals from the caller"):
        bench([tmp_path / "fast.onnx"], devices=["cpu"])
    write_model(toy_proto(), SPEC.replace(tasks=("semantic",), mask_size=None), tmp_path / "map.onnx")
    with pytest.raises(UsageError, match=r"map\.onnx labels pixels"):
        bench([tmp_path / "map.onnx"], devices=["cpu"])


def test_a_device_that_is_absent_is_listed(toy: Path) -> None:
    report = bench([toy], devices=["cuda:93", "cpu"], plan=ONCE)
    assert [result.device for result in report.contestants] == ["cpu"]
    assert report.contestants[0].stages["total"].ratio == 1
    (refusal,) = report.refusals
    assert refusal.title == "toy.onnx on cuda:93"
    assert refusal.reason


def test_a_precision_that_a_device_lacks_is_listed(toy: Path) -> None:
    report = bench([toy], devices=["cpu"], precisions=["file", "bf16"], plan=ONCE)
    assert [result.precision for result in report.contestants] == ["file"]
    assert [(refusal.precision, "precision" in refusal.reason) for refusal in report.refusals] == [("bf16", True)]


def test_with_nobody_left_the_first_reason_is_the_error(toy: Path) -> None:
    with pytest.raises(DeviceUnavailable):
        bench([toy], devices=["cuda:93"], plan=ONCE)
    with pytest.raises(UsageError, match="precision"):
        bench([toy], devices=["cpu"], precisions=["bf16"], plan=ONCE)


def test_a_file_that_is_no_model_ends_the_benchmark(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        bench([toy, tmp_path / "other.onnx"], devices=["cpu"], plan=ONCE)


def test_threads_are_those_of_the_options(toy: Path) -> None:
    report = bench([toy], devices=["cpu"], options=RuntimeOptions(threads=1), image=BLACK, plan=ONCE)
    assert report.environment.threads == report.contestants[0].threads == 1


def test_accuracy_comes_from_reports(toy: Path, tmp_path: Path) -> None:
    facts = ModelFacts(
        name="elsewhere/toy.onnx", kind="onnx", device="cpu", sha256=file_digest(toy), bytes=1, precision="fp32"
    )
    path = tmp_path / "report.json"
    path.write_text(to_json(Validation((passing(model=facts),))), encoding="utf-8")
    report = bench([toy], devices=["cpu"], image=BLACK, accuracy=[path], plan=ONCE)
    accuracy = report.contestants[0].accuracy
    assert accuracy is not None
    assert accuracy.values["mask_ap"] == 0.4421
    assert not any("no report" in note for note in report.notes)


@pytest.fixture
def other_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count() + 1)
    yield thread_count() + 1
    torch.set_num_threads(before)


def test_against_pytorch_and_torchvision(tiny: TinyFiles, other_threads: int) -> None:
    """All do the same work: the limit of 7 detections is the file's, not the checkpoint's."""
    report = bench(
        [tiny.path],
        devices=["cpu"],
        reference=str(tiny.checkpoint),
        against=[name for name in AGAINST if name != "compile"],
        image_size=(96, 120),
        plan=BenchPlan(repeats=1, warmup=0, batches=(2,), streams=2),
    )
    others = report.contestants[1:]
    assert [result.name for result in others] == ["eager", "torchvision-onnx", "torchvision-onnx-unpasted"]
    assert [result.detections for result in others] == [7] * 3
    assert [result.canvas for result in report.contestants] == [(96, 128), (96, 128), None, None]
    assert [result.device for result in report.contestants] == ["cpu", "torch:cpu", "cpu", "cpu"]
    assert ["pasted" in result.stages for result in report.contestants] == [True, True, True, False]
    assert [len(result.throughput) for result in report.contestants] == [1, 1, 0, 0]
    assert (others[0].throughput[0].images, others[0].throughput[0].streams) == (2, 1)
    assert others[0].first_runs.new_shape is not None
    assert all(result.load > 0 for result in report.contestants)
    assert [refusal.title for refusal in report.refusals] == ["eager-fp16 on torch:cpu, fp16"]
    assert any(note.startswith("torchvision-onnx: export took") and "paste" in note for note in report.notes)
    assert not any("weights" in note for note in report.notes)
    assert torch.get_num_threads() == other_threads


def test_a_compiler_that_fails_leaves_the_others(tiny: TinyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(module: torch.nn.Module) -> torch.nn.Module:
        class Broken(torch.nn.Module):
            def forward(self, *_: object) -> None:
                raise RuntimeError("no working C++ compiler")

        return Broken()

    monkeypatch.setattr(torch, "compile", failing)
    report = bench(
        [tiny.path], devices=["cpu"], reference=str(tiny.checkpoint), against=["compile", "eager"], plan=ONCE
    )
    assert [result.name for result in report.contestants] == [str(tiny.path), "eager"]
    (refusal,) = report.refusals
    assert refusal.title == "compile on torch:cpu"
    assert "no working C++ compiler" in refusal.reason


def test_a_reference_with_other_weights_is_noted(tiny: TinyFiles, tmp_path: Path) -> None:
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    spec = spec_of(model, builder="maskrcnn_compact_fpn", builder_arguments=TINY)
    save_checkpoint(tmp_path / "other.safetensors", model, spec)
    other = str(tmp_path / "other.safetensors")
    report = bench([tiny.path], devices=["cpu"], reference=other, against=["eager"], plan=ONCE)
    assert any(note.startswith(f"{other} does not hold the weights") for note in report.notes)


def test_a_reference_on_a_gpu_that_is_not_there_is_listed(tiny: TinyFiles) -> None:
    report = bench(
        [tiny.path],
        devices=["cpu"],
        reference=str(tiny.checkpoint),
        against=["eager"],
        reference_device="cuda:93",
        plan=ONCE,
    )
    assert [refusal.title for refusal in report.refusals] == ["eager on torch:cuda:93"]


def test_trouble_with_one_way_of_calling_leaves_the_figures(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise DeviceUnavailable("the device went away", "plug it in")

    monkeypatch.setattr("edgemask.benchmark.measurement.throughputs", failing)
    monkeypatch.setattr("edgemask.benchmark.measurement.measure_memory", failing)
    report = bench([toy], devices=["cpu"], image=BLACK, plan=BenchPlan(repeats=1, warmup=0, streams=2, memory=True))
    assert report.contestants[0].stages["total"].median > 0
    assert "toy.onnx on cpu: the device went away" in report.notes
