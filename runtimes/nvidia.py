"""What there is of NVIDIA on this machine, asked of its libraries themselves: driver, GPUs, and what is missing."""

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import io
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.errors import DeviceUnavailable

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
INSTALLATION = "pip install 'edgemask[cuda]'"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_NAME_LENGTH = 256
# Numbers of CUDA's driver API (cuda.h).
_MAJOR, _MINOR = 75, 76
_NOT_INITIALIZED, _STUB, _NO_DEVICE, _MISMATCH, _COMPATIBILITY = 3, 34, 100, 803, 804
_MEANINGS = {
    _NOT_INITIALIZED: "this process was forked from one that uses it: spawn it in place of that",
    _STUB: "a stub of it was found first, which is for linking only: look at LD_LIBRARY_PATH",
    _NO_DEVICE: "it shows no GPU",
    _MISMATCH: "its parts are of different versions: the machine needs a restart",
    _COMPATIBILITY: "this container's CUDA is too new for it",
}
_LOADING = threading.Lock()  # what is printed meanwhile is thrown away, of every thread
_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\d.]*|[\w-]+\.dll)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the driver shows.

    Attributes:
        index: its number, as in `cuda:0`.
        name: its name.
        compute_capability: such as 8.7 of Jetson Orin.
        memory: bytes.
    """

    index: int
    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        cuda: the newest CUDA that it runs, major and minor.
        gpus: what it shows; `CUDA_VISIBLE_DEVICES` hides the others.
    """

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def driver() -> Driver:
    """Asks the driver what it is and what it shows.

    Source: CUDA driver API.

    Raises:
        DeviceUnavailable: there is no driver, it does not work, or it shows no GPU.
    """
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise DeviceUnavailable(
            f"there is no NVIDIA driver here ({error})", "install it; nvidia-smi must show the GPU"
        ) from error
    _ask(library.cuInit, 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    _ask(library.cuDriverGetVersion, ctypes.byref(version))
    _ask(library.cuDeviceGetCount, ctypes.byref(count))
    if count.value == 0:
        _fail(_NO_DEVICE)
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus)


def driver_build(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The driver's own version in its own words; empty where the system does not tell, as on a Jetson.

    Args:
        file: where Linux has it.
    """
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("NVRM version:").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def tensorrt_version() -> int | None:
    """TensorRT's version as its library has it: 101300 is 10.13.0 (from 10 on); None where it is not there."""
    for name in ("nvinfer_10.dll",) if sys.platform == "win32" else ("libnvinfer.so.10", "libnvinfer.so"):
        with contextlib.suppress(OSError):
            return int(ctypes.CDLL(name).getInferLibVersion())
    return None


def _gpu(library: Any, index: int) -> Gpu:
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    _ask(library.cuDeviceGetName, name, _NAME_LENGTH, index)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _ask(library.cuDeviceGetAttribute, ctypes.byref(value), attribute, index)
        capability.append(value.value)
    memory = ctypes.c_size_t()
    _ask(library.cuDeviceTotalMem_v2, ctypes.byref(memory), index)
    return Gpu(index, name.value.decode(errors="replace"), "{}.{}".format(*capability), memory.value)


def _ask(function: Callable[..., int], *arguments: Any) -> None:
    status = function(*arguments)
    if status:
        _fail(status)


def _fail(status: int) -> None:
    reason = _MEANINGS.get(status, f"it answers with error {status}")
    raise DeviceUnavailable(
        f"the NVIDIA driver does not work: {reason}",
        "nvidia-smi must show the GPU; look at CUDA_VISIBLE_DEVICES, and in a container at its --gpus",
    )


def missing(provider: str, number: str) -> DeviceUnavailable | None:
    """Says what keeps ONNX Runtime's provider from working on a GPU of this machine; None if nothing is seen.

    Args:
        provider: `cuda` or `tensorrt`.
        number: of the GPU.
    """
    for check in (_packages, _wheel, _driver, _libraries):
        try:
            check(provider, number)
        except DeviceUnavailable as reason:
            return reason
    return None


def _packages(provider: str, number: str) -> None:
    if all(_is_installed(name) for name in _PACKAGES):
        raise DeviceUnavailable(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            f"pip uninstall onnxruntime onnxruntime-gpu, then {INSTALLATION}",
        )


def _wheel(provider: str, number: str) -> None:
    import onnxruntime

    names = {"cuda": ("CUDAExecutionProvider", "CUDA"), "tensorrt": ("TensorrtExecutionProvider", "TensorRT")}
    name, title = names[provider]
    if name not in onnxruntime.get_available_providers():
        raise DeviceUnavailable(
            f"this onnxruntime was built without {title}", f"pip uninstall onnxruntime, then {INSTALLATION}"
        )


def _driver(provider: str, number: str) -> None:
    import onnxruntime

    here = driver()
    if int(number) >= len(here.gpus):
        shown = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in here.gpus)
        raise DeviceUnavailable(f"there is no GPU {number}: the driver shows {shown}", f"use {provider}:0")
    wanted = str(getattr(onnxruntime, "cuda_version", None) or "").partition(".")[0]
    if wanted.isdigit() and here.cuda[0] < int(wanted):  # within a major version, older drivers run newer libraries
        raise DeviceUnavailable(
            f"the NVIDIA driver runs CUDA {here.cuda[0]}.{here.cuda[1]} at most, and onnxruntime-gpu "
            f"{onnxruntime.__version__} was built for CUDA {wanted}",
            f"update the driver, or install an onnxruntime-gpu that was built for CUDA {here.cuda[0]}",
        )


def _libraries(provider: str, number: str) -> None:
    import onnxruntime

    load_libraries(provider)
    folder = Path(onnxruntime.__file__).parent / "capi"
    ending = ".dll" if sys.platform == "win32" else ".so"
    start = "" if sys.platform == "win32" else "lib"
    for name in ("shared", provider):
        path = folder / f"{start}onnxruntime_providers_{name}{ending}"
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL if name == "shared" else ctypes.DEFAULT_MODE)
        except OSError as error:
            raise _without(provider, error) from error
    try:  # ONNX Runtime loads it at the first convolution only
        ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")
    except OSError as error:
        raise _without(provider, error) from error


def load_libraries(provider: str) -> None:
    """Loads the libraries of CUDA, cuDNN and TensorRT that came as Python packages, where they did; once.

    Args:
        provider: `cuda` or `tensorrt`.
    """
    with _LOADING:
        _load_packages()
        if provider == "tensorrt":
            _load_tensorrt()


@functools.cache
def _load_packages() -> None:
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()):  # it prints of every library that it does not find
        onnxruntime.preload_dlls()


@functools.cache
def _load_tensorrt() -> None:
    package = importlib.util.find_spec("tensorrt_libs")
    if package is None or package.origin is None:
        return
    for pattern in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
        for path in sorted(Path(package.origin).parent.glob(pattern)):
            with contextlib.suppress(OSError):  # what cannot be loaded is named when it is needed
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _without(provider: str, error: OSError) -> DeviceUnavailable:
    found = _LIBRARY.search(str(error))
    name = found[1] if found else str(error)
    missing_file = "No such file" in str(error) or "not found" in str(error)
    problem = f"the library {name} is missing" if missing_file else f"the library {name} cannot be loaded: {error}"
    return DeviceUnavailable(f"{problem}, which onnxruntime's {provider} provider needs", remedy_for(name))


def remedy_for(library: str) -> str:
    """The command that brings a library.

    Args:
        library: name of its file, such as libcudnn.so.9.
    """
    import onnxruntime

    major = str(getattr(onnxruntime, "cuda_version", None) or "13").partition(".")[0]
    if library.startswith(("libnvinfer", "libnvonnxparser", "nvinfer", "nvonnxparser")):
        release = (re.search(r"\.so\.(\d+)", library) or re.search(r"_(\d+)\.dll", library) or [None, "10"])[1]
        return f"pip install 'tensorrt-cu{major}=={release}.*'; on a Jetson it comes with JetPack"
    if "cudnn" in library:
        return f"pip install nvidia-cudnn-cu{major}, or {INSTALLATION}"
    return f"{INSTALLATION} brings CUDA {major}; on a Jetson it comes with JetPack"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
