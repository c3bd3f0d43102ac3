import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from known_times import size_decides
from layered import write_layered, write_padded
from pictures import noise, smooth, written
from toy_model import write_toy

from edgemask.errors import (
    CalibrationError,
    DatasetError,
    EdgemaskError,
    ModelFileError,
    OutputError,
    ParityError,
    UnsupportedModel,
    UsageError,
)
from edgemask.quantization import Recipe, quantize, search_laboratory
from edgemask.quantization.accuracy import Accuracy, Judge, Kept
from edgemask.quantization.calibration import calibrate
from edgemask.quantization.latency import Comparison
from edgemask.quantization.ranges import Histogram
from edgemask.runtimes import ModelFile, load, read_model, write_model

ALL = 11  # layers that the default recipe quantizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`model.onnx`, and images to calibrate with in `images`."""
    write_layered(tmp_path / "model.onnx")
    written(tmp_path / "images", [smooth(seed) for seed in range(4)])
    return tmp_path


@pytest.fixture(autouse=True)
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_laboratory, "compare_latency", size_decides)


def quantized(folder: Path, **options: Any) -> Any:
    options = {"device": "cpu"} | options
    return quantize(folder / "model.onnx", folder / "int8.onnx", folder / "images", **options)


def test_one_command_writes_a_smaller_file_that_runs(folder: Path) -> None:
    report = quantized(folder)
    assert report.passed
    model = read_model(folder / "int8.onnx")
    assert len(model.data) < 0.75 * (folder / "model.onnx").stat().st_size
    assert report.spec == model.spec
    assert (report.search.bytes, report.search.fp32_bytes) == pytest.approx(
        (len(model.data), (folder / "model.onnx").stat().st_size), rel=0.05
    )
    with load(folder / "int8.onnx", device="cpu") as detector:
        assert len(detector.predict(folder / "images" / "000.png")) == 2


def test_the_file_says_how_it_was_made(folder: Path) -> None:
    report = quantized(folder, recipe="minmax")
    spec = read_model(folder / "int8.onnx").spec
    assert spec.precision == "int8"
    assert spec.parity is None  # the export's was that of another file
    assert spec.versions["onnxruntime"]
    record = spec.quantization
    assert record is not None
    assert record["recipe"]["name"] == "minmax"
    assert (record["layers"], record["left_out"], record["accuracy"]) == (ALL, [], None)
    assert record["calibration"] == {"images": 4, "sha256": report.calibration.sha256}


def test_stages_are_counted_with_what_their_ranges_leave_out(folder: Path) -> None:
    exact = {stage.stage: stage for stage in quantized(folder, recipe="minmax").stages}
    assert [(stage.layers, stage.quantized) for stage in exact.values()] == [(4, 4), (3, 3), (9, 3), (2, 1)]
    assert all(stage.clipped == 0 for stage in exact.values())
    narrow = Recipe(name="narrow", method="percentile", percentile=90)
    assert quantized(folder, recipe=narrow).stages[0].clipped > 0.05


def test_tensorrt_gets_symmetric_activations(folder: Path) -> None:
    with pytest.raises(UsageError, match="was not exported for TensorRT"):
        quantized(folder, target="tensorrt")
    write_padded(folder / "model.onnx")
    report = quantized(folder, target="tensorrt", device=None)
    assert not report.search.timed  # no other runtime's times say anything about it
    assert not any(group.latency for group in report.search.groups)
    model = read_model(folder / "int8.onnx")
    assert model.spec.quantization is not None
    assert model.spec.quantization["recipe"]["symmetric"] is True
    points = {node.input[2] for node in model.proto.graph.node if node.op_type == "QuantizeLinear"}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}
    assert all(held[name].dtype == "int8" and not held[name].any() for name in points)


def test_what_is_slower_stays_in_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def depthwise_is_slow(first: ModelFile, second: ModelFile, device: str, images: object) -> Comparison:
        times = [2.0 if "backbone/1/Conv/weight/Dequantize" in names(model) else 1.0 for model in (first, second)]
        return Comparison(device=device, first=(times[0],) * 4, second=(times[1],) * 4)

    def names(model: ModelFile) -> set[str]:
        return {node.name for node in model.proto.graph.node}

    monkeypatch.setattr(search_laboratory, "compare_latency", depthwise_is_slow)
    quantized(folder)
    record = read_model(folder / "int8.onnx").spec.quantization
    assert record is not None
    assert record["left_out"] == ["backbone/1/Conv"]


def test_accuracy_is_measured_where_there_are_images(folder: Path) -> None:
    report = quantized(folder, images=folder / "images")
    assert report.passed
    assert report.search.accuracy.kept[0].what == "matched share"
    record = read_model(folder / "int8.onnx").spec.quantization
    assert record is not None
    assert record["accuracy"]["cpu matched share"] == 1.0


def test_accuracy_that_cannot_be_measured_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(device="cpu", what="mask IoU", reference=1.0, own=math.nan, allowed=0.05)
    poor = Accuracy(kept=(kept,), failures=("cpu: nothing was matched",))
    monkeypatch.setattr(Judge, "measure", lambda judge, candidate: poor)
    report = quantized(folder, images=folder / "images")
    assert report.failures == poor.failures
    assert report.spec.quantization["accuracy"]["cpu mask IoU"] is None


def test_what_is_slower_as_a_whole_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(first: ModelFile, second: ModelFile, device: str, images: object) -> Comparison:
        times = [2.0 if model.spec.precision == "int8" else 1.0 for model in (first, second)]
        return Comparison(device=device, first=(times[0],) * 4, second=(times[1],) * 4)

    monkeypatch.setattr(search_laboratory, "compare_latency", slow)
    report = quantized(folder)
    assert report.failures == ("INT8 takes 2.00 times as long as FP32 here",)
    assert not (folder / "int8.onnx").exists()


def test_only_what_the_work_made_is_removed(folder: Path) -> None:
    work = folder / "work"
    (work / "reference").mkdir(parents=True)
    for name in ("reference/paper.txt", "other.calibration.npz"):
        (work / name).write_text("the user's", encoding="utf-8")
    quantized(folder, journal=work, images=folder / "images")
    left = sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())
    assert left == ["other.calibration.npz", "reference/paper.txt"]


def test_the_model_itself_is_not_replaced(folder: Path) -> None:
    model = folder / "model.onnx"
    before = model.read_bytes()
    with pytest.raises(UsageError, match="is the model itself"):
        quantize(model, folder / ".." / folder.name / "model.onnx", folder / "images", device="cpu")
    assert model.read_bytes() == before
    with pytest.raises(OutputError, match="it is a folder"):
        quantize(model, folder, folder / "images", device="cpu")


def test_proposals_of_the_caller_are_refused(folder: Path) -> None:
    source = read_model(folder / "model.onnx")
    source.proto.graph.input.append(onnx.helper.make_tensor_value_info("proposals", 1, [None, 5]))
    write_model(source.proto, source.spec.replace(proposals="input"), folder / "model.onnx")
    refused(folder, UnsupportedModel, "takes its proposals from the caller")


def test_tensors_without_values_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(*arguments: Any, **options: Any) -> Any:
        counted = calibrate(*arguments, **options)
        return replace(counted, histograms=counted.histograms | {"box_head/Relu": Histogram()})

    monkeypatch.setattr("edgemask.quantization.workfolder.calibrate", nothing_found)
    refused(folder, CalibrationError, "no image brought any value to box_head")


def test_a_device_counts_once(folder: Path) -> None:
    report = quantized(folder, device=["cpu", "cpu"])
    assert len(report.search.latency) == 1


def test_a_budget_that_nothing_meets_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(device="cpu", what="mask AP", reference=0.5, own=0.4, allowed=0.01)
    poor = Accuracy(kept=(kept,), failures=("cpu: mask AP is 0.4",))
    monkeypatch.setattr(Judge, "measure", lambda judge, candidate: poor)
    (folder / "int8.onnx").write_text("from before", encoding="utf-8")
    report = quantized(folder, images=folder / "images")
    assert not report.passed
    assert report.failures == poor.failures
    assert report.search.layers  # the best that was found
    with pytest.raises(ParityError, match="nothing was written"):
        report.raise_for_failure()
    assert (folder / "int8.onnx").read_text(encoding="utf-8") == "from before"


def test_images_are_drawn_where_there_are_more_than_asked(folder: Path) -> None:
    assert quantized(folder, calibration_limit=2).calibration.images == 2


def refused(folder: Path, error: type[EdgemaskError], words: str, **options: Any) -> None:
    with pytest.raises(error, match=words):
        quantized(folder, **options)
    assert not (folder / "int8.onnx").exists()


def test_no_images_and_noise_are_refused(folder: Path) -> None:
    model = folder / "model.onnx"
    (folder / "none").mkdir()
    with pytest.raises(DatasetError, match="there is no image"):
        quantize(model, folder / "int8.onnx", folder / "none", device="cpu")
    written(folder / "noise", [noise(seed) for seed in range(3)])
    with pytest.raises(CalibrationError):
        quantize(model, folder / "int8.onnx", folder / "noise", device="cpu")
    (folder / "images" / "000.png").write_bytes(b"no picture")
    refused(folder, CalibrationError, "000.png")


def test_a_model_that_is_no_fp32_model_is_refused(folder: Path) -> None:
    quantized(folder)
    (folder / "int8.onnx").rename(folder / "model.onnx")
    refused(folder, ModelFileError, "is in INT8 already")
    half = read_model(folder / "model.onnx")
    write_model(half.proto, half.spec.replace(precision="fp16"), folder / "model.onnx")
    refused(folder, ModelFileError, "is in FP16 already")


def test_a_foreign_graph_and_one_without_layers_are_refused(folder: Path) -> None:
    onnx.save(onnx.ModelProto(ir_version=8, producer_name="somebody"), folder / "model.onnx")
    refused(folder, ModelFileError, "holds no edgemask model")
    write_toy(folder / "model.onnx")
    refused(folder, UnsupportedModel, "recipe default quantizes no layer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "defalt"}, "did you mean default"),
        ({"target": "openvino"}, "expected portable or tensorrt"),
        ({"device": "auto"}, "expected the names of devices, got auto"),
        ({"device": []}, "got none"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
        ({"annotations": "a.json"}, "annotations: there are no validation images"),
        ({"max_drop": 0.01}, "max_drop: there are no validation images"),
        ({"max_drop": 0.01, "images": "images"}, "AP is measured against annotations only"),
        ({"time_limit": -1}, "time_limit: expected a number from 0"),
        ({"reference": "other.onnx"}, "reference: there are no validation images"),
        ({"skip_bad_images": True}, "skip_bad_images: there are no validation images"),
        ({"resume": True}, "nothing is kept to go on with"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    refused(folder, UsageError, words, **options)


def test_an_interrupted_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = folder / "work"
    measured: list[str] = []

    def interrupted(first: ModelFile, second: ModelFile, device: str, images: object) -> Comparison:
        measured.append(device)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return size_decides(first, second, device, images)

    monkeypatch.setattr(search_laboratory, "compare_latency", interrupted)
    options: dict[str, Any] = {"images": folder / "images", "journal": work}
    with pytest.raises(KeyboardInterrupt):
        quantized(folder, **options)
    assert work.is_dir()
    monkeypatch.setattr("edgemask.quantization.workfolder.calibrate", lambda *_, **__: pytest.fail("calibrated again"))
    before = len(measured)
    report = quantized(folder, resume=True, **options)
    assert report.passed
    again = len(measured) - before
    measured.clear()
    monkeypatch.undo()
    monkeypatch.setattr(search_laboratory, "compare_latency", interrupted)
    measured += ["cpu"] * 3  # past the interruption
    quantized(folder, images=folder / "images")
    assert again == len(measured) - 3 - 2  # the two that were kept
    assert not work.exists()


def test_at_the_time_limit_the_best_is_written_and_there_is_something_to_go_on_with(folder: Path) -> None:
    work = folder / "work"
    report = quantized(folder, journal=work, time_limit=0)
    assert report.passed
    assert report.search.stopped == "the time limit"
    assert not any(group.latency for group in report.search.groups)
    again = quantized(folder, journal=work, resume=True)
    assert again.search.stopped == "done"
    assert all(group.latency for group in again.search.groups)
    assert not work.exists()


def test_a_calibration_on_other_images_is_not_taken(folder: Path) -> None:
    work = folder / "work"
    first = quantized(folder).calibration.sha256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "edgemask.quantization.quantizing.search", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            quantized(folder, journal=work)
    written(folder / "images", [smooth(seed) for seed in range(20, 24)])
    with pytest.raises(UsageError, match="calibration differ"):
        quantized(folder, journal=work, resume=True)
    assert quantized(folder, journal=work).calibration.sha256 != first
