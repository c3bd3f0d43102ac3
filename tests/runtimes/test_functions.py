"""What OpenVINO gets to read: no functions, a threshold one float higher, and no node that answers NaN."""

from typing import Any

import numpy as np
import onnx
import op_forms
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemask.errors import ModelFileError, UnsupportedModel
from edgemask.runtimes.functions import for_openvino, inline_functions

NMS: dict[str, Any] = {"iou_threshold": 0.5, "score_threshold": 0.0, "max_per_class": 9}


def threshold_of(model: onnx.ModelProto) -> np.float32:
    (node,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[3])
    return np.float32(numpy_helper.to_array(tensor).item())


def plain_nms(threshold: str, **parts: Any) -> onnx.ModelProto:
    """A file without our domain, whose threshold is the input named, or left out."""
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "limit", threshold], ["kept"])
    graph = helper.make_graph(
        [*parts.get("nodes", []), node],
        "plain",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["B", "N", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", "C", "N"]),
        ],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, ["M", 3])],
        [helper.make_tensor("limit", TensorProto.INT64, [], [9]), *parts.get("initializers", [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_model_is_readable_and_the_given_one_untouched() -> None:
    model = op_forms.nms_model(NMS)
    before = model.SerializeToString()
    readable = for_openvino(model)
    assert model.SerializeToString() == before
    assert len(readable.functions) == 0
    assert {entry.domain for entry in readable.opset_import} == {""}
    onnx.checker.check_model(readable, full_check=True)


@pytest.mark.parametrize("threshold", [0.25, 0.5, float(np.float32(0.7)), 1.0])
def test_threshold_is_the_next_float(threshold: float) -> None:
    raised = threshold_of(for_openvino(op_forms.nms_model({**NMS, "iou_threshold": threshold})))
    assert raised == np.nextafter(np.float32(threshold), np.float32(2))


def test_threshold_above_zero_is_no_subnormal() -> None:
    raised = threshold_of(for_openvino(op_forms.nms_model({**NMS, "iou_threshold": 0.0})))
    assert raised == np.finfo(np.float32).tiny


VALUE = numpy_helper.from_array(np.array([0.5], np.float32), "half")


@pytest.mark.parametrize(
    "model",
    [
        inline_functions(op_forms.nms_model(NMS)),
        plain_nms("half", initializers=[VALUE]),
        plain_nms("half", nodes=[helper.make_node("Constant", [], ["half"], value=VALUE)]),
        plain_nms("half", nodes=[helper.make_node("Constant", [], ["half"], value_floats=[0.5])]),
    ],
    ids=["inlined", "initializer", "constant", "constant list"],
)
def test_file_without_functions(model: onnx.ModelProto) -> None:
    assert threshold_of(for_openvino(model)) == np.nextafter(np.float32(0.5), np.float32(1))


def test_threshold_left_out_is_zero() -> None:
    assert threshold_of(for_openvino(plain_nms(""))) == np.finfo(np.float32).tiny


def test_shared_constant_keeps_its_value() -> None:
    model = plain_nms("half", initializers=[VALUE])
    model.graph.node[0].input.append("half")  # the score threshold too
    raised = for_openvino(model)
    (node,) = raised.graph.node
    assert node.input[4] == "half"
    (kept,) = (tensor for tensor in raised.graph.initializer if tensor.name == "half")
    assert numpy_helper.to_array(kept).tolist() == [0.5]


def test_computed_threshold_is_refused() -> None:
    model = plain_nms("sum", initializers=[VALUE], nodes=[helper.make_node("Add", ["half", "half"], ["sum"])])
    with pytest.raises(UnsupportedModel, match="computes the IoU threshold 'sum'"):
        for_openvino(model)


def test_nan_on_openvino_is_refused() -> None:
    attributes = op_forms.roi_align_attributes(2, coordinate_transformation_mode="half_pixel", sampling_ratio=0)
    model = op_forms.roi_align_model(attributes)
    with pytest.raises(UnsupportedModel, match="NaN for a roi without area"):
        for_openvino(model)


def test_lost_function_is_named() -> None:
    model = op_forms.nms_model(NMS)
    del model.functions[:]
    with pytest.raises(ModelFileError, match="uses BatchedNms and does not hold the function"):
        for_openvino(model)
