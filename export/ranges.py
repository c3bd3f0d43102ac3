"""Whether what a file computes in float16 fits into it, told without any hardware that does.

A processor runs a file in FP16 in float32, where nothing overflows: a file that is equal to PyTorch there may give
infinities on a GPU.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemask.export.half import LIMIT, half_tensors
from edgemask.runtimes import Detector, ModelFile
from edgemask.runtimes.inputs import inputs_of, rois_of

Picture = NDArray[np.uint8]
Boxes = NDArray[np.float32]
_LIMIT = "range/limit"
_PREFIX = "range/"


def overflows(model: ModelFile, device: str, images: Iterable[tuple[Picture, Boxes | None]]) -> dict[str, int]:
    """Counts the numbers beyond float16's range that the float16 operators of a file compute.

    Args:
        model: the file.
        device: where it is run; what counts as float16 may be computed in float32 there.
        images: uint8 [H, W, 3] RGB, each with proposals float32 [N, 4] xyxy in its pixels for a model that takes them.

    Returns:
        By name of the tensor, in the graph's order; only those that hold any.
    """
    spec, copies = model.spec, model.spec.batch or 1
    names = half_tensors(model.proto)
    counts: Counter[str] = Counter()
    with Detector(_watched(model, names), device) as detector:
        for pixels, boxes in images:
            inputs, placement = inputs_of(pixels, spec)
            rois = None if boxes is None else rois_of([boxes] * copies, [placement] * copies, copies, spec)
            outputs = detector.run(inputs["images"], inputs["image_sizes"], rois)
            counts.update({name: int(outputs[_PREFIX + name]) for name in names})
    return {name: counts[name] for name in names if counts[name]}


def _watched(model: ModelFile, names: list[str]) -> ModelFile:
    """A copy whose graph also gives, for each tensor named, how many of its numbers are too large."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array(LIMIT, np.float16), _LIMIT))
    for name in names:
        stem = _PREFIX + name
        for node in (
            _node("Abs", [name], f"{stem}/size"),
            _node("Greater", [f"{stem}/size", _LIMIT], f"{stem}/beyond"),
            _node("Cast", [f"{stem}/beyond"], f"{stem}/ones", to=TensorProto.FLOAT),
            _node("ReduceSum", [f"{stem}/ones"], stem, keepdims=0),
        ):
            graph.node.append(node)
        graph.output.append(helper.make_tensor_value_info(stem, TensorProto.FLOAT, []))
    return dataclasses.replace(model, proto=proto, data=proto.SerializeToString())


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], output, **attributes)
