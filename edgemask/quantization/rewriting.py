"""Puts QuantizeLinear and DequantizeLinear around layers: one file that ONNX Runtime, OpenVINO and TensorRT read.

`onnxruntime.quantization` places the nodes and rounds the weights. What it cannot do around our graph is done here:
which nodes between the layers go along, so that eight bits pass from layer to layer; the names, since
stages, custom ops and taps find their tensors by them: a tensor keeps its name where it is read, that is behind the
rounding, and every new node begins with its stage; the order of the nodes; and the producer.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgemask.quantization.layers import OPERATORS, Layer
from edgemask.quantization.recipes import Recipe
from edgemask.runtimes import ModelFile
from edgemask.spec import ModelSpec

Range = tuple[float, float]
# Operators without weights that both runtimes compute in eight bits, or that only move numbers.
_PASSIVE = ("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Reshape",
            "Resize")  # fmt: skip
# Vanish where the range of what they give begins at 0.
_CLIPPING = ("Clip", "Relu")
_CAST = "/cast"  # behind the name of a weight that is stored as FP16
_WORTH_A_CAST = 1024  # numbers
_EXACT = "/exact"  # what a tensor is called before it is rounded


def tensors_to_calibrate(model: ModelFile, layers: Collection[Layer]) -> tuple[str, ...]:
    """Names of the activations whose ranges `rewrite` needs for these layers, or for any part of them."""
    graph = model.proto.graph
    names = {layer.name for layer in layers}
    active = names | _between(graph, names)
    readers = _readers(graph)
    wanted: dict[str, None] = {}
    for node in graph.node:
        if node.name in active:
            wanted |= dict.fromkeys([*_data(node), *node.output])
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(name for name in wanted if name not in constants and _clipped(name, readers) not in wanted)


def rewrite(
    model: ModelFile, layers: Collection[Layer], ranges: Mapping[str, Range], recipe: Recipe
) -> onnx.ModelProto:
    """Quantizes layers of a model.

    Args:
        model: in FP32.
        layers: those to quantize, out of `layers_of`.
        ranges: least and greatest value of each tensor that `tensors_to_calibrate` names for these layers.
        recipe: how weights and activations are rounded.

    Returns:
        The graph, as QDQ; all tensors that stages and custom ops are known by keep their names. Layers that share their
        weights with a quantized one have them rounded, even where they compute in FP32; the weights of all others are
        stored as FP16 where activations are not symmetric, which takes half the room.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    proto = onnx.shape_inference.infer_shapes(model.proto)
    add_infer_metadata(proto)  # else the quantizer does the same by way of temporary files
    names = {layer.name for layer in layers}
    readers = _readers(proto.graph)
    known = dict(ranges)
    # The quantizer asks for the range of what a Relu clips even where it does away with the Relu.
    clipped = ((name, _clipped(name, readers)) for name in readers)
    known |= {name: ranges[after] for name, after in clipped if after is not None and after in ranges}
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in known.items()}
    options: dict[str, Any] = {"ActivationSymmetric": recipe.symmetric, "WeightSymmetric": True}
    if recipe.symmetric:  # as TensorRT wants it: inputs of layers only, and biases as they are
        options |= {"OpTypesToExcludeOutputQuantization": list(OPERATORS), "QuantizeBias": False}
    with _quiet():
        quantizer = QDQQuantizer(
            proto,
            recipe.per_channel,
            recipe.weight_bits < 8,
            QuantType.QInt8,
            QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            sorted(names | _between(proto.graph, names)),
            [],
            [*OPERATORS, *_PASSIVE],
            options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    del made.metadata_props[:]  # the quantizer leaves a mark of its own
    made.metadata_props.extend(model.proto.metadata_props)
    made.producer_name, made.producer_version = model.proto.producer_name, model.proto.producer_version
    _restore_names(made.graph)
    if not recipe.symmetric:  # nobody has seen TensorRT take weights out of a cast
        _halve_weights(made.graph)
    return made


def ops_of(spec: ModelSpec, proto: onnx.ModelProto) -> tuple[dict[str, Any], ...] | None:
    """What a spec records of the custom ops, of which some give a tensor that is rounded after them now."""
    produced = {name for node in proto.graph.node for name in node.output}
    return spec.ops and tuple(
        op | {"output": op["output"] + _EXACT if op["output"] + _EXACT in produced else op["output"]} for op in spec.ops
    )


def _between(graph: onnx.GraphProto, layers: Collection[str]) -> set[str]:
    """Names of the nodes between quantized layers: what they take is quantized, and what they give is needed so."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantized = {name for node in graph.node if node.name in layers for name in node.output}
    behind = []
    for node in graph.node:
        data = [name for name in _data(node) if name not in constants]
        passive = node.op_type in _PASSIVE and not node.domain and _holds_zero(node, constants)
        if passive and data and quantized.issuperset(data):
            quantized.update(node.output)
            behind.append(node)
    needed = {node.input[0] for node in graph.node if node.name in layers}
    between: set[str] = set()
    for node in reversed(behind):
        # One that clips is worth it behind a layer in any case: the range of what it gives is half as wide.
        if needed.isdisjoint(node.output) and not (node.op_type in _CLIPPING and _given_by(node, graph, layers)):
            continue
        between.add(node.name)
        needed.update(_data(node))
    return between


def _holds_zero(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether 0 passes a node that clips: the range of a quantized tensor holds it, and takes the place of the Clip."""
    if node.op_type != "Clip":
        return True
    bounds = [name for name in node.input[1:] if name]
    if not all(name in constants for name in bounds):
        return False
    low, high = (
        float(numpy_helper.to_array(constants[node.input[place]]))
        if len(node.input) > place and node.input[place]
        else 0.0
        for place in (1, 2)
    )
    return low <= 0 <= high


def _data(node: onnx.NodeProto) -> list[str]:
    """What a node computes with, without shapes, bounds and sizes."""
    names = node.input if node.op_type in ("Add", "Concat", "Mul") else node.input[:1]
    return [name for name in names if name]


def _given_by(node: onnx.NodeProto, graph: onnx.GraphProto, layers: Collection[str]) -> bool:
    return any(other.name in layers and node.input[0] in other.output for other in graph.node)


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def _clipped(name: str, readers: Mapping[str, list[onnx.NodeProto]]) -> str | None:
    """What a tensor is once it is clipped, where nothing else reads it."""
    only = readers.get(name, [])
    return only[0].output[0] if len(only) == 1 and only[0].op_type in _CLIPPING else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs to the root logger, that a model was not optimized before among other things."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _restore_names(graph: onnx.GraphProto) -> None:
    """Gives every tensor its name back where it is read, and each new node one that begins with its stage."""
    tensors = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    readers, paths = _readers(graph), _paths(graph)
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in tensors:
            name = node.input[0]
            (back,) = readers[node.output[0]]
            path = paths.get(name) or f"{readers[back.output[0]][0].name}/input"
            node.name, back.name = (f"{path}/{word}" for word in ("Quantize", "Dequantize"))
            if name not in paths:  # an input of the graph, which cannot be called otherwise
                continue
            if back.output[0] in outputs:  # the quantizer has renamed what comes before it already
                renamed[name] = back.output[0] + _EXACT
                continue
            renamed[name] = name + _EXACT
            renamed[back.output[0]] = name
        elif node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            layer = readers[node.output[0]][0]
            node.name = f"{layer.name}/{'weight' if layer.input[1] == node.output[0] else 'bias'}/Dequantize"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in list(graph.value_info):
        if value.name in renamed:
            graph.value_info.add().CopyFrom(value)
            graph.value_info[-1].name = renamed[value.name]


def _paths(graph: onnx.GraphProto) -> dict[str, str]:
    """A name for each tensor by the node that gives it; with its place where the node gives several."""
    return {
        name: node.name if len(node.output) == 1 else f"{node.name}/{place}"
        for node in graph.node
        for place, name in enumerate(node.output)
    }


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Stores what is left of weights in FP32 as FP16, behind a cast that runtimes compute once, as they open a file."""
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    readers, casts = _readers(graph), []
    for name, tensor in weights.items():
        layers = readers[name]
        if not layers or any(node.op_type not in OPERATORS or node.input[1] != name for node in layers):
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _WORTH_A_CAST or not np.abs(values).max() <= np.finfo(np.float16).max:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [name + _CAST], f"{layers[0].name}/weight/Cast", to=1))
        for node in layers:
            node.input[1] = name + _CAST
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
