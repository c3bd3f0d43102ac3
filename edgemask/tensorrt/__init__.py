"""TensorRT, as far as it can be told without it: which nodes of a graph its ONNX parser takes."""

from edgemask.tensorrt.checking import (
    JETPACK_NOTES,
    OPSETS,
    SOURCE,
    SUPPORT,
    NodeCheck,
    Support,
    check_tensorrt,
)
from edgemask.tensorrt.rules import MAX_TOP_K

__all__ = ["JETPACK_NOTES", "MAX_TOP_K", "OPSETS", "SOURCE", "SUPPORT", "NodeCheck", "Support", "check_tensorrt"]
