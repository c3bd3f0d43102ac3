"""A model file whose layers are those of a detector in small: what a quantizer meets, without an export.

A backbone with a depthwise convolution and a residual sum, a pyramid of two levels with a pooled third, an RPN head
that shares its weights between the levels, and a box head whose rois come from nowhere. What it finds is that of
`toy_model`, moved by what the layers give.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from toy_model import SPEC, toy_proto

from edgemask.runtimes import ModelFile, read_model, write_model

LEVELS = 3
DEPTHWISE = "backbone/1/Conv"
PREDICTORS = tuple(
    f"rpn/head/{branch}/Conv{number}" for number in ("", "_2", "_3") for branch in ("cls_logits", "bbox_pred")
)


def layered_proto(spread: float = 1.0) -> onnx.ModelProto:
    """The graph.

    Args:
        spread: by how many powers of ten the channels of the depthwise weights differ: with one scale for all of them
            the small ones vanish.
    """
    proto = toy_proto()
    weights = _weights(spread)
    nodes = [
        helper.make_node("Mul", ["images", "per_grey"], ["stage/resize"], "stage/Mul_3"),
        *_conv("backbone/0/Conv", "stage/resize", "stem", strides=[2, 2]),
        helper.make_node("Relu", ["backbone/0/Conv"], ["backbone/0/Relu"], "backbone/0/Relu"),
        *_conv(DEPTHWISE, "backbone/0/Relu", "depthwise", group=16),
        helper.make_node("Relu", [DEPTHWISE], ["backbone/1/Relu"], "backbone/1/Relu"),
        *_conv("backbone/2/Conv", "backbone/1/Relu", "pointwise", pads=[0, 0, 0, 0]),
        helper.make_node("Add", ["backbone/2/Conv", "backbone/0/Relu"], ["backbone/Add"], "backbone/Add"),
        helper.make_node("Relu", ["backbone/Add"], ["backbone.0"], "backbone/2/Relu"),
        *_conv("backbone/3/Conv", "backbone.0", "deeper", strides=[2, 2]),
        helper.make_node("Relu", ["backbone/3/Conv"], ["backbone.1"], "backbone/3/Relu"),
        *_conv("fpn/inner/Conv", "backbone.1", "inner"),
        helper.make_node("Resize", ["fpn/inner/Conv", "", "doubled"], ["fpn/Resize"], "fpn/Resize", mode="nearest"),
        helper.make_node("Add", ["fpn/Resize", "backbone.0"], ["fpn/Add"], "fpn/Add"),
        *_conv("fpn/layer/Conv", "fpn/Add", "layer", output="fpn.0"),
        *_conv("fpn/layer/Conv_2", "fpn/inner/Conv", "layer", output="fpn.1"),
        helper.make_node("MaxPool", ["fpn.1"], ["fpn.2"], "fpn/MaxPool", kernel_shape=[1, 1], strides=[2, 2]),
    ]
    for level, number in enumerate(("", "_2", "_3")):
        name = f"rpn/head/conv/Conv{number}"
        nodes += _conv(name, f"fpn.{level}", "rpn")
        nodes.append(helper.make_node("Relu", [name], [f"rpn/Relu{number}"], f"rpn/Relu{number}"))
        for branch, output in (("cls_logits", "rpn.scores"), ("bbox_pred", "rpn.boxes")):
            nodes += _conv(f"rpn/head/{branch}/Conv{number}", f"rpn/Relu{number}", branch, output=f"{output}.{level}")
    nodes += [
        helper.make_node("GlobalAveragePool", ["fpn.0"], ["box_head/pool"], "box_head/GlobalAveragePool"),
        helper.make_node("Flatten", ["box_head/pool"], ["box_head/flat"], "box_head/Flatten"),
        helper.make_node("Gemm", ["box_head/flat", "fc6", "fc6.bias"], ["box_head/fc6"], "box_head/head/fc6/Gemm"),
        helper.make_node("Relu", ["box_head/fc6"], ["box_head/Relu"], "box_head/head/Relu"),
        helper.make_node("Gemm", ["box_head/Relu", "fc7", "fc7.bias"], ["box_head"], "box_head/predictor/fc7/Gemm"),
        *_sum_of([f"rpn.{kind}.{level}" for level in range(LEVELS) for kind in ("scores", "boxes")] + ["box_head"]),
    ]
    (largest,) = (node for node in proto.graph.node if node.output[0] == "stage/largest")
    largest.input[0] = "nms/total"
    own = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *own])
    (zero,) = (tensor for tensor in proto.graph.initializer if tensor.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(1e-6, np.float32), "zero"))
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return onnx.shape_inference.infer_shapes(proto)


def write_layered(path: Path, spread: float = 1.0) -> ModelFile:
    """Writes the model, sealed, and reads it back."""
    write_model(layered_proto(spread), SPEC, path)
    return read_model(path)


def write_padded(path: Path) -> ModelFile:
    """As `write_layered`, with outputs as TensorRT gets them."""
    proto = layered_proto()
    graph = proto.graph
    (index,) = (value for value in graph.output if value.name == "batch_index")
    index.CopyFrom(helper.make_tensor_value_info("num_detections", TensorProto.INT64, [1]))
    graph.node.append(helper.make_node("Shape", ["scores/flat"], ["num_detections"], "nms/Shape"))
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    for value in graph.output[1:]:
        (node,) = (node for node in graph.node if value.name in node.output)
        node.output[0] = f"{value.name}/flat"
        graph.node.append(
            helper.make_node("Unsqueeze", [node.output[0], "first"], [value.name], f"nms/{value.name}/Unsqueeze")
        )
        value.type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    for node in graph.node:
        node.input[:] = ["scores/flat" if name == "scores" else name for name in node.input]
    write_model(proto, SPEC.replace(outputs="padded", canvas=(64, 96), max_detections=2, max_proposals=10), path)
    return read_model(path)


def _weights(spread: float) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    shapes = {"stem": (16, 3, 3, 3), "depthwise": (16, 1, 3, 3), "pointwise": (16, 16, 1, 1), "deeper": (16, 16, 3, 3),
              "inner": (16, 16, 3, 3), "layer": (16, 16, 3, 3), "rpn": (16, 16, 3, 3), "cls_logits": (3, 16, 3, 3),
              "bbox_pred": (12, 16, 3, 3), "fc6": (16, 24), "fc7": (24, 8)}  # fmt: skip
    weights = {}
    for name, shape in shapes.items():
        fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        weights[name] = generator.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        outputs = shape[0] if len(shape) == 4 else shape[1]
        weights[f"{name}.bias"] = generator.normal(0, 0.1, outputs).astype(np.float32)
    weights["depthwise"] *= np.logspace(-spread, 0, 16, dtype=np.float32)[:, None, None, None]
    # As a trained network does, the next layer makes up for it.
    weights["pointwise"] *= np.logspace(spread, 0, 16, dtype=np.float32)[None, :, None, None]
    return weights | {"per_grey": np.array(1 / 255, np.float32), "doubled": np.array([1, 1, 2, 2], np.float32)}


def _conv(
    name: str,
    source: str,
    weight: str,
    *,
    output: str | None = None,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (1, 1, 1, 1),
    group: int = 1,
) -> list[onnx.NodeProto]:
    inputs = [source, weight, f"{weight}.bias"]
    return [helper.make_node("Conv", inputs, [output or name], name, strides=strides, pads=pads, group=group)]


def _sum_of(names: Sequence[str]) -> list[onnx.NodeProto]:
    nodes = [
        helper.make_node("ReduceMean", [name], [f"nms/mean/{name}"], f"nms/{name}/ReduceMean", keepdims=0)
        for name in names
    ]
    return [*nodes, helper.make_node("Sum", [f"nms/mean/{name}" for name in names], ["nms/total"], "nms/Sum")]
