"""What can be known of the values in a graph before it runs: types, shapes, constants, and what data decides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import printable
from edgemask.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")


def inferred(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns a copy of a model with the types and shapes that ONNX infers.

    Raises:
        ModelFileError: the graph is not one that ONNX can follow.
    """
    from onnx.shape_inference import InferenceError, infer_shapes

    try:
        return infer_shapes(model, data_prop=True)
    except InferenceError as error:
        raise ModelFileError(
            f"the types of the graph do not fit: {printable(str(error))}", "export the model again"
        ) from error


class Scope:
    """What is known of the values that a node can see.

    Attributes:
        opset: version of ONNX's own operators.
        nodes: of the innermost graph.
        types: data type of each value, as in `onnx.TensorProto`.
        shapes: of each value, a side None where it is open.
        settled: values that are constant, or follow from shapes alone.
    """

    def __init__(self, opset: int, graphs: "Sequence[onnx.GraphProto]", settled: frozenset[str] = frozenset()) -> None:
        """Reads graphs, the outermost first.

        Args:
            opset: version of ONNX's own operators.
            graphs: of a model that shape inference has seen.
            settled: inputs that are to count as constant.
        """
        self.opset = opset
        self.nodes = graphs[-1].node
        self.types: dict[str, str] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.settled = set(settled)
        self._graphs = graphs
        self._constants: dict[str, Any] = {}
        for graph in graphs:
            for value in (*graph.input, *graph.value_info, *graph.output):
                self._describe(value)
            for tensor in graph.initializer:
                self._keep(tensor.name, tensor)
            for node in graph.node:
                self._settle(node)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Returns the value of an initializer or Constant node; None for anything else."""
        import onnx

        if name not in self._constants:
            return None
        value = self._constants[name]
        if isinstance(value, onnx.AttributeProto):
            value = onnx.helper.get_attribute_value(value)
        return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)

    def inner(self, graph: "onnx.GraphProto") -> "Scope":
        """Returns the scope inside a branch or a loop's body."""
        return Scope(self.opset, [*self._graphs, graph], frozenset(self.settled))

    def called(self, call: "onnx.NodeProto", function: "onnx.FunctionProto") -> "Scope":
        """Returns the scope inside a local function, with the attributes and the input types of this call."""
        import onnx

        given = dict(zip(function.input, call.input, strict=False))
        inputs = [
            onnx.helper.make_tensor_value_info(
                formal, onnx.TensorProto.DataType.Value(self.types[actual]), self.shapes.get(actual)
            )
            for formal, actual in given.items()
            if actual in self.types
        ]
        values = {attribute.name: attribute for attribute in (*function.attribute_proto, *call.attribute)}
        nodes = [_bound(node, values) for node in function.node]
        opset = next((entry.version for entry in function.opset_import if entry.domain in STANDARD_DOMAINS), self.opset)
        body = onnx.helper.make_graph(nodes, function.name, inputs, [])
        model = onnx.helper.make_model(body, opset_imports=function.opset_import)
        settled = frozenset(formal for formal, actual in given.items() if actual in self.settled)
        return Scope(opset, [inferred(model).graph], settled)

    def _describe(self, value: "onnx.ValueInfoProto") -> None:
        import onnx

        kind = value.type.tensor_type
        if kind.elem_type:
            self.types[value.name] = onnx.TensorProto.DataType.Name(kind.elem_type)
        if kind.HasField("shape"):
            sides = kind.shape.dim
            self.shapes[value.name] = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)

    def _keep(self, name: str, tensor: "onnx.TensorProto") -> None:
        import onnx

        self._constants[name] = tensor
        self.types[name] = onnx.TensorProto.DataType.Name(tensor.data_type)
        self.shapes[name] = tuple(tensor.dims)
        self.settled.add(name)

    def _settle(self, node: "onnx.NodeProto") -> None:
        standard = node.domain in STANDARD_DOMAINS
        if standard and node.op_type == "Constant" and node.attribute:
            self._constants[node.output[0]] = node.attribute[0]
        inputs = [name for name in node.input if name]
        from_shapes = standard and node.op_type in {"Constant", "Shape", "Size"}
        if from_shapes or (inputs and self.settled.issuperset(inputs)):
            self.settled.update(node.output)


def _bound(node: "onnx.NodeProto", values: "dict[str, onnx.AttributeProto]") -> "onnx.NodeProto":
    """A function's node with the call's attributes in place of the names that refer to them."""
    import onnx

    bound = onnx.NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            bound.attribute.append(attribute)
        elif attribute.ref_attr_name in values:
            bound.attribute.add().CopyFrom(values[attribute.ref_attr_name])
            bound.attribute[-1].name = attribute.name
    return bound
