"""What a shell offers for the values of options and arguments when the Tab key is pressed.

Every key press starts Python anew. So names stand here once more, where their tables need PyTorch or ONNX; a test holds
them to the tables.
"""

import glob
from collections.abc import Callable, Sequence

_BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
)
_HEADS = ("fasterrcnn", "keypointrcnn", "maskrcnn", "maskkeypointrcnn")
_BUILDERS = (
    "maskrcnn_compact_fpn",
    "maskrcnn_resnet50_c4",
    *(f"{heads}_{backbone}_fpn" for heads in _HEADS for backbone in _BACKBONES),
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn_v2",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
)
_MODEL_FILES = ("safetensors", "onnx", "npz")
Completer = Callable[[str], list[str]]


def one_of(*names: str) -> Completer:
    """Makes a function that gives the names that begin with what was typed."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def builders(incomplete: str) -> list[str]:
    """Names of builders, and model files, that begin with what was typed; of nothing, the shell offers its files."""
    files = [path for suffix in _MODEL_FILES for path in glob.glob(f"{glob.escape(incomplete)}*.{suffix}")]
    return [*one_of(*_BUILDERS)(incomplete), *sorted(files)] if incomplete else []


def names_with_commas(names: Sequence[str]) -> Completer:
    """As `one_of`, for the last of several names with commas between them."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in one_of(*names)(last)]

    return complete


devices = one_of(
    "auto",
    "cpu",
    "cuda",
    "openvino",
    "openvino:CPU",
    "openvino:GPU",
    "openvino:NPU",
    "openvino:AUTO",
    "tensorrt",
    "torch",
)
recipes = one_of("default", "minmax", "percentile", "entropy", "no-vnni", "features", "everything")
targets = one_of("tensorrt")
precisions = one_of("file", "tf32", "bf16", "fp16")
scenarios = one_of("single-stream", "multi-stream")
against = names_with_commas(("eager", "compile", "eager-fp16", "torchvision-onnx", "torchvision-onnx-unpasted"))
options = one_of("threads=", "precision=", "cache=", "memory_limit=", "streams=")
