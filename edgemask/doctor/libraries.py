"""Versions: Python packages by their metadata, native libraries by their own functions.

The functions that load a library are meant for a process of their own (`edgemask.doctor.children`) and return what
JSON can hold.
"""

import ast
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgemask.doctor.machine import text_of
from edgemask.doctor.records import Gpu, Library, Nvidia, OpenVinoDevice
from edgemask.errors import DeviceUnavailable

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm")
PACKAGES = ("numpy", "pillow", "onnx", *RUNTIMES, "openvino", "tensorrt", "nncf", "torch", "torchvision")
# The first is what current wheels of ONNX Runtime load; the name without a number comes with a development package.
_CUDA = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_CUDNN = ("libcudnn.so.9", "libcudnn.so.8", "libcudnn.so")
_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.8", "libnvinfer.so")


def packages(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that are installed."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def torch_cuda() -> str | None:
    """The CUDA that PyTorch was built for, read without loading it; None without PyTorch, or for its CPU build."""
    try:
        found = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    for line in text_of(Path(found.origin).parent / "version.py").splitlines():
        name, _, value = line.partition("=")
        if name.partition(":")[0].strip() == "cuda":
            with contextlib.suppress(ValueError, SyntaxError):
                version = ast.literal_eval(value.strip())
                return version if isinstance(version, str) else None
    return None


def onnxruntime_build() -> dict[str, Any]:
    """What ONNX Runtime was built with: `cuda`, the version or None, and `providers`.

    Raises:
        ImportError: it is not installed, or cannot be loaded.
    """
    import onnxruntime

    cuda = str(getattr(onnxruntime, "cuda_version", None) or "")
    return {"cuda": cuda or None, "providers": list(onnxruntime.get_available_providers())}


def nvidia() -> dict[str, Any]:
    """The NVIDIA driver and its GPUs, as the fields of a `Nvidia`."""
    from edgemask.runtimes.nvidia import driver, driver_build

    build = driver_build()
    try:
        here = driver()
    except DeviceUnavailable as error:
        return dataclasses.asdict(Nvidia(build=build, problem=error.problem, remedy=error.remedy))
    gpus = tuple(
        Gpu(index=gpu.index, name=gpu.name, compute_capability=gpu.compute_capability, memory=gpu.memory)
        for gpu in here.gpus
    )
    return dataclasses.asdict(Nvidia(build=build, cuda="{}.{}".format(*here.cuda), gpus=gpus))


def nvidia_of(fields: dict[str, Any]) -> Nvidia:
    """The record of what `nvidia` returned."""
    return Nvidia(**{**fields, "gpus": tuple(Gpu(**gpu) for gpu in fields["gpus"])})


def native_libraries() -> list[dict[str, Any]]:
    """CUDA's runtime, cuDNN and TensorRT, each as the fields of a `Library`.

    Looked for where ONNX Runtime finds them: in Python packages, then where the system's loader looks.
    """
    with contextlib.suppress(ImportError):
        from edgemask.runtimes.nvidia import load_libraries

        load_libraries("tensorrt")
    found = (
        _library("CUDA", _CUDA, _cuda_version),
        _library("cuDNN", _CUDNN, _cudnn_version),
        _library("TensorRT", _TENSORRT, _tensorrt_version),
    )
    return [dataclasses.asdict(library) for library in found]


def openvino_devices() -> list[dict[str, Any]]:
    """What OpenVINO sees, each as the fields of an `OpenVinoDevice`.

    Raises:
        ImportError: it is not installed, or cannot be loaded.
    """
    from edgemask.runtimes.ov import shared_core

    core = shared_core()
    return [
        dataclasses.asdict(OpenVinoDevice(name=name, full_name=core.get_property(name, "FULL_DEVICE_NAME").strip()))
        for name in core.available_devices
    ]


def _library(name: str, files: Iterable[str], version_of: Callable[[Any], str]) -> Library:
    problem = f"{next(iter(files))} is not found"
    for file in files:
        try:
            return Library(name=name, version=version_of(ctypes.CDLL(file)))
        except OSError as error:
            if "No such file" not in str(error) and "not found" not in str(error):
                problem = f"{file} cannot be loaded: {error}"
        except AttributeError:
            problem = f"{file} does not tell its version"
    return Library(name=name, problem=problem)


def _cuda_version(library: Any) -> str:
    """Source: CUDA runtime API, cudaRuntimeGetVersion: 13020 is 13.2."""
    version = ctypes.c_int()
    library.cudaRuntimeGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _cudnn_version(library: Any) -> str:
    """Source: cudnn_version.h: 92600 is 9.26.0, and before 9, 8904 is 8.9.4."""
    version = int(library.cudnnGetVersion())
    major = 10_000 if version >= 10_000 else 1000
    return f"{version // major}.{version % major // 100}.{version % 100}"


def _tensorrt_version(library: Any) -> str:
    """Source: NvInferVersion.h: 100300 is 10.3.0, and before 10, 8602 is 8.6.2."""
    version = int(library.getInferLibVersion())
    major = 10_000 if version >= 10_000 else 1000
    return f"{version // major}.{version % major // 100}.{version % 100}"
