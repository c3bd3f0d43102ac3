"""OpenVINO: float32 where the processor has bfloat16, the device promised, results that stay as they were given."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from toy_model import SPEC, busy_proto, toy_proto

import edgemask
from edgemask.errors import DeviceUnavailable, EdgemaskError, OutOfMemory, UnsupportedModel, UsageError
from edgemask.processors import thread_count
from edgemask.runtimes import ModelFile, RuntimeOptions, read_model, write_model
from edgemask.runtimes.ort import OrtCpu
from edgemask.runtimes.ov import OpenVino, shared_core

pytestmark = pytest.mark.openvino

SIZES = np.array([[64, 64]], np.int64)
# Of float32 sums of 300 products; bfloat16 is off by 5e-3.
ROUNDING = 1e-5


def noise(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("busy") / "m.onnx"
    write_model(busy_proto(), SPEC, path)
    return read_model(path)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What `compile_model` was last told."""
    import openvino

    told = SimpleNamespace()

    class Core(openvino.Core):  # type: ignore[misc]  # noqa: TID251  shared_core keeps it, too
        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            told.device, told.options = device, options
            return super().compile_model(model, device, options)

    monkeypatch.setattr(openvino, "Core", Core)
    return told


def test_asks_for_float32_and_the_threads_that_it_may_use(busy: ModelFile, options: SimpleNamespace) -> None:
    runtime = OpenVino(busy, "CPU")
    assert (runtime.device, options.device) == ("openvino:CPU", "CPU")
    assert options.options == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(thread_count()),
    }


def test_threads_are_those_that_this_process_may_use(
    busy: ModelFile, options: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    OpenVino(busy, "CPU")
    assert options.options["INFERENCE_NUM_THREADS"] == "3"


def test_float32_is_what_it_computes(busy: ModelFile) -> None:
    import openvino

    images = noise(0)
    expected = OrtCpu(busy, "").run({"images": images, "image_sizes": SIZES})["maps"].astype(np.float64)

    def error(maps: NDArray[Any]) -> float:
        return float(np.abs(maps - expected).max() / np.abs(expected).max())

    runtime = OpenVino(busy, "CPU")
    assert runtime._compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert error(runtime.run({"images": images, "image_sizes": SIZES})["maps"]) < ROUNDING
    core = shared_core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        compiled = core.compile_model(core.read_model(busy.data), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        assert error(compiled([images, SIZES])["maps"]) > 10 * ROUNDING, "without the hint this processor rounds"


@pytest.mark.parametrize(
    ("target", "precision"), [("CPU", "fp16"), ("AUTO", "fp16"), ("AUTO", "bf16"), ("GPU", "bf16"), ("CPU", "tf32")]
)
def test_arithmetic_that_a_device_does_not_have(busy: ModelFile, target: str, precision: Any) -> None:
    with pytest.raises(UsageError, match=rf"precision: expected file.* on openvino:{target}, got '{precision}'"):
        OpenVino(busy, target, RuntimeOptions(precision=precision))


def test_an_npu_does_not_compute_in_float32(busy: ModelFile, options: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="an NPU computes in float16, not in float32") as caught:
        OpenVino(busy, "NPU")
    assert "precision=fp16" in str(caught.value.remedy)
    assert not hasattr(options, "device"), "nothing was compiled"
    asked = RuntimeOptions(precision="fp16", cache=False)
    with contextlib.suppress(DeviceUnavailable):  # where there is none
        OpenVino(busy, "NPU", asked)
    assert (options.device, options.options["INFERENCE_PRECISION_HINT"]) == ("NPU", "f16")


@pytest.mark.parametrize(
    "library",
    [{"NUM_STREAMS": "abc"}, {"INFERENCE_NUM_THREADS": "many"}, {"PERFORMANCE_HINT": "FAST"}, {"NO_SUCH_THING": "1"}],
)
def test_options_that_the_library_refuses(busy: ModelFile, library: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="give an option that the library knows, with a value that it takes"):
        OpenVino(busy, "CPU", RuntimeOptions(cache=False, library=library))


def test_a_device_that_cannot_write_what_it_compiled(
    busy: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import openvino

    def fail(self: Any) -> None:
        raise RuntimeError("not implemented")

    monkeypatch.setattr(openvino.CompiledModel, "export_model", fail)
    runtime = OpenVino(busy, "CPU", RuntimeOptions(cache=tmp_path))
    assert runtime.run({"images": noise(0), "image_sizes": SIZES})
    assert caplog.messages == ["compiled m.onnx is not kept: it cannot be written: not implemented"]
    assert not list(tmp_path.rglob("*.blob"))


SIGNALLED = """
import gc, os, signal, sys
import edgemask
from edgemask.runtimes import RuntimeOptions
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))  # Python takes signals on the alternate stack
options = RuntimeOptions(precision="bf16", cache=False)  # AMX, where the processor has it
first, second = (edgemask.load(sys.argv[1], device="openvino:CPU", options=options) for _ in range(2))
for detector in (first, second):  # the one that came first goes first
    detector.close()
del first, second, detector
gc.collect()
signal.raise_signal(signal.SIGUSR1)
print(*seen)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_does_no_harm_when_detectors_are_closed(busy: ModelFile) -> None:
    """With an OpenVINO for each detector, this ended by SIGSEGV on processors with AMX."""
    command = [sys.executable, "-X", "faulthandler", "-c", SIGNALLED, str(busy.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


TELLING = """
import sys
seen = []
events = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
sys.addaudithook(lambda event, _: seen.append(event) if event in events else None)
import edgemask
edgemask.load(sys.argv[1], device="openvino:CPU").close()
print(*seen)
"""


def test_opening_a_model_tells_nobody(busy: ModelFile) -> None:
    command = [sys.executable, "-c", TELLING, str(busy.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "", "a process is made, or the network asked"


def test_outputs_stay_when_the_model_runs_again(busy: ModelFile) -> None:
    runtime = OpenVino(busy, "CPU")
    first = runtime.run({"images": noise(1), "image_sizes": SIZES})
    kept = {name: value.copy() for name, value in first.items()}
    second = runtime.run({"images": noise(2), "image_sizes": SIZES})
    assert not np.array_equal(first["maps"], second["maps"])
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_another_device_than_promised_is_refused(busy: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    compiled = SimpleNamespace(get_property=lambda name: {"EXECUTION_DEVICES": ["GPU.0", "CPU"]}[name])

    class Core:
        def read_model(self, data: bytes) -> None: ...

        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            return compiled

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(DeviceUnavailable, match=r"opened the model on GPU\.0, CPU, not on GPU"):
        OpenVino(busy, "GPU")


def test_a_graph_that_the_library_refuses(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.graph.node[0].op_type = "NoSuchOperator"
    write_model(proto, SPEC, tmp_path / "m.onnx")
    with pytest.raises(DeviceUnavailable, match=r"cannot open .*m\.onnx on openvino:CPU: .*NoSuchOperator"):
        edgemask.load(tmp_path / "m.onnx", device="openvino:CPU")


def test_a_graph_that_we_refuse_for_this_library(tmp_path: Path) -> None:
    proto = toy_proto()
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("features", "rois")]
    proto.graph.input.extend(inputs)
    proto.graph.node.append(
        helper.make_node("RoiAlign", ["features", "rois", "index"], ["pooled"], "roi", sampling_ratio=0)
    )
    write_model(proto, SPEC, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModel, match="NaN for a roi without area"):
        edgemask.load(tmp_path / "m.onnx", device="openvino:CPU")


@pytest.mark.parametrize(
    ("raised", "typed"),
    [
        (MemoryError("std::bad_alloc"), OutOfMemory),
        (RuntimeError("CL_OUT_OF_RESOURCES"), OutOfMemory),
        (RuntimeError("odd"), DeviceUnavailable),
    ],
)
def test_errors_of_open_and_run_are_ours(
    busy: ModelFile, monkeypatch: pytest.MonkeyPatch, raised: Exception, typed: type[EdgemaskError]
) -> None:
    import openvino

    def fail(*arguments: Any, **options: Any) -> None:
        raise raised

    runtime = OpenVino(busy, "CPU")
    runtime._requests.own = SimpleNamespace(infer=fail)
    with pytest.raises(typed, match=rf"failed on openvino:CPU with images \(1, 3, 64, 64\), .*: {raised}"):
        runtime.run({"images": noise(0), "image_sizes": SIZES})
    monkeypatch.setattr(openvino, "Core", lambda: SimpleNamespace(read_model=fail))
    with pytest.raises(typed, match=rf"cannot open .*m\.onnx on openvino:CPU: {raised}"):
        OpenVino(busy, "CPU")
