"""CUDA and TensorRT as far as a machine without a GPU can show: what they are told, and how inputs reach them."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from toy_model import SPEC, busy_proto, toy_proto

from edgemask.errors import DeviceUnavailable, UsageError
from edgemask.runtimes import ModelFile, RuntimeOptions, nvidia, ort_gpu, read_model, write_model
from edgemask.runtimes.ort import OrtCpu
from edgemask.runtimes.ort_gpu import OrtCuda, OrtTensorRt

SIZES = np.array([[64, 64]], np.int64)
FIXED = SPEC.replace(canvas=(64, 64), batch=1)


class CudaOnCpu(OrtCuda):
    """Runs as on a GPU, with the same bindings and buffers, on the CPU provider."""

    provider = "CPUExecutionProvider"
    memory = "cpu"

    def _providers(self, *arguments: Any) -> list[Any]:
        return [self.provider]


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFile:
    monkeypatch.setattr(nvidia, "load_libraries", lambda provider: None)
    monkeypatch.setattr(ort_gpu, "shrinking_run", lambda number: {"memory.enable_memory_arena_shrinkage": "cpu:0"})
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    return read_model(tmp_path / "m.onnx")


def noise(seed: int, height: int = 64) -> Any:
    return np.random.default_rng(seed).uniform(0, 255, (1, 3, height, 64)).astype(np.float32)


def test_bound_inputs_give_what_plain_ones_give(busy: ModelFile) -> None:
    bound, plain = CudaOnCpu(busy, "0"), OrtCpu(busy, "")
    kept = []
    for seed, height in ((0, 64), (1, 64), (2, 96), (3, 64)):
        inputs = {"images": noise(seed, height), "image_sizes": SIZES}
        expected, found = plain.run(inputs), bound.run(inputs)
        assert found.keys() == expected.keys()
        kept += [(found[name], expected[name]) for name in expected]
    for one, other in kept:  # after the last run: results do not lie in a buffer that is used again
        np.testing.assert_array_equal(one, other)


def test_memory_is_given_back_with_a_new_shape_only(busy: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def shrinking(number: str) -> dict[str, str]:
        asked.append(height)
        return {"memory.enable_memory_arena_shrinkage": "cpu:0"}

    monkeypatch.setattr(ort_gpu, "shrinking_run", shrinking)
    runtime = CudaOnCpu(busy, "0")
    for height in (64, 64, 96, 96, 64):
        runtime.run({"images": noise(0, height), "image_sizes": SIZES})
    assert asked == [64, 96, 64]


def test_the_buffer_is_used_again_for_the_same_shape(busy: ModelFile) -> None:
    runtime = CudaOnCpu(busy, "0")
    buffers = []
    for height in (64, 64, 96):
        runtime.run({"images": noise(0, height), "image_sizes": SIZES})
        buffers.append(runtime._buffers.images)
    assert buffers[0] is buffers[1]
    assert buffers[1] is not buffers[2]
    runtime.close()
    assert not hasattr(runtime._buffers, "images")


def test_threads_have_buffers_of_their_own(busy: ModelFile) -> None:
    runtime, plain = CudaOnCpu(busy, "0"), OrtCpu(busy, "")
    expected = [plain.run({"images": noise(seed), "image_sizes": SIZES})["maps"] for seed in range(4)]
    found: dict[int, list[Any]] = {}

    def work(seed: int) -> None:
        found[seed] = [runtime.run({"images": noise(seed), "image_sizes": SIZES})["maps"] for _ in range(10)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, maps in found.items():
        for one in maps:
            np.testing.assert_array_equal(one, expected[seed])


class Session:
    """Notes how a session was opened, and answers as one on TensorRT with CUDA behind it."""

    opened: list[list[Any]]

    def __init__(self, data: bytes, options: Any, providers: list[Any], **others: Any) -> None:
        self.opened.append(providers)

    def get_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = {
            "TensorrtExecutionProvider": "Conv",
            "CUDAExecutionProvider": "RoiAlign",
            "CPUExecutionProvider": "Shape",
        }
        return [
            SimpleNamespace(ep_name=provider, get_nodes=lambda kind=kind: [SimpleNamespace(op_type=kind, name=kind)])
            for provider, kind in nodes.items()
        ]

    def get_outputs(self) -> list[Any]:
        return []


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """A machine with two GPUs and TensorRT, as far as the runtime asks; what sessions were opened with."""
    gpus = tuple(nvidia.Gpu(index, "Orin", "8.7", 1 << 33) for index in range(2))
    monkeypatch.setattr(nvidia, "load_libraries", lambda provider: None)
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver((12, 6), gpus))
    monkeypatch.setattr(nvidia, "tensorrt_version", lambda: 100300)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    opened: list[list[Any]] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", type("OwnSession", (Session,), {"opened": opened}))
    return opened


def fixed_model(folder: Path) -> ModelFile:
    write_model(toy_proto(), FIXED, folder / "m.onnx")
    return read_model(folder / "m.onnx")


def test_tensorrt_has_cuda_behind_it(tmp_path: Path, tensorrt: list[list[Any]]) -> None:
    options = RuntimeOptions(
        cache=False, precision="tf32", memory_limit=2, library={"trt_builder_optimization_level": "2"}
    )
    runtime = OrtTensorRt(fixed_model(tmp_path), "1", options)
    assert (runtime.device, runtime.strays) == ("tensorrt:1", ())
    (own, own_options), (behind, behind_options), last = tensorrt[0]
    assert (own, behind, last) == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert (own_options["device_id"], behind_options["device_id"]) == ("1", "1")
    assert own_options["trt_builder_optimization_level"] == "2"
    assert "trt_builder_optimization_level" not in behind_options
    assert "trt_engine_cache_path" not in own_options
    assert (own_options["trt_max_workspace_size"], behind_options["gpu_mem_limit"]) == ("2097152", "2097152")
    assert behind_options["use_tf32"] == "1"


def test_tensorrt_does_not_compute_float32_in_tf32_unless_asked(
    tmp_path: Path, tensorrt: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fixed_model(tmp_path)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    with pytest.raises(UsageError, match="TensorRT would compute in TF32") as caught:
        OrtTensorRt(model, "0")
    assert "precision=tf32" in str(caught.value.remedy)
    assert "NVIDIA_TF32_OVERRIDE=0" in str(caught.value.remedy)
    assert tensorrt == []
    for precision in ("tf32", "fp16"):
        OrtTensorRt(model, "0", RuntimeOptions(cache=False, precision=precision)).close()
    assert len(tensorrt) == 2


@pytest.mark.parametrize("spec", [SPEC.replace(canvas=None), FIXED.replace(batch=None)])
def test_tensorrt_wants_one_shape(tmp_path: Path, tensorrt: list[list[Any]], spec: Any) -> None:
    write_model(toy_proto(), spec, tmp_path / "m.onnx")
    with pytest.raises(DeviceUnavailable, match="TensorRT compiles for one shape") as caught:
        OrtTensorRt(read_model(tmp_path / "m.onnx"), "0")
    assert "--shape HxW --batch N" in str(caught.value.remedy)
    assert tensorrt == []


def engines(opened: list[Any]) -> list[bytes]:
    """What a session found where it looks for engines."""
    return [path.read_bytes() for path in Path(opened[0][1]["trt_engine_cache_path"]).glob("*.engine")]


def leave_engine(opened: list[Any]) -> None:
    (Path(opened[0][1]["trt_engine_cache_path"]) / "a.engine").write_bytes(b"an engine")


def test_what_tensorrt_builds_is_sealed_and_found_again(tmp_path: Path, tensorrt: list[list[Any]]) -> None:
    model, options = fixed_model(tmp_path), RuntimeOptions(cache=tmp_path / "cache")
    runtime = OrtTensorRt(model, "0", options)
    assert engines(tensorrt[0]) == []
    leave_engine(tensorrt[0])  # at the first run
    runtime.close()
    runtime = OrtTensorRt(model, "0", options)
    assert engines(tensorrt[1]) == [b"an engine"]
    folder = Path(tensorrt[1][0][1]["trt_engine_cache_path"])
    runtime.close()
    assert not folder.exists(), "it was this session's own"


@pytest.mark.parametrize("change", ["driver", "version", "options", "model", "environment"])
def test_an_engine_for_something_else_is_not_found(
    tmp_path: Path, tensorrt: list[list[Any]], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model, options = fixed_model(tmp_path), RuntimeOptions(cache=tmp_path / "cache")
    runtime = OrtTensorRt(model, "0", options)
    leave_engine(tensorrt[0])
    runtime.close()
    if change == "driver":
        monkeypatch.setattr(nvidia, "driver_build", lambda: "another build")
    elif change == "version":
        monkeypatch.setattr(nvidia, "tensorrt_version", lambda: 100400)
    elif change == "options":
        options = RuntimeOptions(cache=tmp_path / "cache", precision="fp16")
    elif change == "environment":
        options = RuntimeOptions(cache=tmp_path / "cache", precision="fp16")
        OrtTensorRt(model, "0", options).close()
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    else:
        write_model(busy_proto(), FIXED, tmp_path / "m.onnx")
        model = read_model(tmp_path / "m.onnx")
    runtime = OrtTensorRt(model, "0", options)
    assert engines(tensorrt[1]) == []
    runtime.close()
