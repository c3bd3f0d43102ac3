"""Files in FP16: exported, verified with the tolerances of FP16, compared stage by stage on both runtimes, refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from families import load
from half_graph import HALF, assert_casts_are_borders, types_of
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemask.cli import main
from edgemask.divergence import compare_records, compare_stages, first_divergence
from edgemask.errors import ParityError, UnsupportedModel, UsageError
from edgemask.export import ExportReport, export_onnx, exporter
from edgemask.export.verification import verify
from edgemask.parity import SEMANTIC_TOLERANCES, TOLERANCES
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import read_model, write_model
from edgemask.runtimes.ov import shared_core
from edgemask.runtimes.stage_runs import stages_given, stages_of_file
from edgemask.scenes import draw_scene

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
SCENE = draw_scene(3, seed=12, size=128).image
FORMS = {"float": ("fp32", "portable"), "portable": ("fp16", "portable"), "openvino": ("fp16", "openvino")}


@pytest.fixture(scope="module")
def model() -> Any:
    return load("mask_c4")


@pytest.fixture(scope="module")
def reports(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportReport]:
    """The forms of one model, which is traced once."""
    folder = tmp_path_factory.mktemp("half")
    traced: list[onnx.ModelProto] = []
    build = exporter.build_proto

    def build_once(*arguments: Any) -> onnx.ModelProto:
        if not traced:
            traced.append(build(*arguments))
        copy = onnx.ModelProto()
        copy.CopyFrom(traced[0])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "build_proto", build_once)
        return {
            name: export_onnx(
                model,
                folder / f"{name}.onnx",
                shape=(128, 128),
                precision=precision,
                target=target,
                verify=precision == "fp16",
            )
            for name, (precision, target) in FORMS.items()
        }


@pytest.mark.parametrize("form", ["portable", "openvino"])
def test_file_is_verified_with_the_row_of_fp16(reports: dict[str, ExportReport], form: str) -> None:
    report = reports[form]
    assert read_model(report.path).spec == report.spec
    assert report.spec.precision == "fp16"
    assert report.verification is not None
    assert report.verification.parity.passed
    assert report.verification.parity.tolerance == TOLERANCES["fp16"]
    assert report.spec.parity is not None
    assert report.spec.parity["detections"] > 20
    assert report.spec.parity["score_difference_max"] > 2e-5, "these are the rounded weights, not those of float32"
    assert reports["float"].spec.precision == "fp32"


@pytest.mark.parametrize("form", ["portable", "openvino"])
def test_weights_take_half_the_room(reports: dict[str, ExportReport], form: str) -> None:
    whole, half = (onnx.load(reports[name].path).graph for name in ("float", form))
    sizes = {tensor.name: numpy_helper.to_array(tensor).nbytes for tensor in whole.initializer}
    heavy = [node for node in half.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    weights = {name for node in heavy for name in node.input[1:]}
    assert len(weights) > 20
    for tensor in half.initializer:
        share = 2 if tensor.name in weights or tensor.data_type == HALF else 1
        assert numpy_helper.to_array(tensor).nbytes == sizes[tensor.name] / share, tensor.name


@pytest.mark.parametrize("form", ["portable", "openvino"])
def test_graph_is_sound_and_cast_at_borders_only(reports: dict[str, ExportReport], form: str) -> None:
    proto = onnx.load(reports[form].path)
    onnx.checker.check_model(proto, full_check=True)
    assert_casts_are_borders(proto)
    types = types_of(proto)
    in_half = {node.name.split("/")[0] for node in proto.graph.node if types[node.output[0]] == HALF}
    assert in_half == {"stage", "backbone", "rpn", "box_head", "mask_head"}, "stage: the cast of what is normalised"
    for name in ("stage/resize", "rpn.scores", "rpn.boxes", "proposals", "boxes", "scores", "masks"):
        assert types[name] != HALF
    for name in ("backbone.0", "rpn.scores.0", "rpn.boxes.0", "box_head", "box_head.boxes"):
        assert types[name] == HALF


@pytest.mark.parametrize("form", ["portable", "openvino"])
@pytest.mark.parametrize("device", DEVICES)
def test_every_stage_passes(model: Any, reports: dict[str, ExportReport], form: str, device: str) -> None:
    file = read_model(reports[form].path)
    record = record_stages(ReferenceDetector(model, file.spec), SCENE)
    checks = compare_stages(file, device, SCENE, record)
    assert first_divergence(checks) is None
    assert {check.stage for check in checks} >= {"backbone.0", "rpn.scores.0", "proposals", "box_head", "mask_head"}
    assert 1e-5 < max(check.error for check in checks if check.stage in ("backbone.0", "box_head")) < 1e-2


@pytest.mark.parametrize("device", DEVICES)
def test_file_is_a_reference_for_itself(reports: dict[str, ExportReport], device: str) -> None:
    """Its stage tensors may be float16: they are read, fed and compared all the same."""
    file = read_model(reports["portable"].path)
    record = stages_of_file(file, device, SCENE)
    own = stages_given(file, device, SCENE, record)
    assert own.keys() == record.keys() - {"image_sizes"}
    assert first_divergence(compare_records(record, own, "fp16")) is None


@pytest.mark.openvino
def test_openvino_reads_its_form_alone(reports: dict[str, ExportReport]) -> None:
    graph = shared_core().read_model(reports["openvino"].path)
    assert {output.get_element_type().to_string() for output in graph.outputs} == {"f32", "i64"}
    assert {parameter.get_element_type().to_string() for parameter in graph.inputs} == {"f32", "i64"}


def edited(report: ExportReport, path: Path, edit: Callable[[NDArray[Any]], NDArray[Any]]) -> Path:
    """The file with the weights of its first convolution changed."""
    file = read_model(report.path)
    first = next(node.input[1] for node in file.proto.graph.node if node.op_type == "Conv")
    (tensor,) = (tensor for tensor in file.proto.graph.initializer if tensor.name == first)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), first))
    write_model(file.proto, file.spec, path)
    return path


def test_wrong_weights_are_no_rounding(model: Any, reports: dict[str, ExportReport], tmp_path: Path) -> None:
    path = edited(reports["portable"], tmp_path / "m.onnx", lambda weights: weights[::-1].copy())
    with pytest.raises(ParityError, match=r"first at stage backbone\.0: error .*, allowed 0\.01") as failure:
        verify(model, path)
    assert "--precision fp32" in str(failure.value.remedy)


def test_values_beyond_float16_are_refused_by_name(
    model: Any, reports: dict[str, ExportReport], tmp_path: Path
) -> None:
    def enlarged(weights: NDArray[Any]) -> NDArray[Any]:
        return (weights / np.abs(weights).max() * 6e4).astype(np.float16)

    path = edited(reports["portable"], tmp_path / "m.onnx", enlarged)
    with pytest.raises(UnsupportedModel, match=r"backbone/\S+ gives \d+ numbers beyond 65504") as refusal:
        verify(model, path)
    assert "--precision fp32" in str(refusal.value.remedy)


def test_semantic_model(tmp_path: Path) -> None:
    report = export_onnx(load("semantic_fcn"), tmp_path / "m.onnx", precision="fp16")
    assert report.spec.precision == "fp16"
    assert report.verification is not None
    assert report.verification.parity.passed
    assert report.verification.parity.tolerance == SEMANTIC_TOLERANCES["fp16"]
    proto = onnx.load(report.path)
    assert_casts_are_borders(proto)
    types = types_of(proto)
    assert (types["backbone.0"], types["head"]) == (HALF, HALF)


@pytest.mark.parametrize("precision", ["int8", "FP16", "half", ""])
def test_unknown_precision_is_refused_before_any_work(precision: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no precision {precision!r}") as refusal:
        export_onnx(torch.nn.Identity(), tmp_path / "m.onnx", precision=precision)  # type: ignore[arg-type]
    assert "fp32, fp16" in str(refusal.value.remedy)
    assert list(tmp_path.iterdir()) == []


def test_command_line_names_the_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "anything", "-o", str(tmp_path / "m.onnx"), "--precision", "fp8"]) == 2
    said = capsys.readouterr().err
    assert "fp32" in said
    assert "fp16" in said
