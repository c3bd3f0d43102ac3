"""Where a model ran: of profiles as the libraries write them, and of real runs."""

import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_model import SPEC, busy_proto, write_toy

import edgemask
from edgemask.cli import main
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.runtimes import write_model
from edgemask.runtimes.assignment import HEAVY
from edgemask.runtimes.ov import shared_core
from edgemask.runtimes.placement import DevicePlacement, placement_of
from edgemask.runtimes.profiles import NodeRun, onnxruntime_nodes, openvino_nodes
from edgemask.scenes import draw_scene

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
CUDA, CPU, TENSORRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"


def event(
    operator: str, provider: str, *, start: int = 20, duration: int = 10, kind: str = "float", size: int = 0
) -> Any:
    """An event as ONNX Runtime writes it."""
    arguments = {"op_name": operator, "provider": provider, "output_size": str(size), "input_type_shape": [{kind: [1]}]}
    return {"cat": "Node", "name": f"{operator}_kernel_time", "ts": start, "dur": duration, "args": arguments}


def nodes_of(folder: Path, *events: Any) -> tuple[NodeRun, ...]:
    runs = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 9} for start in (1, 20)]
    (folder / "profile.json").write_text(json.dumps([*runs, *events]))
    return onnxruntime_nodes(folder / "profile.json")


def placed(
    nodes: Any, promised: tuple[str, ...] = (CUDA,), *, asked: str = "file", file: Any = "fp32"
) -> DevicePlacement:
    return placement_of(
        nodes,
        device="cuda:0",
        promised=promised,
        strays=(),
        spec=SPEC.replace(precision=file),
        heavy=True,
        precision=asked,
        image="an image",
    )


def test_the_last_run_of_a_profile(tmp_path: Path) -> None:
    nodes = nodes_of(
        tmp_path,
        event("Conv", CUDA, start=2, duration=500),  # of the warm-up
        event("FusedConv", CUDA, duration=60),
        event("Shape", CPU, duration=10),
        event("MemcpyToHost", CUDA, duration=30, size=4096),
        {"cat": "Node", "name": "Conv_fence_before", "ts": 30, "dur": 1, "args": {"op_name": "Conv"}},
    )
    assert [(node.operator, node.heavy, node.kind) for node in nodes] == [
        ("FusedConv", "Conv", ""),
        ("Shape", None, ""),
        ("MemcpyToHost", None, "copy"),
    ]
    found = placed(nodes)
    assert found.ok
    assert [(share.operator, share.provider, share.nodes, share.share, share.bytes) for share in found.operators] == [
        ("Conv", CUDA, 1, 0.6, 0),
        ("copy", CUDA, 1, 0.3, 4096),
        ("others", CPU, 1, 0.1, 0),
    ]
    assert [(share.provider, share.nodes) for share in found.providers] == [(CUDA, 2), (CPU, 1)]
    assert found.notes == ("1 copies between devices in each run",)


@pytest.mark.parametrize("operator", HEAVY)
def test_a_heavy_node_elsewhere_is_red(tmp_path: Path, operator: str) -> None:
    nodes = nodes_of(tmp_path, event("Conv", CUDA), event(operator, CPU), event("Gather", CPU))
    found = placed(nodes)
    assert not found.ok
    assert found.problems == (f"not on cuda:0: 1 {operator} on {CPU}",)
    assert placed(nodes, (CUDA, CPU)).ok


def test_what_the_library_assigned_elsewhere_is_red_though_it_did_not_run(tmp_path: Path) -> None:
    found = placement_of(
        nodes_of(tmp_path, event("Conv", CUDA)),
        device="cuda:0",
        promised=(CUDA,),
        strays=(f"2 RoiAlign on {CPU}",),
        spec=SPEC,
        heavy=True,
        precision="file",
        image="an image",
    )
    assert found.problems == (f"not on cuda:0: 2 RoiAlign on {CPU}",)


@pytest.mark.parametrize(
    ("arithmetic", "file", "asked", "problems", "notes"),
    [
        ("float", "fp32", "file", [], []),
        ("float16", "fp32", "file", ["1 Conv in float16, which nobody asked for"], []),
        ("bfloat16", "fp32", "file", ["1 Conv in bfloat16, which nobody asked for"], []),
        ("bfloat16", "fp32", "bf16", [], []),
        ("float16", "fp16", "file", [], []),
        ("float", "fp16", "file", [], ["the file is fp16, yet nothing heavy is computed in float16 here"]),
        ("uint8", "int8", "file", [], []),
        ("float", "int8", "file", [], ["the file is int8, yet nothing heavy is computed in int8 here"]),
        ("int8", "fp32", "file", ["1 Conv in int8, which nobody asked for"], []),
        ("float", "fp32", "tf32", [], ["float32 on this device is TF32, as asked"]),
    ],
)
def test_arithmetic_that_nobody_asked_for_is_red(
    tmp_path: Path, arithmetic: str, file: str, asked: str, problems: list[str], notes: list[str]
) -> None:
    found = placed(nodes_of(tmp_path, event("Conv", CUDA, kind=arithmetic)), asked=asked, file=file)
    assert (list(found.problems), list(found.notes)) == (problems, notes)


@pytest.mark.parametrize("file", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("others", [(), ("RoiAlign",)])
def test_an_engine_tells_nothing_of_its_inside(tmp_path: Path, file: str, others: tuple[str, ...]) -> None:
    behind = [event(operator, CUDA) for operator in others]
    nodes = nodes_of(tmp_path, event("TRTKernel_graph_main_0", TENSORRT), *behind)
    found = placed(nodes, (TENSORRT, CUDA), file=file)
    assert found.ok
    assert found.notes == (
        "what TensorRT does inside an engine is not told: neither its operators nor their arithmetic",
    )


def test_a_profile_without_nodes(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="profile names no node"):
        nodes_of(tmp_path)

    with pytest.raises(DeviceUnavailable, match="profile names no node"):
        openvino_nodes([openvino_node("Convolution", "jit_avx512_f32", "NOT_RUN")], "CPU")


def test_a_profile_without_the_heavy_nodes_of_the_graph_is_red(tmp_path: Path) -> None:
    found = placed(nodes_of(tmp_path, event("Gather", CUDA)))
    assert found.problems == ("the library tells of none of the graph's heavy nodes",)


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_indices_may_be_integers(tmp_path: Path, kind: str) -> None:
    assert placed(nodes_of(tmp_path, event("TopK", CUDA, kind=kind))).ok


def openvino_node(kind: str, kernel: str, status: str = "EXECUTED") -> Any:
    return SimpleNamespace(
        node_name=kind,
        node_type=kind,
        exec_type=kernel,
        real_time=datetime.timedelta(microseconds=7),
        status=SimpleNamespace(name=status),
    )


def test_openvino_nodes() -> None:
    profile = [
        openvino_node("Convolution", "brgconv_avx512_amx_I8"),
        openvino_node("GroupConvolution", "jit_avx512_f32"),
        openvino_node("Deconvolution", "gemm_bf16"),
        openvino_node("FullyConnected", "convolution_gpu_bfyx__f16"),
        openvino_node("Reorder", "reorder_f32"),
        openvino_node("Convolution", "jit_avx512_f32", "NOT_RUN"),
    ]
    assert [(node.heavy, node.kind, node.arithmetic) for node in openvino_nodes(profile, "CPU")] == [
        ("Conv", "", "int8"),
        ("Conv", "", "float32"),
        ("ConvTranspose", "", "bfloat16"),
        ("Gemm", "", "float16"),
        (None, "layout", "float32"),
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_a_real_run(tmp_path: Path, device: str) -> None:
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    with edgemask.load(tmp_path / "m.onnx", device=device) as detector:
        image = draw_scene(0, size=64).image
        before = detector.predict(image)
        found = detector.placement()
        assert found.ok
        assert (found.device, found.image) == (device, "a drawn scene")
        assert sum(share.share for share in found.providers) == pytest.approx(1)
        assert {share.operator for share in found.operators} & {"Conv", "Gemm"}
        assert {share.arithmetic for share in found.operators if share.operator in HEAVY} == {"float32"}
        assert detector.placement(image).image == "an image"
        np.testing.assert_array_equal(detector.predict(image).scores, before.scores)


@pytest.mark.openvino
def test_bfloat16_is_seen(tmp_path: Path) -> None:
    if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    options = edgemask.runtimes.RuntimeOptions(precision="bf16")
    with edgemask.load(tmp_path / "m.onnx", device="openvino:CPU", options=options) as detector:
        found = detector.placement()
    assert found.ok
    assert "bfloat16" in {share.arithmetic for share in found.operators if share.operator in HEAVY}


def test_a_file_that_was_changed_since(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "m.onnx")
    with edgemask.load(path, device="cpu") as detector:
        write_model(busy_proto(), SPEC, path)
        with pytest.raises(ModelFileError, match="was changed since it was opened"):
            detector.placement()
    with pytest.raises(UsageError, match="closed"):
        detector.placement()


def test_inspect_on_a_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write_model(busy_proto(), SPEC, path)
    assert main(["inspect", str(path), "--device", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["placement"]
    assert (record["device"], record["problems"]) == ("cpu", [])
    monkeypatch.setattr("edgemask.runtimes.ort.OrtCpu.promised", ("Another",))
    monkeypatch.setattr("edgemask.runtimes.ort.strays", lambda *_: ())
    assert main(["inspect", str(path), "--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "not on cpu: " in printed
    assert "as promised" not in printed
