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

__all__ = ["JETPACK_NOTES", "OPSETS", "SOURCE", "SUPPORT", "NodeCheck", "Support", "check_tensorrt"]
