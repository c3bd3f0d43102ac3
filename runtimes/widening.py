"""Files in FP16 as ONNX Runtime's CPU provider runs them best: widened to float32 when they are opened.

The provider has hardly a kernel for float16 on x86 and puts casts around the nodes, those of weights at every run:
measured on the sample model, one thread, 1.12 times the time of the float32 file. Widened, the file takes the float32
file's time; its weights are the rounded ones, its arithmetic is float32.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemask.runtimes.modelfile import ModelFile


def float32_data(model: ModelFile) -> bytes:
    """The bytes of a file, widened where its graph holds float16."""
    graph = model.proto.graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in graph.input}
    return widened(model.proto).SerializeToString() if TensorProto.FLOAT16 in kinds else model.data


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives a copy of a graph that computes in float32 what the graph computes in float16.

    Inputs keep their types, and are cast; outputs in float16 become float32. Function bodies and subgraphs stay as they
    are: in our files they hold no float16.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT  # from float32: ONNX Runtime leaves it out
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
    for value in [*graph.value_info, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    _cast_inputs(graph)
    return wide


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _cast_inputs(graph: onnx.GraphProto) -> None:
    """Of parts of a graph (`edgemask.runtimes.cuts`): the whole takes float32 only."""
    half = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
    for node in graph.node:
        node.input[:] = [f"{name}/wide" if name in half else name for name in node.input]
    for name in half:
        cast = helper.make_node("Cast", [name], [f"{name}/wide"], f"{name}/Cast", to=TensorProto.FLOAT)
        graph.node.insert(0, cast)
