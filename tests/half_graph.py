"""A graph as the exporter leaves it before it is FP16, a few layers a stage: judged in milliseconds."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from op_files import POOL, file_of

from edgemask.export.onnx_ops import BODY_OPSET, MIN_IR_VERSION, local_functions
from edgemask.ops import DOMAIN, DOMAIN_VERSION
from edgemask.optest import op_records
from edgemask.runtimes import ModelFile
from edgemask.spec import ModelSpec

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
SPEC = ModelSpec(class_names=("dot",), min_size=64, max_size=64, mask_size=4)
POOLING = POOL | {"spatial_scales": [0.5, 0.25], "output_height": 4, "output_width": 4}
# Of every layer, and its shape. `constant/0` is read in float32 and in float16.
SHAPES: dict[str, tuple[int, ...]] = {
    "stage.scale": (1, 3, 1, 1),
    "constant/0": (),
    "backbone.conv": (8, 3, 3, 3),
    "backbone.squeeze": (8, 8, 1, 1),
    "backbone.last": (8, 8, 3, 3),
    "fpn.weight": (8, 8, 3, 3),
    "rpn.weight": (2, 8, 1, 1),
    "box_head.fc6": (128, 16),
    "box_head.fc7": (16, 2),
    "mask_head.last": (2, 8, 1),
    "keypoint_head.weight": (8, 3, 2, 2),
}
SIZES = {"box_head/flat": [-1, 128], "mask_head/flat": [0, 8, 16], "mask_head/axis": [1], "mask_head/last_axis": [2]}
# Path of the node, its type with a number where a path has several, inputs, output, attributes.
NODES: tuple[tuple[str, str, list[str], str, dict[str, Any]], ...] = (
    ("stage", "Mul", ["images", "stage.scale"], "stage/scaled", {}),
    ("stage", "Add", ["stage/scaled", "constant/0"], "stage/resize", {}),
    ("backbone/conv", "Conv", ["stage/resize", "backbone.conv"], "backbone/conv", {"strides": [2, 2], "pads": [1] * 4}),
    ("backbone/relu", "Relu", ["backbone/conv"], "backbone/relu", {}),
    ("backbone/se", "GlobalAveragePool", ["backbone/relu"], "backbone/mean", {}),
    ("backbone/se", "Conv", ["backbone/mean", "backbone.squeeze"], "backbone/squeezed", {}),
    ("backbone/se", "HardSigmoid", ["backbone/squeezed"], "backbone/gate", {}),
    ("backbone/se", "Mul", ["backbone/relu", "backbone/gate"], "backbone/gated", {}),
    ("backbone/last", "Conv", ["backbone/gated", "backbone.last"], "backbone.0", {"pads": [1] * 4}),
    ("fpn", "Shape", ["backbone.0"], "fpn/shape", {}),
    ("fpn", "Resize", ["backbone.0", "", "", "fpn/shape"], "fpn/up", {"mode": "nearest"}),
    ("fpn", "Add", ["fpn/up", "constant/0"], "fpn/sum", {}),
    ("fpn/layer", "Conv", ["fpn/sum", "fpn.weight"], "fpn.0", {"pads": [1] * 4}),
    ("rpn/head", "Conv", ["fpn.0", "rpn.weight"], "rpn.scores.0", {}),
    ("fpn/pool", "MaxPool", ["fpn.0"], "fpn.1", {"kernel_shape": [1, 1], "strides": [2, 2]}),
    ("rpn/head", "Conv_2", ["fpn.1", "rpn.weight"], "rpn.scores.1", {}),
    ("rpn/candidates", "Sigmoid", ["rpn.scores.0"], "objectness", {}),
    ("rpn/candidates", "Sigmoid_2", ["rpn.scores.1"], "objectness.1", {}),
    ("box_head/pool", "MultiScaleRoiAlign_L2", ["fpn.0", "fpn.1", "proposals"], "box_head/pool", POOLING),
    ("box_head/head", "Reshape", ["box_head/pool", "box_head/flat"], "box_head/rows", {}),
    ("box_head/head/fc6", "Gemm", ["box_head/rows", "box_head.fc6"], "box_head/fc6", {}),
    ("box_head/head", "Relu", ["box_head/fc6"], "box_head/relu", {}),
    ("box_head/predictor", "Gemm", ["box_head/relu", "box_head.fc7"], "box_head", {}),
    ("nms", "Softmax", ["box_head"], "scores", {"axis": 1}),
    ("mask_head/pool", "MultiScaleRoiAlign_L2", ["fpn.0", "fpn.1", "proposals"], "mask_head/pool", POOLING),
    ("mask_head", "Gather", ["mask_head.last", "labels"], "mask_head/own", {}),
    ("mask_head", "Squeeze", ["mask_head/own", "mask_head/last_axis"], "mask_head/squeezed", {}),
    ("mask_head", "Unsqueeze", ["mask_head/squeezed", "mask_head/axis"], "mask_head/weights", {}),
    ("mask_head", "Reshape", ["mask_head/pool", "mask_head/flat"], "mask_head/flattened", {}),
    ("mask_head", "MatMul", ["mask_head/weights", "mask_head/flattened"], "mask_head/products", {}),
    ("mask_head", "Add", ["mask_head/products", "constant/0"], "mask_head", {}),
    ("mask_head", "Sigmoid", ["mask_head"], "masks", {}),
    ("keypoint_head/up", "ConvTranspose", ["mask_head/pool", "keypoint_head.weight"], "keypoint_heatmaps", {}),
)
OUTPUTS = ("objectness", "objectness.1", "scores", "masks", "keypoint_heatmaps")


def float_proto(**weights: NDArray[np.float32]) -> onnx.ModelProto:
    """The graph in float32; some weights by name, with `_` for `.`, instead of random ones."""
    generator = np.random.default_rng(3)
    values = {}
    for name, shape in SHAPES.items():
        spread = generator.normal(0, 1 / np.sqrt(max(1, np.prod(shape[1:]))), shape).astype(np.float32)
        values[name] = weights.get(name.replace(".", "_"), spread)
    nodes = []
    for path, operator, inputs, output, attributes in NODES:
        domain = DOMAIN if operator.startswith("MultiScale") else ""
        kind = operator if domain else operator.partition("_")[0]
        nodes.append(helper.make_node(kind, inputs, [output], f"{path}/{operator}", domain=domain, **attributes))
    graph = helper.make_graph(
        nodes,
        "half",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64]),
            helper.make_tensor_value_info("proposals", TensorProto.FLOAT, ["rois", 5]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["rois"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in OUTPUTS],
        [
            *(numpy_helper.from_array(value, name) for name, value in values.items()),
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in SIZES.items()),
        ],
    )
    opsets = [helper.make_opsetid("", BODY_OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, ir_version=MIN_IR_VERSION, opset_imports=opsets)
    model.functions.extend(local_functions(model))
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def half_file(proto: onnx.ModelProto, precision: str = "fp16") -> ModelFile:
    """A graph as a file that was never on a disk."""
    return file_of(proto, SPEC.replace(precision=precision, ops=op_records(proto)))


def inputs(rois: int = 3) -> dict[str, NDArray[Any]]:
    """An image of noise and boxes in it."""
    generator = np.random.default_rng(4)
    corners = generator.uniform(0, 30, (rois, 2)).astype(np.float32)
    boxes = np.column_stack([np.zeros(rois, np.float32), corners, corners + 25])
    images = generator.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    return {"images": images, "proposals": boxes, "labels": np.arange(rois) % 2}


def types_of(proto: onnx.ModelProto) -> dict[str, int]:
    """The type of every tensor, as it follows from inputs, weights and nodes, not as the graph says."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    bare = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    values = [*bare.graph.value_info, *bare.graph.input, *bare.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in bare.graph.initializer}


def casts_of(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those to or from float16."""
    types = types_of(proto)
    casts = [node for node in proto.graph.node if node.op_type == "Cast"]
    return [node for node in casts if HALF in (types[node.input[0]], types[node.output[0]])]


def assert_casts_are_borders(proto: onnx.ModelProto) -> None:
    """Every cast leads from one side to the other, and no tensor is cast twice."""
    types, casts = types_of(proto), casts_of(proto)
    assert max(Counter(node.input[0] for node in casts).values()) == 1
    given = {name: node for node in proto.graph.node for name in node.output}
    for cast in casts:
        before, after = types[cast.input[0]], types[cast.output[0]]
        assert {before, after} == {FLOAT, HALF}
        assert given[cast.input[0]].op_type != "Cast"
        readers = [node for node in proto.graph.node if cast.output[0] in node.input]
        assert readers or cast.output[0] in {value.name for value in proto.graph.output}
        assert all(types[node.output[0]] == after or node.op_type == "Shape" for node in readers)
