"""A model file of a few nodes that finds the same two objects on every image: what needs no trained model is fast."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemask.runtimes import write_model
from edgemask.spec import ModelSpec

SPEC = ModelSpec(
    class_names=("dot", "line"),
    category_ids=(7, 9),
    min_size=64,
    max_size=128,
    mask_size=4,
    builder="toy",
    parity={"matched_share": 1.0},
)
SCORES = (0.9, 0.2)


def toy_proto(scores: tuple[float, float] = SCORES) -> onnx.ModelProto:
    """Boxes on the canvas: one in the left half, one in the right; masks that fill them."""
    values: dict[str, NDArray[Any]] = {
        "batch_index": np.zeros(2, np.int64),
        "boxes": np.array([[4, 4, 28, 60], [36, 4, 60, 60]], np.float32),
        "scores": np.array(scores, np.float32),
        "labels": np.array([1, 2], np.int64),
        "masks": np.full((2, 4, 4), 0.9, np.float32),
    }
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    # Adds nothing; it makes the outputs depend on both inputs, which OpenVINO would drop otherwise.
    nodes = [
        helper.make_node("Cast", ["image_sizes"], ["stage/sides"], "stage/Cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["stage/sides"], ["stage/longest"], "stage/ReduceMax", keepdims=0),
        helper.make_node("ReduceMax", ["images"], ["stage/largest"], "stage/ReduceMax_2", keepdims=0),
        helper.make_node("Mul", ["stage/largest", "stage/longest"], ["stage/product"], "stage/Mul"),
        helper.make_node("Mul", ["stage/product", "zero"], ["stage/nothing"], "stage/Mul_2"),
    ]
    for name in values:
        nodes.append(helper.make_node("Cast", ["stage/nothing"], [f"{name}/cast"], f"nms/{name}/Cast", to=kinds[name]))
        nodes.append(helper.make_node("Add", [f"{name}/value", f"{name}/cast"], [name], f"nms/{name}/Add"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "rows", "columns"]),
            helper.make_tensor_value_info("image_sizes", TensorProto.INT64, [1, 2]),
        ],
        [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in values.items()],
        [
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            *(numpy_helper.from_array(value, f"{name}/value") for name, value in values.items()),
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)], producer_name="toys")


def write_toy(path: Path, scores: tuple[float, float] = SCORES) -> Path:
    """Writes the model, sealed."""
    write_model(toy_proto(scores), SPEC, path)
    return path


def busy_proto() -> onnx.ModelProto:
    """As `toy_proto`, but two convolutions make an output `maps` of the image, which moves boxes and scores."""
    generator = np.random.default_rng(0)
    proto = toy_proto()
    for name, shape in {"first": (32, 3, 3, 3), "second": (32, 32, 3, 3)}.items():
        weights = generator.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    (zero,) = (tensor for tensor in proto.graph.initializer if tensor.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(1e-6, np.float32), "zero"))
    (largest,) = (node for node in proto.graph.node if node.output[0] == "stage/largest")
    largest.input[0] = "maps"
    for node in (
        helper.make_node("Conv", ["between", "second"], ["maps"], "backbone/Conv_2", strides=[2, 2]),
        helper.make_node("Relu", ["before"], ["between"], "backbone/Relu"),
        helper.make_node("Conv", ["images", "first"], ["before"], "backbone/Conv", strides=[2, 2]),
    ):
        proto.graph.node.insert(0, node)
    proto.graph.output.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, 32, "h", "w"]))
    return proto
