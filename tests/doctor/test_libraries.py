"""Versions as native libraries tell them; the libraries are stand-ins."""

import ctypes
import importlib.util
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from edgemask.doctor import libraries
from edgemask.doctor.devices import check
from edgemask.doctor.records import Library, Nvidia
from edgemask.errors import DeviceUnavailable

ABSENT = "{}: cannot open shared object file: No such file or directory"


class Stub:
    """A library whose functions set what they are given a pointer to, or return a number."""

    def __init__(self, *, sets: Mapping[str, int] | None = None, **returns: int) -> None:
        self._sets, self._returns = sets or {}, returns

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name in self._sets:

            def fill(pointer: Any, *rest: Any) -> int:
                pointer._obj.value = self._sets[name]
                return 0

            return fill
        if name in self._returns:
            return lambda *arguments: self._returns[name]
        raise AttributeError(name)


class StubDriver(Stub):
    """An NVIDIA driver with a Jetson's GPU."""

    def cuDeviceGetName(self, name: Any, length: int, index: int) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, index: int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


DRIVER = StubDriver(
    sets={"cuDriverGetVersion": 13000, "cuDeviceGetCount": 1, "cuDeviceTotalMem_v2": 8 * 2**30}, cuInit=0
)


def machine(monkeypatch: pytest.MonkeyPatch, present: Mapping[str, object], others: object | None = None) -> None:
    """Only these libraries are there, by the beginning of their names; of `others` there is no end."""

    def load(name: str | None, *arguments: Any, **options: Any) -> Any:
        file = Path(str(name)).name
        for start, library in present.items():
            if file.startswith(start):
                if isinstance(library, OSError):
                    raise library
                return library
        if others is None:
            raise OSError(ABSENT.format(file))
        return others

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_a_machine_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(
        monkeypatch,
        {
            "libcuda.so.1": DRIVER,
            "libcudart.so.13": Stub(sets={"cudaRuntimeGetVersion": 13020}),
            "libcudnn.so.9": Stub(cudnnGetVersion=92600),
            "libnvinfer.so.10": Stub(getInferLibVersion=101300),
        },
    )
    found = [Library(**fields) for fields in libraries.native_libraries()]
    assert [(one.name, one.version) for one in found] == [
        ("CUDA", "13.2"),
        ("cuDNN", "9.26.0"),
        ("TensorRT", "10.13.0"),
    ]
    here = libraries.nvidia_of(libraries.nvidia())
    assert (here.cuda, here.problem) == ("13.0", None)
    (gpu,) = here.gpus
    assert (gpu.index, gpu.name, gpu.compute_capability, gpu.memory) == (0, "Orin", "8.7", 8 * 2**30)


def test_libraries_of_an_older_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(
        monkeypatch,
        {
            "libcudart.so.12": Stub(sets={"cudaRuntimeGetVersion": 12020}),
            "libcudnn.so.8": Stub(cudnnGetVersion=8904),
            "libnvinfer.so.8": Stub(getInferLibVersion=8602),
        },
    )
    assert [fields["version"] for fields in libraries.native_libraries()] == ["12.2", "8.9.4", "8.6.2"]


def test_a_machine_without_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {})
    found = [Library(**fields) for fields in libraries.native_libraries()]
    assert [one.version for one in found] == [None] * 3
    assert found[1].problem == "libcudnn.so.9 is not found"
    here = libraries.nvidia_of(libraries.nvidia())
    assert here == Nvidia(build=here.build, problem=here.problem, remedy="install it; nvidia-smi must show the GPU")
    assert "there is no NVIDIA driver here" in (here.problem or "")


def test_a_library_that_cannot_be_loaded_or_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {"libcudnn": OSError("libcudnn.so.8: undefined symbol: zlibVersion"), "libnvinfer": Stub()})
    _, cudnn, tensorrt = (Library(**fields) for fields in libraries.native_libraries())
    assert cudnn.problem == "libcudnn.so cannot be loaded: libcudnn.so.8: undefined symbol: zlibVersion"
    assert tensorrt.problem == "libnvinfer.so does not tell its version"


def test_a_machine_with_a_gpu_and_without_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    absent = {"libcudnn": OSError(ABSENT.format("libcudnn.so.9"))}
    machine(monkeypatch, {"libcuda.so.1": DRIVER, **absent}, Stub())
    with pytest.raises(DeviceUnavailable) as caught:
        check("cuda")
    assert "the library libcudnn.so.9 is missing" in caught.value.problem
    assert caught.value.remedy is not None
    assert "pip install nvidia-cudnn-cu13" in caught.value.remedy
    machine(monkeypatch, {"libcuda.so.1": DRIVER}, Stub())
    assert check("cuda:0") == "cuda"


def test_packages_and_what_pytorch_was_built_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert libraries.packages(["numpy", "no-such-package-at-all"]).keys() == {"numpy"}
    for text, expected in (
        ("from typing import Optional\ncuda: Optional[str] = '12.6'\n", "12.6"),
        ("cuda = None\n", None),
        ("cuda = call()\n", None),
        ("", None),
    ):
        (tmp_path / "version.py").write_text(text)
        spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        assert libraries.torch_cuda() == expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert libraries.torch_cuda() is None
