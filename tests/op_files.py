"""Model files of nothing but custom ops, in every form that an export gives them: what a file's ops do needs no model.

Each op takes tensors between two nodes, as in an exported graph, of open or of fixed sizes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from op_forms import roi_align_attributes

from edgemask.export.cleaning import name_inlined
from edgemask.export.onnx_ops import BODY_OPSET, MIN_IR_VERSION, inline, local_functions
from edgemask.ops import DOMAIN, DOMAIN_VERSION, floor32
from edgemask.optest import op_records
from edgemask.runtimes import ModelFile
from edgemask.spec import ModelSpec

TARGETS = ("portable", "openvino", "tensorrt")
CANVAS = (128, 160)
SPEC = ModelSpec(
    class_names=("dot", "line", "ring"), min_size=512, max_size=1024, max_detections=16, max_proposals=20, mask_size=12
)
POOL = roi_align_attributes(4, output_height=4, output_width=4)
# By the path of the node: its attributes.
OPS: dict[str, dict[str, Any]] = {
    "proposals": {"iou_threshold": floor32(0.7), "score_threshold": -0.5, "max_per_class": 20},
    "box_head/pool": POOL,
    "nms": {"iou_threshold": 0.5, "score_threshold": 0.05, "max_per_class": 16},
    "mask_head/pool": POOL | {"output_height": 6, "output_width": 6},
}


def op_file(
    target: str = "portable",
    ops: Mapping[str, Mapping[str, Any]] = OPS,
    *,
    fixed: bool | None = None,
    recorded: bool = True,
    spec: ModelSpec = SPEC,
    channels: int = 3,
) -> ModelFile:
    """A file with some ops.

    Args:
        target: its form.
        ops: attributes by the path of the node.
        fixed: whether every size is; None: as for the target.
        recorded: whether the spec says where the ops lie, as the exporter has it since format 1.2.
        spec: the rest of the spec.
        channels: of the maps.
    """
    fixed = target == "tensorrt" if fixed is None else fixed
    canvas = (spec.canvas or CANVAS) if fixed else None
    proto = _proto(ops, canvas, channels)
    spec = spec.replace(canvas=canvas, ops=op_records(proto) if recorded else None)
    if target == "portable":
        proto.functions.extend(local_functions(proto))
    else:
        proto = inline(proto, static=target == "tensorrt")
        name_inlined(proto)
    onnx.checker.check_model(proto, full_check=True)
    return file_of(proto, spec)


def file_of(proto: onnx.ModelProto, spec: ModelSpec) -> ModelFile:
    """A file that was never on a disk."""
    return ModelFile(Path("ops.onnx"), proto.SerializeToString(), proto, spec, "")


def _proto(ops: Mapping[str, Mapping[str, Any]], canvas: tuple[int, int] | None, channels: int) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="ops")
    for path, attributes in ops.items():
        if "iou_threshold" in attributes:
            _add(graph, path, "BatchedNms", _nms_inputs(path, fixed=canvas is not None), attributes)
        else:
            inputs = _pool_inputs(path, attributes["spatial_scales"], canvas, channels)
            _add(graph, path, f"MultiScaleRoiAlign_L{len(inputs) - 1}", inputs, attributes)
    opsets = [helper.make_opsetid("", BODY_OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=MIN_IR_VERSION)


Inputs = dict[str, list[int | str]]


def _nms_inputs(path: str, *, fixed: bool) -> Inputs:
    """Three classes; the fixed number of boxes is more than may be kept."""
    sides = {"B": 2, "N": 31} if fixed else {"B": f"{path}.B", "N": f"{path}.N"}
    return {f"{path}.boxes": [sides["B"], sides["N"], 4], f"{path}.scores": [sides["B"], 3, sides["N"]]}


def _pool_inputs(path: str, scales: list[float], canvas: tuple[int, int] | None, channels: int) -> Inputs:
    """The maps are those of all heads; the fixed number of rois is less than the vectors are."""
    inputs: Inputs = {}
    for level, scale in enumerate(scales):
        sides = [f"H{level}", f"W{level}"] if canvas is None else [round(side * scale) for side in canvas]
        inputs[f"{path}.fpn.{level}"] = [2 if canvas else "batch", channels, *sides]
    return inputs | {f"{path}.rois": [40 if canvas else f"{path}.R", 5]}


def _add(graph: onnx.GraphProto, path: str, op: str, inputs: Inputs, attributes: Mapping[str, Any]) -> None:
    """An op between nodes, as in an exported graph."""
    for name, sides in inputs.items():
        graph.input.append(helper.make_tensor_value_info(f"{name}.in", TensorProto.FLOAT, sides))
        graph.node.append(helper.make_node("Relu", [f"{name}.in"], [name], f"{path}/Relu_{name}"))
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sides))
    result = f"{path}/{op}"
    graph.node.append(helper.make_node(op, list(inputs), [result], result, domain=DOMAIN, **attributes))
    kind = TensorProto.INT64 if op == "BatchedNms" else TensorProto.FLOAT
    rows, sides = next(reversed(inputs.values()))[0], next(iter(inputs.values()))
    shape = (
        [f"{path}.M", 3]
        if op == "BatchedNms"
        else [rows, sides[1], attributes["output_height"], attributes["output_width"]]
    )
    graph.value_info.append(helper.make_tensor_value_info(result, kind, shape))
    graph.node.append(helper.make_node("Identity", [result], [f"{path}.out"], f"{path}/Identity"))
    graph.output.append(helper.make_tensor_value_info(f"{path}.out", kind, shape))
