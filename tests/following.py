"""A model file that finds every proposal where it is: what follows boxes can be told from what searches."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy_model import SPEC

from edgemask.runtimes import write_model


def write_follower(path: Path) -> Path:
    """Writes the model, sealed: each of proposals [R, 5] is a detection of the first class, with a score of 0.9."""
    constants = {"0": [0], "1": [1], "5": [5], "1, 2": [1, 2], "4, 4": [1, 4, 4]}
    values = [numpy_helper.from_array(np.array(value), f"int/{name}") for name, value in constants.items()]
    values += [numpy_helper.from_array(np.array(value, np.float32), f"float/{value}") for value in (0, 0.9, 1)]
    nodes = [
        # Adds nothing; it makes the outputs depend on every input, which OpenVINO would drop otherwise.
        helper.make_node("Cast", ["image_sizes"], ["stage/sides"], "stage/Cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["stage/sides"], ["stage/longest"], "stage/ReduceMax", keepdims=0),
        helper.make_node("ReduceMax", ["images"], ["stage/largest"], "stage/ReduceMax_2", keepdims=0),
        helper.make_node("Mul", ["stage/largest", "stage/longest"], ["stage/product"], "stage/Mul"),
        helper.make_node("Mul", ["stage/product", "float/0"], ["stage/nothing"], "stage/Mul_2"),
        helper.make_node("Slice", ["proposals", "int/0", "int/1", "int/1"], ["nms/column"], "nms/Slice"),
        helper.make_node("Squeeze", ["nms/column", "int/1"], ["nms/index"], "nms/Squeeze"),
        helper.make_node("Cast", ["nms/index"], ["batch_index"], "nms/Cast", to=TensorProto.INT64),
        helper.make_node("Slice", ["proposals", "int/1", "int/5", "int/1"], ["nms/boxes"], "nms/Slice_2"),
        helper.make_node("Add", ["nms/boxes", "stage/nothing"], ["boxes"], "nms/Add"),
        helper.make_node("Mul", ["nms/index", "float/0"], ["nms/zeros"], "nms/Mul"),
        helper.make_node("Add", ["nms/zeros", "float/0.9"], ["scores"], "nms/Add_2"),
        helper.make_node("Add", ["nms/zeros", "float/1"], ["nms/ones"], "nms/Add_3"),
        helper.make_node("Cast", ["nms/ones"], ["labels"], "nms/Cast_2", to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["scores", "int/1, 2"], ["mask_head/scores"], "mask_head/Unsqueeze"),
        helper.make_node("Expand", ["mask_head/scores", "int/4, 4"], ["masks"], "mask_head/Expand"),
    ]
    floats, whole = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "follower",
        [
            helper.make_tensor_value_info("images", floats, [1, 3, "rows", "columns"]),
            helper.make_tensor_value_info("image_sizes", whole, [1, 2]),
            helper.make_tensor_value_info("proposals", floats, ["rois", 5]),
        ],
        [
            helper.make_tensor_value_info("batch_index", whole, ["rois"]),
            helper.make_tensor_value_info("boxes", floats, ["rois", 4]),
            helper.make_tensor_value_info("scores", floats, ["rois"]),
            helper.make_tensor_value_info("labels", whole, ["rois"]),
            helper.make_tensor_value_info("masks", floats, ["rois", 4, 4]),
        ],
        values,
    )
    proto: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    write_model(proto, SPEC.replace(proposals="input"), path)
    return path
