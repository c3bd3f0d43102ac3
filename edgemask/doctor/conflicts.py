"""What works against the user here, though nothing may have failed yet."""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence

from edgemask.doctor.libraries import RUNTIMES
from edgemask.doctor.records import Conflict, Jetson, Library

# From this release on, the CUDA provider has a kernel for RoiAlign of op set 16 and later; before, the CPU runs it.
ROI_ALIGN_RELEASE = (1, 27)
_NEWEST_WITHOUT_OPSET_18 = 8  # TensorRT's major version
_REINSTALL = "pip uninstall {}, then pip install 'edgemask[{}]'"


def conflicts(
    installed: Mapping[str, str],
    *,
    runtime_cuda: str | None = None,
    torch_cuda: str | None = None,
    libraries: Sequence[Library] = (),
    jetson: Jetson | None = None,
    python: str | None = None,
) -> tuple[Conflict, ...]:
    """Looks for packages that do not go together, and for what is too old for our files.

    Args:
        installed: packages and their versions.
        runtime_cuda: the CUDA that ONNX Runtime was built for.
        torch_cuda: the CUDA that PyTorch was built for.
        libraries: CUDA, cuDNN and TensorRT, as far as they are there.
        jetson: None on any other machine.
        python: version of Python; the running one if none is given.
    """
    return (
        *_twice(installed),
        *_cuda_majors(installed, runtime_cuda, torch_cuda),
        *_old_runtime(installed),
        *_old_tensorrt(libraries, jetson),
        *_jetson_wheels(jetson, runtime_cuda, python or platform.python_version()),
    )


def _twice(installed: Mapping[str, str]) -> Iterator[Conflict]:
    found = [name for name in RUNTIMES if name in installed]
    if len(found) > 1:
        wanted = "cuda" if "onnxruntime-gpu" in found else "cpu"
        yield Conflict(
            problem=f"{' and '.join(found)} are installed and overwrite each other: which one runs is chance",
            remedy=_REINSTALL.format(" ".join(found), wanted),
        )


def _cuda_majors(installed: Mapping[str, str], runtime_cuda: str | None, torch_cuda: str | None) -> Iterator[Conflict]:
    if runtime_cuda is None or torch_cuda is None or _major(runtime_cuda) == _major(torch_cuda):
        return
    yield Conflict(
        problem=f"PyTorch {installed.get('torch', '')} was built for CUDA {torch_cuda}, onnxruntime-gpu "
        f"{installed.get('onnxruntime-gpu', '')} for CUDA {runtime_cuda}: one finds the other's libraries",
        remedy=f"install both for CUDA {_major(runtime_cuda)}, or keep PyTorch in an environment of its own",
    )


def _old_runtime(installed: Mapping[str, str]) -> Iterator[Conflict]:
    version = installed.get("onnxruntime-gpu")
    found = re.match(r"(\d+)\.(\d+)", version or "")
    if found and (int(found[1]), int(found[2])) < ROI_ALIGN_RELEASE:
        newest = "{}.{}".format(*ROI_ALIGN_RELEASE)
        yield Conflict(
            problem=f"onnxruntime-gpu {version} runs RoiAlign on the CPU, and its device cuda is refused for that: "
            f"its CUDA kernel for op set 16 came with {newest}",
            remedy=f"pip install 'onnxruntime-gpu>={newest}'",
        )


def _old_tensorrt(libraries: Sequence[Library], jetson: Jetson | None) -> Iterator[Conflict]:
    found = next((one.version for one in libraries if one.name == "TensorRT" and one.version), None)
    version = found or (jetson.tensorrt if jetson else None)
    if version is None or int(_major(version)) > _NEWEST_WITHOUT_OPSET_18:
        return
    where = f"JetPack {jetson.jetpack} brings TensorRT" if jetson and jetson.jetpack else "this is TensorRT"
    yield Conflict(
        problem=f"{where} {version}, which cannot read files of op set 18, as edgemask writes them",
        remedy="install JetPack 6.1 or later on a Jetson, elsewhere TensorRT 10; the device cuda does without TensorRT",
    )


def _jetson_wheels(jetson: Jetson | None, runtime_cuda: str | None, python: str) -> Iterator[Conflict]:
    if jetson is None or jetson.cuda is None:
        return
    if runtime_cuda is not None and _major(runtime_cuda) != _major(jetson.cuda):
        yield Conflict(
            problem=f"onnxruntime-gpu was built for CUDA {runtime_cuda}, and JetPack {jetson.jetpack} brings "
            f"CUDA {jetson.cuda}",
            remedy=f"install an onnxruntime-gpu for CUDA {_major(jetson.cuda)}: docs/devices.md says where from",
        )
    if runtime_cuda is None and jetson.python is not None and _minor(python) != _minor(jetson.python):
        yield Conflict(
            problem=f"JetPack {jetson.jetpack} comes with Python {jetson.python}, and so do wheels of onnxruntime-gpu "
            f"that are made for it: they do not fit this Python {python}",
            remedy="build onnxruntime-gpu for this Python, or use a container that has it: docs/devices.md says how",
        )


def _major(version: str) -> str:
    return version.partition(".")[0]


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
