"""What is found out of NVIDIA's driver and libraries; tests/runtimes/test_faults.py asks the real loader."""

import ctypes
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgemask.errors import DeviceUnavailable
from edgemask.runtimes import nvidia
from edgemask.runtimes.nvidia import Driver, Gpu, driver, driver_build, missing, remedy_for, tensorrt_version

NO_FILE = "cannot open shared object file: No such file or directory"
GPU = Gpu(index=0, name="Orin", compute_capability="8.7", memory=8 << 30)


class FakeDriver:
    """Answers as libcuda.so.1 does."""

    version, count, status = 12060, 1, 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGetName(self, name: Any, length: int, index: int) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, index: int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, value: Any, index: int) -> int:  # noqa: N802
        value._obj.value = 8 << 30
        return 0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    answers = FakeDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **options: answers)
    return answers


def test_driver(fake: FakeDriver) -> None:
    assert driver() == Driver(cuda=(12, 6), gpus=(GPU,))


@pytest.mark.parametrize(
    ("status", "count", "words"),
    [
        (0, 0, "it shows no GPU"),
        (100, 1, "it shows no GPU"),
        (803, 1, "its parts are of different versions: the machine needs a restart"),
        (804, 1, "this container's CUDA is too new for it"),
        (3, 1, "this process was forked from one that uses it"),
        (34, 1, "a stub of it was found first"),
        (1, 1, "it answers with error 1"),
    ],
)
def test_driver_that_does_not_work(fake: FakeDriver, status: int, count: int, words: str) -> None:
    fake.status, fake.count = status, count
    with pytest.raises(DeviceUnavailable, match=f"the NVIDIA driver does not work: {words}"):
        driver()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, **options: Any) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(DeviceUnavailable, match="there is no NVIDIA driver here"):
        driver()
    assert tensorrt_version() is None


@pytest.fixture
def cuda_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if onnxruntime-gpu for CUDA 12 were installed, on a machine with one GPU."""
    import onnxruntime

    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "cuda_version", "12.8", raising=False)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("noise"), raising=False)
    nvidia._load_packages.cache_clear()
    monkeypatch.setattr(nvidia, "_is_installed", lambda package: package == "onnxruntime-gpu")
    monkeypatch.setattr(nvidia, "driver", lambda: Driver((12, 2), (GPU,)))


@pytest.mark.usefixtures("cuda_12")
def test_nothing_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **options: object())
    assert missing("cuda", "0") is None, "a driver for 12.2 runs libraries of 12.8"
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("cuda_12")
def test_threads_load_libraries_once_and_leave_the_output_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    loaded: list[int] = []

    def slow() -> None:
        loaded.append(1)
        time.sleep(0.05)  # long enough for each thread to replace the output of another

    monkeypatch.setattr(onnxruntime, "preload_dlls", slow, raising=False)
    before = sys.stdout
    threads = [threading.Thread(target=nvidia.load_libraries, args=("cuda",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is before
    assert loaded == [1]


@pytest.mark.usefixtures("cuda_12")
def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: Driver((11, 4), (GPU,)))
    reason = missing("cuda", "0")
    assert reason is not None
    assert "runs CUDA 11.4 at most" in reason.problem
    assert "built for CUDA 12" in reason.problem


@pytest.mark.usefixtures("cuda_12")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_number_that_no_gpu_has(provider: str) -> None:
    reason = missing(provider, "1")
    assert reason is not None
    assert reason.problem == "there is no GPU 1: the driver shows 0 (Orin)"
    assert reason.remedy == f"use {provider}:0"


@pytest.mark.usefixtures("cuda_12")
@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (f"libcublasLt.so.12: {NO_FILE}", "libcublasLt.so.12 is missing", "[cuda]"),
        (f"libcudnn.so.9: {NO_FILE}", "libcudnn.so.9 is missing", "nvidia-cudnn-cu12"),
        (f"libnvinfer.so.10: {NO_FILE}", "libnvinfer.so.10 is missing", "tensorrt-cu12==10.*"),
        ("/a/libx.so: undefined symbol: cuNew", "libx.so cannot be loaded: /a/libx.so: undefined symbol", "[cuda]"),
    ],
)
def test_the_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, words: str, problem: str, remedy: str) -> None:
    def load(name: str, **options: Any) -> object:
        if "providers_tensorrt" in name:
            raise OSError(words)
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    reason = missing("tensorrt", "0")
    assert reason is not None
    assert problem in reason.problem
    assert remedy in str(reason.remedy)
    assert missing("cuda", "0") is None


def test_remedy_for_an_older_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "==8.*" in remedy_for("libnvinfer.so.8")
    assert "==10.*" in remedy_for("nvinfer_10.dll")


def test_version_of_the_driver(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95\nGCC version: 13\n")
    assert driver_build(file) == "NVIDIA UNIX x86_64 Kernel Module  580.95"
    assert driver_build(tmp_path / "absent") == ""
