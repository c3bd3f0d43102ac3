"""The layers of a graph that can be quantized: those with weights, which do nearly all of its work."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from edgemask.quantization.recipes import Recipe
from edgemask.runtimes import ModelFile

OPERATORS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A node with weights.

    Attributes:
        name: of the node, which begins with its stage.
        stage: in which it lies, as `recipes.STAGES` has them.
        operator: `Conv`, `ConvTranspose` or `Gemm`.
        weight: name of its weights; layers that share them, such as the RPN's on each level, have the same.
        weights: how many numbers these are.
        depthwise: whether each channel is convolved on its own.
    """

    name: str
    stage: str
    operator: str
    weight: str
    weights: int
    depthwise: bool

    @property
    def group(self) -> str:
        """What is tried together: the stage, its depthwise layers apart, for which INT8 kernels are rarely fast."""
        return f"{self.stage}, depthwise" if self.depthwise else self.stage


def layers_of(model: ModelFile) -> tuple[Layer, ...]:
    """Finds every convolution and product with weights of its own, in the graph's order."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.proto.graph.initializer}
    return tuple(
        _layer(node, shapes)
        for node in model.proto.graph.node
        if node.op_type in OPERATORS and not node.domain and len(node.input) > 1 and node.input[1] in shapes
    )


def _layer(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    shape, groups = shapes[node.input[1]], 1
    for attribute in node.attribute:
        if attribute.name == "group":
            groups = attribute.i
    count = 1
    for side in shape:
        count *= side
    return Layer(
        name=node.name,
        stage=node.name.partition("/")[0],
        operator=node.op_type,
        weight=node.input[1],
        weights=count,
        depthwise=groups > 1 and groups == shape[0],
    )


def chosen(layers: Iterable[Layer], recipe: Recipe) -> tuple[Layer, ...]:
    """The layers that a recipe quantizes."""
    return tuple(
        layer
        for layer in layers
        if layer.stage in recipe.stages and not any(fnmatch.fnmatchcase(layer.name, name) for name in recipe.keep)
    )
