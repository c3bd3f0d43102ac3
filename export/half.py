"""FP16 where a network is heavy, FP32 everywhere else: a pass over the exported graph.

Convolutions and matrix products of the trained stages, and the light operators between them, compute in float16 with
float16 weights. Boxes, areas, levels, pooling, suppression, probabilities, inputs and outputs stay float32: in float16
an area above 256 x 256 pixels is infinite, and coordinates above 2,048 are even numbers.

The well-known converters go the other way round: all is float16, and each node that must not be gets casts of its own
around it. Between two float32 nodes every tensor is then rounded to float16 all the same, coordinates and areas among
them. Here a cast stands where a tensor leaves or enters a region, once for all its readers, and nowhere else.

What bears the name of a stage (`fpn.0`, `box_head`, …) keeps it and is float16 where a heavy operator gives it.
"""

import itertools
from collections.abc import Iterable, Mapping, Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemask.errors import UnsupportedModel

PRECISIONS = ("fp32", "fp16")  # that the exporter writes
LIMIT = float(np.finfo(np.float16).max)

# Prefixes of the names of nodes. Of the RPN only the head: anchors and candidates are coordinates.
_REGIONS = ("backbone/", "fpn/", "rpn/head/", "box_head/", "mask_head/", "keypoint_head/", "head/")
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Light operators that may be float16, and which of their inputs then are. Not among them: what divides, takes roots or
# exponentials, or sums over a whole map, where float16 loses too much.
_LIGHT: dict[str, slice] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Concat", "Clip", "PRelu"), slice(None)),
    **dict.fromkeys(("Relu", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Identity"), slice(1)),
    **dict.fromkeys(("MaxPool", "AveragePool", "Resize", "Gather"), slice(1)),
    **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Expand"), slice(1)),
    "Pad": slice(0, None, 2),  # the data and what surrounds them
}
_TYPELESS = ("Shape", "Size")  # take whatever there is


def compute_in_half(model: onnx.ModelProto) -> None:
    """Rewrites an exported graph, custom ops still one node each, to compute its heavy regions in float16.

    Raises:
        UnsupportedModel: a weight that float16 cannot hold; names it. Weights too small for it become zero.
    """
    graph = model.graph
    half = _heavy_regions(graph)
    outputs = _own_outputs(graph, half)
    _halve_weights(graph, half)
    _declare(graph, half)
    _place_casts(graph, half, outputs)


def half_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of what the float16 operators of a graph compute, in its order; casts are none."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    produced = [node.output[0] for node in model.graph.node if node.op_type != "Cast"]
    return [name for name in produced if kinds.get(name) == TensorProto.FLOAT16]


def _heavy_regions(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that compute in float16: the heavy ones, and light ones with a heavy one on either side.

    A light one behind the last heavy one would only move the cast, and round once more.
    """
    candidates = [node for node in graph.node if node.name.startswith(_REGIONS) and node.domain in ("", "ai.onnx")]
    constant, behind = {tensor.name for tensor in graph.initializer}, set[str]()
    for node in candidates:
        if node.op_type in _HEAVY or (node.op_type in _LIGHT and not behind.isdisjoint(_floats(node))):
            behind.add(node.output[0])
        elif node.op_type in _LIGHT and constant.issuperset(_floats(node)):  # a choice among weights
            constant.add(node.output[0])
    half, wanted = set[str](), set[str]()
    for node in reversed(candidates):
        between = node.op_type in _LIGHT and node.output[0] in wanted & (behind | constant)
        if node.op_type in _HEAVY or between:
            half.add(node.name)
            wanted.update(_floats(node))
    return half


def _places(node: onnx.NodeProto) -> range:
    """Which inputs have the type of the output."""
    return range(len(node.input))[_LIGHT.get(node.op_type, slice(None))]


def _floats(node: onnx.NodeProto) -> list[str]:
    """The names of these inputs."""
    return [node.input[place] for place in _places(node) if node.input[place]]


def _others(node: onnx.NodeProto, half: Set[str]) -> list[str]:
    """Names of what a node reads as it was: all, or of a float16 node such as sizes and indices."""
    kept = set(range(len(node.input))) - (set(_places(node)) if node.name in half else set())
    return [node.input[place] for place in sorted(kept) if node.op_type not in _TYPELESS]


def _own_outputs(graph: onnx.GraphProto, half: Set[str]) -> dict[str, str]:
    """Renames what float16 nodes give as outputs of the graph, which stay float32; gives the outputs by new name."""
    values = {value.name: value for value in graph.output}
    renamed = {
        node.output[0]: f"{node.output[0]}/half"
        for node in graph.node
        if node.name in half and node.output[0] in values
    }
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for name, own in renamed.items():
        value = graph.value_info.add()
        value.CopyFrom(values[name])
        value.name = own
    return {own: name for name, own in renamed.items()}


def _halve_weights(graph: onnx.GraphProto, half: Set[str]) -> None:
    """Makes the weights of float16 nodes float16; those that float32 nodes read too stay, and get a copy."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shared = {name for node in graph.node for name in _others(node, half)}
    renamed: dict[str, str] = {}
    nodes = [node for node in graph.node if node.name in half]
    for name in dict.fromkeys(name for node in nodes for name in _floats(node) if name in weights):
        renamed[name] = f"{name}/half" if name in shared else name
        tensor = graph.initializer.add() if name in shared else weights[name]
        tensor.CopyFrom(_rounded(weights[name], renamed[name]))
    for node in nodes:
        for place in _places(node):
            node.input[place] = renamed.get(node.input[place], node.input[place])


def _rounded(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LIMIT:
        raise UnsupportedModel(
            f"weight {weight.name} holds {largest:.6g}, float16 goes up to {LIMIT:.0f}",
            "export it in float32: --precision fp32 (precision='fp32')",
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _declare(graph: onnx.GraphProto, half: Set[str]) -> None:
    """Corrects the types that the graph says its tensors have; weights are among these."""
    changed = {node.output[0] for node in graph.node if node.name in half}
    changed |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    for value in graph.value_info:
        if value.name in changed:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _place_casts(graph: onnx.GraphProto, half: Set[str], outputs: Mapping[str, str]) -> None:
    """Casts what crosses a border once for all its readers, right behind the node that gives it."""
    kinds = _crossing(graph, half) | dict.fromkeys(outputs, TensorProto.FLOAT)
    names = _cast_names(graph, kinds)
    # OpenVINO, which leaves casts out in float32, knows a tensor by the first of its names in alphabetical order.
    results = {name: outputs.get(name, f"{name}/cast") for name in kinds}
    for node in graph.node:
        places = _places(node) if node.name in half else ()
        for place, name in enumerate(node.input):
            needed = TensorProto.FLOAT16 if place in places else TensorProto.FLOAT
            if node.op_type not in _TYPELESS and kinds.get(name) == needed:
                node.input[place] = results[name]
    known = {value.name: value for value in [*graph.value_info, *graph.input]}
    for name in kinds.keys() & known.keys() - outputs.keys():
        value = graph.value_info.add()
        value.CopyFrom(known[name])
        value.name, value.type.tensor_type.elem_type = results[name], kinds[name]
    casts = {
        name: helper.make_node("Cast", [name], [results[name]], names[name], to=kind) for name, kind in kinds.items()
    }
    ordered = [casts[value.name] for value in graph.input if value.name in casts]
    for node in graph.node:
        ordered += [node, *(casts[name] for name in node.output if name in casts)]
    nodes = onnx.GraphProto(node=ordered).node  # copies, made before the field is emptied
    del graph.node[:]
    graph.node.extend(nodes)


def _crossing(graph: onnx.GraphProto, half: Set[str]) -> dict[str, int]:
    """What is computed on one side of a border and read on the other, and the type that its readers take."""
    computed = {node.output[0] for node in graph.node if node.name in half}
    present = computed | {tensor.name for tensor in graph.initializer}
    kinds: dict[str, int] = {}
    for node in graph.node:
        if node.name in half:
            kinds |= dict.fromkeys((name for name in _floats(node) if name not in present), TensorProto.FLOAT16)
        kinds |= dict.fromkeys((name for name in _others(node, half) if name in computed), TensorProto.FLOAT)
    return kinds


def _cast_names(graph: onnx.GraphProto, tensors: Iterable[str]) -> dict[str, str]:
    """A name for the cast of each tensor: beside the node that gives it, or beside the first that reads an input."""
    paths = {name: node.name for node in reversed(graph.node) for name in node.input}
    paths |= {name: node.name for node in graph.node for name in node.output}
    taken = {node.name for node in graph.node}
    names = {}
    for tensor in tensors:
        stem = f"{paths[tensor].rpartition('/')[0]}/Cast"
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        names[tensor] = next(name for name in itertools.chain([stem], numbered) if name not in taken)
        taken.add(names[tensor])
    return names
