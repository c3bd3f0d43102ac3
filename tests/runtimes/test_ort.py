"""ONNX Runtime: the provider promised is the one in use, nothing falls back, and every run gives the same bits."""

import ctypes
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from half_graph import HALF, float_proto, half_file, types_of
from toy_model import SPEC, toy_proto, write_toy

import edgemask
from edgemask.errors import DeviceUnavailable, EdgemaskError, ModelFileError, OutOfMemory, UsageError
from edgemask.export.half import compute_in_half
from edgemask.processors import thread_count
from edgemask.runtimes import ModelFile, RuntimeOptions, nvidia, read_model, write_model
from edgemask.runtimes.options import UNCACHED, cuda_options, tensorrt_options
from edgemask.runtimes.ort import OrtCpu
from edgemask.runtimes.ort_gpu import OrtCuda
from edgemask.runtimes.runtime import failure

IMAGES = np.full((1, 3, 64, 64), 90, np.float32)
SIZES = np.array([[64, 64]], np.int64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model(write_toy(tmp_path_factory.mktemp("toy") / "m.onnx"))


class Session:
    """Stands in for an InferenceSession; says what it was opened with, and opens on `providers`."""

    opened: SimpleNamespace
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __init__(self, data: bytes, options: Any, providers: list[Any], **others: Any) -> None:
        type(self).opened = SimpleNamespace(data=data, options=options, providers=providers, others=others)

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def get_outputs(self) -> list[Any]:
        return []

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    class OwnSession(Session):
        pass

    monkeypatch.setattr(onnxruntime, "InferenceSession", OwnSession)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    return OwnSession


def test_cpu_is_opened_without_any_fallback(model: ModelFile, session: type[Session]) -> None:
    runtime = OrtCpu(model, "")
    assert runtime.device == "cpu"
    assert session.opened.data is model.data, "the bytes that were checked, not the file, which may have changed"
    assert session.opened.providers == ["CPUExecutionProvider"]
    assert session.opened.others == {"enable_fallback": 0}
    assert session.opened.options.intra_op_num_threads == thread_count()


def test_cuda_is_opened_on_a_file_in_float16_as_it_is(session: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    proto = float_proto()
    compute_in_half(proto)
    half = half_file(proto)
    OrtCpu(half, "")
    types = types_of(onnx.ModelProto.FromString(session.opened.data)).values()
    assert HALF not in types, "the CPU provider would put casts around every node"
    monkeypatch.setattr(session, "providers", ("CUDAExecutionProvider", "CPUExecutionProvider"))
    OrtCuda(half, "0")
    assert session.opened.data is half.data


def test_threads_are_those_that_this_process_may_use(
    model: ModelFile, session: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    OrtCpu(model, "")
    assert session.opened.options.intra_op_num_threads == 3


@pytest.mark.parametrize("outputs", ["flat", "padded"])
def test_memory_patterns_are_for_shapes_that_never_change(
    model: ModelFile, session: type[Session], outputs: Any
) -> None:
    spec = SPEC.replace(canvas=(64, 64), batch=1, outputs=outputs)
    OrtCpu(dataclasses.replace(model, spec=spec), "")
    assert session.opened.options.enable_mem_pattern == (outputs == "padded")


def test_the_cpu_has_no_options_of_a_provider(model: ModelFile) -> None:
    OrtCpu(model, "", RuntimeOptions(library={"session.intra_op.allow_spinning": "0"})).close()
    with pytest.raises(UsageError, match="cpu has no option cudnn_conv_algo_search, NUM_STREAMS"):
        OrtCpu(model, "", RuntimeOptions(library={"cudnn_conv_algo_search": "DEFAULT", "NUM_STREAMS": "2"}))


def test_another_provider_than_promised_is_refused(model: ModelFile, session: type[Session]) -> None:
    session.providers = ("AzureExecutionProvider", "CPUExecutionProvider")
    with pytest.raises(DeviceUnavailable, match="on AzureExecutionProvider, not on CPUExecutionProvider"):
        OrtCpu(model, "")
    session.providers = ("CPUExecutionProvider",)
    with pytest.raises(DeviceUnavailable, match="on CPUExecutionProvider, not on CUDAExecutionProvider") as caught:
        OrtCuda(model, "0")
    assert f"onnxruntime-gpu {onnxruntime.__version__} needs an NVIDIA driver and CUDA" in str(caught.value.remedy)


def test_cuda_is_opened_with_the_cpu_behind_it(model: ModelFile, session: type[Session]) -> None:
    session.providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    runtime = OrtCuda(model, "7", RuntimeOptions(library={"cudnn_conv_algo_search": "DEFAULT", "session.x": "1"}))
    assert runtime.device == "cuda:7"
    (name, options), second = session.opened.providers
    assert (name, second) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == cuda_options(UNCACHED, model.spec, "7") | {"cudnn_conv_algo_search": "DEFAULT"}
    assert session.opened.options.get_session_config_entry("session.x") == "1"
    assert session.opened.others == {"enable_fallback": 0}


def test_cuda_options_are_names_that_the_library_knows(model: ModelFile, session: type[Session]) -> None:
    """A slip of the pen in `use_tf32` would leave TF32 on; the provider's library names its options."""
    session.providers = ("CUDAExecutionProvider",)
    OrtCuda(model, "0", RuntimeOptions(memory_limit=1))
    library = Path(onnxruntime.__file__).with_name("capi") / "libonnxruntime_providers_cuda.so"
    if not library.is_file():
        pytest.skip("onnxruntime-gpu is not installed")
    names = library.read_bytes()
    for option in session.opened.providers[0][1]:
        assert b"\0" + option.encode() + b"\0" in names
    names = library.with_name("libonnxruntime_providers_tensorrt.so").read_bytes()
    for option in tensorrt_options(RuntimeOptions(memory_limit=1), model.spec, "0", "folder"):
        assert option.encode() in names, option


def test_cuda_where_there_is_none_is_no_cpu_run(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library: with CUDA missing it opens on the CPU, whatever it was asked."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        monkeypatch.setattr(OrtCuda, "unavailable", classmethod(lambda cls, target: None))
        with pytest.raises(DeviceUnavailable):
            edgemask.load(model.path, device="cuda")
    else:
        pytest.skip("there is an NVIDIA driver here")


def test_a_model_cannot_choose_session_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this variable is set, ONNX Runtime takes options from the model, and writes profiles if told to."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.onnx"
    proto = toy_proto()
    proto.metadata_props.add(key="ort_config", value='{"session_options": {"enable_profiling": 1}}')
    write_model(proto, SPEC, path)
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).end_profiling()
    assert len([*tmp_path.glob("*.json")]) == 1, "the danger is real"
    with pytest.raises(ModelFileError, match=r"brings options for ONNX Runtime \(ort_config\)"):
        edgemask.load(path, device="cpu")
    with pytest.raises(DeviceUnavailable, match="CONFIG_FROM_MODEL=1 makes ONNX Runtime ignore the options") as caught:
        edgemask.load(write_toy(path), device="cpu")
    assert caught.value.remedy == "unset it"


def test_a_graph_that_the_library_refuses(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.graph.node[0].op_type = "NoSuchOperator"
    write_model(proto, SPEC, tmp_path / "m.onnx")
    with pytest.raises(DeviceUnavailable, match=r"cannot open .*m\.onnx on cpu: .*NoSuchOperator"):
        edgemask.load(tmp_path / "m.onnx", device="cpu")


def test_a_run_that_fails(model: ModelFile) -> None:
    runtime = OrtCpu(model, "")
    with pytest.raises(DeviceUnavailable, match=r"failed on cpu with images \(2, 3, 64, 64\), .*invalid dimensions"):
        runtime.run({"images": np.zeros((2, 3, 64, 64), np.float32), "image_sizes": SIZES})
    assert len(runtime.run({"images": IMAGES, "image_sizes": SIZES})["boxes"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::AllocateRawInternal Failed to allocate",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
        "Exception from src/plugins/intel_gpu/ocl_engine.cpp:187:\n[GPU] out of GPU resources: CL_OUT_OF_RESOURCES",
        "[GPU] clCreateBuffer, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE",
        "[GPU] Exceeded max size of memory object allocation: requested 8589934592 bytes",
    ],
)
def test_words_for_too_little_memory(text: str) -> None:
    error = failure("it failed", RuntimeError(text))
    assert isinstance(error, OutOfMemory)
    assert error.problem == f"it failed: {text.splitlines()[-1]}"


def test_words_of_many_lines_are_one() -> None:
    text = "Exception from a.cpp:1:\nCheck 'x' failed at b.cpp:2:\nThe  operator\n\nX is unknown \n" + 100 * "and more "
    error = failure("it failed", RuntimeError(text))
    assert error.problem.startswith("it failed: The operator X is unknown and more and")
    assert error.problem.endswith("more ...")
    assert len(error.problem) < 520


def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry begins with its import, and with files in these folders."""
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    others = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = [sys.executable, "-c", "import edgemask, onnxruntime"]
    subprocess.run(program, env=others | places, cwd=Path(__file__).parents[2], check=True)
    assert list(tmp_path.rglob("*")) == []


def test_words_of_a_file_do_not_steer_a_terminal() -> None:
    assert failure("it failed", RuntimeError("no \x1b[2J")).problem == "it failed: no \\x1b[2J"


def test_other_words() -> None:
    assert type(failure("it failed", MemoryError())) is OutOfMemory
    for text in ("", "Invalid dimensions", "no such memory type: x"):
        error = failure("it failed", RuntimeError(text))
        assert type(error) is DeviceUnavailable
        assert error.problem == f"it failed: {text or 'RuntimeError'}"


@pytest.mark.parametrize(("raised", "typed"), [(MemoryError(), OutOfMemory), (RuntimeError("odd"), DeviceUnavailable)])
def test_errors_of_open_and_run_are_ours(
    model: ModelFile, session: type[Session], raised: Exception, typed: type[EdgemaskError]
) -> None:
    runtime = OrtCpu(model, "")

    def fail(*arguments: Any, **options: Any) -> None:
        raise raised

    session.run = fail  # type: ignore[attr-defined]
    with pytest.raises(typed, match="failed on cpu"):
        runtime.run({"images": IMAGES, "image_sizes": SIZES})
    session.__init__ = fail  # type: ignore[method-assign]
    with pytest.raises(typed, match="cannot open"):
        OrtCpu(model, "")


def test_installed_packages_are_told_apart() -> None:
    assert nvidia._is_installed("numpy")
    assert not nvidia._is_installed("no-such-package")
