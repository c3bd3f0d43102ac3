"""A model that says what values its tensors have, in few numbers: the tensors themselves never leave the runtime.

Fetched whole, those of a ResNet-50 at 800 x 1088 take 13 GB of memory and three times the time of the model.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgemask.errors import BrokenOutput, ModelFileError
from edgemask.runtimes import ModelFile
from edgemask.runtimes.runtime import Array

SAMPLE = 8192  # values of a tensor that are taken from an image, or all that it has
PREFIX = "calibration/"
_JITTER = 1024  # places of a value in its stretch; with 8,192 stretches all of them are exact in float32
_Step = tuple[str, list[str], str, dict[str, Any]]  # operator, inputs, output, attributes
_EXTREMES = ("ReduceMin", "ReduceMax", "ReduceSum")


def with_statistics(model: ModelFile, tensors: Sequence[str]) -> ModelFile:
    """Gives a copy whose graph has statistics of tensors as further outputs, which `statistics_of` reads.

    A tensor is cut into `SAMPLE` stretches of equal length, and one value is taken from each, at a place drawn once: a
    fixed step would meet the same rows, columns or channels again and again. Everything depends on the size that a
    tensor has as the graph runs, which may be 0.

    Raises:
        ModelFileError: the graph has no such tensor.
    """
    graph = model.proto.graph
    known = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    if absent := [name for name in tensors if name not in known]:
        raise ModelFileError(f"the graph of {model.path} has no tensor {', '.join(absent)}", "export the model again")
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for name, value in _constants().items():
        proto.graph.initializer.append(numpy_helper.from_array(value, PREFIX + name))
    # ONNX Runtime works backwards from the last of the nodes that nothing reads. In this order a tensor's statistics
    # are done, and the tensor is forgotten, before the next one is computed.
    for number, tensor in reversed(list(enumerate(tensors))):
        proto.graph.node.extend(_nodes(tensor, f"{PREFIX}{number}"))
    for number in range(len(tensors)):
        for operator in _EXTREMES:
            proto.graph.output.append(helper.make_tensor_value_info(f"{PREFIX}{number}/{operator}", 1, []))
        proto.graph.output.append(helper.make_tensor_value_info(f"{PREFIX}{number}/Sample", 1, [None]))
    return dataclasses.replace(model, proto=proto, data=proto.SerializeToString())


def statistics_of(
    outputs: Mapping[str, Array], tensors: Sequence[str], what: str
) -> Iterator[tuple[str, NDArray[np.float32], float, float]]:
    """Yields name, sample float32 [N], minimum and maximum of each tensor that had values.

    Args:
        outputs: of a graph that `with_statistics` gave.
        tensors: as it was given them.
        what: the model was run on, for the message.

    Raises:
        BrokenOutput: a tensor held values that are not numbers.
    """
    for number, tensor in enumerate(tensors):
        sample = outputs[f"{PREFIX}{number}/Sample"]
        if sample.size == 0:
            continue
        # Minimum and maximum miss a NaN that lies among numbers; a sum does not.
        low, high, total = (float(outputs[f"{PREFIX}{number}/{operator}"]) for operator in _EXTREMES)
        if np.isnan(total) or not np.isfinite([low, high]).all():
            raise BrokenOutput(
                f"the tensor {tensor} holds values that are not numbers, on {what}",
                "`edgemask validate` names the stage that they come from; export the model again",
            )
        yield tensor, sample, low, high


def _constants() -> dict[str, Array]:
    places = np.arange(SAMPLE) + np.random.default_rng(0).integers(0, _JITTER, SAMPLE) / _JITTER
    return {
        "places": places.astype(np.float32),
        "flat": np.array([-1], np.int64),
        "begin": np.array([0], np.int64),
        "one": np.array(1, np.int64),
        "sample": np.array(SAMPLE, np.int64),
    }


def _nodes(tensor: str, name: str) -> list[onnx.NodeProto]:
    """The nodes that take the statistics of one tensor."""
    reductions: list[_Step] = [(operator, [tensor], operator, {"keepdims": 0}) for operator in _EXTREMES]
    sampling: list[_Step] = [
        ("Reshape", [tensor, "/flat"], "Values", {}),
        ("Size", [tensor], "Size", {}),
        ("Min", ["Size", "/sample"], "Count", {}),
        ("Reshape", ["Count", "/flat"], "End", {}),
        ("Slice", ["/places", "/begin", "End"], "Places", {}),
        ("Max", ["Count", "/one"], "Divisor", {}),
        ("Cast", ["Divisor"], "DivisorFloat", {"to": onnx.TensorProto.FLOAT}),
        ("Cast", ["Size"], "SizeFloat", {"to": onnx.TensorProto.FLOAT}),
        ("Div", ["SizeFloat", "DivisorFloat"], "Stretch", {}),
        ("Mul", ["Places", "Stretch"], "Positions", {}),
        ("Cast", ["Positions"], "Indices", {"to": onnx.TensorProto.INT64}),
        ("Sub", ["Size", "/one"], "Last", {}),
        ("Min", ["Indices", "Last"], "Within", {}),  # of a huge tensor the last position may be rounded up
        ("Gather", ["Values", "Within"], "Sample", {}),
    ]

    def full(value: str) -> str:
        if value == tensor:
            return value
        return PREFIX + value[1:] if value.startswith("/") else f"{name}/{value}"

    return [
        helper.make_node(operator, list(map(full, inputs)), [f"{name}/{output}"], f"{name}/{output}", **attributes)
        for operator, inputs, output, attributes in [*reductions, *sampling]
    ]
