"""A part of a model's graph, cut out so that somebody else's tensors can be fed to it."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper

from edgemask.errors import ModelFileError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.runtime import Array

# What a tensor that is given is called as an input: under its own name the graph computes it all the same.
PREFIX = "given/"


def produced(model: ModelFile) -> set[str]:
    """Names of all tensors that the nodes of a graph compute."""
    return {name for node in model.proto.graph.node for name in node.output if name}


def cut(model: ModelFile, wanted: Collection[str], given: Collection[str]) -> ModelFile:
    """Gives the part of a graph that computes some tensors from others, and nothing else.

    Whatever reads a given tensor reads an input `given/NAME` in its place. From where no given tensor lies on the way,
    the part reaches back to the inputs of the graph, which keep their names.

    Args:
        model: the whole.
        wanted: tensors that become the outputs, in this order.
        given: tensors that the caller has; those that nothing reads are no inputs.

    Raises:
        ModelFileError: the graph does not compute what is wanted, or does not say of which type an input is.
    """
    graph = model.proto.graph
    if absent := sorted(set(wanted) - produced(model)):
        raise ModelFileError(f"the graph of {model.path} computes no {', '.join(absent)}", "export the model again")
    inputs = [value.name for value in graph.input]
    cuts = set(given) - set(inputs)
    proto = _shell(model.proto)
    needed, read = set(wanted), set[str]()
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        own = proto.graph.node.add()
        own.CopyFrom(node)
        own.input[:] = [PREFIX + name if name in cuts else name for name in node.input]
        read.update(node.input)
        needed.update(set(node.input) - cuts)
    proto.graph.node.reverse()
    proto.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    types = _types(model, read & cuts)
    proto.graph.input.extend(types[name] for name in inputs if name in read)
    for name in sorted(read & cuts):
        proto.graph.input.append(_anonymous(PREFIX + name, types[name]))
    proto.graph.output.extend(types.get(name) or onnx.ValueInfoProto(name=name) for name in wanted)
    return dataclasses.replace(model, proto=proto, data=proto.SerializeToString())


def inputs_of(part: ModelFile, values: Mapping[str, Array]) -> dict[str, Array]:
    """What a part takes, out of values by the names of the whole graph, in the types that it takes."""
    inputs = {}
    for value in part.proto.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        inputs[value.name] = np.ascontiguousarray(values[value.name.removeprefix(PREFIX)], kind)
    return inputs


def _shell(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its graph: the weights of a part are copied once, and no others."""
    shell = onnx.ModelProto(ir_version=proto.ir_version)
    shell.opset_import.extend(proto.opset_import)
    shell.functions.extend(proto.functions)
    shell.metadata_props.extend(proto.metadata_props)
    shell.graph.name = proto.graph.name
    return shell


def _types(model: ModelFile, names: Collection[str]) -> dict[str, onnx.ValueInfoProto]:
    """What the file says of tensors, and what follows from it where it says nothing."""
    types = _written(model.proto)
    if not types.keys() >= set(names):
        types = _written(onnx.shape_inference.infer_shapes(model.proto)) | types
    if unknown := sorted(set(names) - types.keys()):
        raise ModelFileError(
            f"the graph of {model.path} does not say of which type {', '.join(unknown)} is", "export the model again"
        )
    return types


def _written(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    graph = proto.graph
    return {value.name: value for value in [*graph.value_info, *graph.input, *graph.output]}


def _anonymous(name: str, known: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """An input like a known tensor; sides that may change are not tied to those of other tensors."""
    kind = known.type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
    return helper.make_tensor_value_info(name, kind.elem_type, sides if kind.HasField("shape") else None)
