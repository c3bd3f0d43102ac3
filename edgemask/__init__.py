"""edgemask: take a trained Mask R-CNN from PyTorch to the edge, fast, small and provably equal."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.detections import Detections
from edgemask.errors import EdgemaskError
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    from edgemask.runtimes import Detector, RuntimeOptions

__all__ = ["Detections", "EdgemaskError", "ModelSpec", "SemanticMap", "load"]
__version__ = "0.1.0"

# ONNX Runtime's builds tell their makers of each process that imports them, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    path: str | Path, *, device: str = "auto", options: "RuntimeOptions | None" = None, fallback: bool = False
) -> "Detector":
    """Opens a model file for prediction.

    Args:
        path: an ONNX file written by edgemask; seal and spec are checked before a runtime sees it. Or a checkpoint
            (.safetensors) for the device `torch`, the PyTorch reference with the same interface.
        device: `cpu`, `cuda`, `cuda:N`, `tensorrt`, `tensorrt:N`, `openvino`, `openvino:GPU`, `openvino:NPU`: that
            device or an error. `openvino:AUTO` leaves the choice to OpenVINO. `auto` takes the first that works of
            cuda, openvino:GPU, openvino:CPU, cpu, and keeps the reasons why the others did not in `Detector.refusals`.
            `torch`, `torch:cuda` and `torch:cuda:N` are for a checkpoint.
        options: how to open it; the defaults are meant to be right.
        fallback: where the device named cannot be used, go on as `auto` does, and where a part of the graph cannot run
            on it, let it run elsewhere. A warning in the log of `edgemask` says so.

    Returns:
        A detector; see `edgemask.runtimes.Detector.predict`.

    Raises:
        ModelFileError: no such file, or no sound edgemask model.
        DependencyMissing: no runtime is installed.
        DeviceUnavailable: the device cannot run this model here.
    """
    from edgemask.errors import DependencyMissing

    try:
        from edgemask.runtimes import load as load_detector
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "onnx":
            raise
        raise DependencyMissing(
            "model files are read with the package onnx, which is not installed",
            "pip install 'edgemask[cpu]', 'edgemask[cuda]' or 'edgemask[openvino]'",
        ) from error
    return load_detector(path, device=device, options=options, fallback=fallback)
