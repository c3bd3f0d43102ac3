"""Models that reach for data, code and options from outside, sealed as a stranger can seal them."""

from collections.abc import Callable
from pathlib import Path

import onnx
from model_mutants import sealed
from onnx import TensorProto, helper
from toy_model import SPEC, toy_proto

from edgemask.runtimes import write_model
from edgemask.spec import SPEC_KEY

Change = Callable[[onnx.ModelProto], object]


def changed(path: Path, change: Change) -> Path:
    """Writes the toy with a change."""
    proto = toy_proto()
    change(proto)
    write_model(proto, SPEC, path)
    return path


def with_spec(path: Path, text: str) -> Path:
    """Writes the toy with any text in place of its spec."""
    write_model(toy_proto(), SPEC, path)
    proto = onnx.load_from_string(path.read_bytes())
    (entry,) = (entry for entry in proto.metadata_props if entry.key == SPEC_KEY)
    entry.value = text
    path.write_bytes(sealed(proto.SerializeToString()))
    return path


def external(location: str) -> onnx.TensorProto:
    place = onnx.StringStringEntryProto(key="location", value=location)
    return onnx.TensorProto(name="zero", dims=[], data_type=1, data_location="EXTERNAL", external_data=[place])


def weights_in(location: str) -> Change:
    """One of the toy's own weights lies in another file."""

    def change(proto: onnx.ModelProto) -> None:
        (zero,) = (tensor for tensor in proto.graph.initializer if tensor.name == "zero")
        zero.CopyFrom(external(location))

    return change


def constant(value: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["value"], value=value)


def sub_graph(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = ()) -> onnx.NodeProto:
    graph = helper.make_graph([*nodes], "body", [], [], [*tensors])
    return helper.make_node("If", ["condition"], ["result"], then_branch=graph, else_branch=graph)


def function(name: str, *nodes: onnx.NodeProto, domain: str = "edgemask") -> onnx.FunctionProto:
    return helper.make_function(domain, name, ["x"], ["y"], [*nodes], [helper.make_opsetid("", 18)])


def call(name: str, domain: str = "edgemask") -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain=domain)


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=OUT, indices=helper.make_tensor("i", TensorProto.INT64, [1], [0]))


def too_short(proto: onnx.ModelProto) -> None:
    """Leaves the scores, by a name that steers a terminal, fewer bytes than their shape says."""
    (scores,) = (tensor for tensor in proto.graph.initializer if tensor.name == "scores/value")
    scores.name, scores.raw_data = "\x1b[2J", bytes(4)
    for node in proto.graph.node:
        node.input[:] = [scores.name if name == "scores/value" else name for name in node.input]


OUT = external("../outside/secret")
OUTSIDE: dict[str, Change] = {
    "a list of places alone": lambda proto: proto.graph.initializer.append(
        onnx.TensorProto(name="t", external_data=OUT.external_data)
    ),
    "a sparse tensor": lambda proto: proto.graph.sparse_initializer.append(sparse()),
    "an attribute": lambda proto: proto.graph.node.append(constant(OUT)),
    "a list of an attribute": lambda proto: proto.graph.node.append(helper.make_node("N", [], ["v"], ts=[OUT])),
    "a sub-graph": lambda proto: proto.graph.node.append(sub_graph(tensors=(OUT,))),
    "a sub-graph of a sub-graph": lambda proto: proto.graph.node.append(sub_graph(sub_graph(constant(OUT)))),
    "a function": lambda proto: proto.functions.append(function("F", constant(OUT))),
    "a sub-graph of a function": lambda proto: proto.functions.append(function("F", sub_graph(constant(OUT)))),
    "training": lambda proto: proto.training_info.add().algorithm.node.append(constant(OUT)),
}


def foreign(library: str) -> onnx.NodeProto:
    """A node of an operator that a library would bring along."""
    return helper.make_node("Anything", ["images"], ["y"], domain="evil\n.corp", library=library)


def compiled(engine: str) -> onnx.NodeProto:
    """A node in place of which ONNX Runtime loads a compiled model from a file."""
    words = {"ep_cache_context": engine, "embed_mode": 0, "main_context": 1, "source": "TensorrtExecutionProvider"}
    return helper.make_node("EPContext", ["images"], ["y"], domain="com.microsoft", **words)


# Functions that call functions, with the names of those that are called.
CALLS: dict[str, tuple[list[onnx.FunctionProto], str]] = {
    "itself": ([function("F", call("F"))], "'F'"),
    "each other": ([function("F", call("G")), function("G", call("F"))], "'F', 'G'"),
    "itself in a sub-graph": ([function("F", sub_graph(call("F")))], "'F'"),
    # Of ten such functions, each calling the next one ten times, runtimes would make 10,000,000,000 nodes.
    "another one": ([function("F", call("G"), call("G")), function("G", call("Relu", ""))], "'G'"),
    "a standard operator of its name": ([function("Relu", call("Relu", ""), domain="ai.onnx")], "'Relu'"),
}
