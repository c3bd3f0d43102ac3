"""The node cases that the onnx wheel ships for RoiAlign and NonMaxSuppression, computed by our ops."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import op_forms
import pytest
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.case.node import nonmaxsuppression, roialign  # noqa: F401  importing records their cases
from op_forms import Array, Form

from edgemask.runtimes.functions import inline_functions

# What our ops do not express, and why. Everything else must be in COVERED: a new case upstream fails the test
# below.
EXCLUDED = {
    "test_roialign_mode_max": "pooling is average only: runtimes and the specification disagree on max",
    "test_nonmaxsuppression_center_point_box_format": "boxes are corners in every part of edgemask",
}
COVERED = {
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
    "test_nonmaxsuppression_suppress_by_IOU",
    "test_nonmaxsuppression_suppress_by_IOU_and_scores",
    "test_nonmaxsuppression_flipped_coordinates",
    "test_nonmaxsuppression_limit_output_size",
    "test_nonmaxsuppression_single_box",
    "test_nonmaxsuppression_identical_boxes",
    "test_nonmaxsuppression_two_classes",
    "test_nonmaxsuppression_two_batches",
    "test_nonmaxsuppression_iou_threshold_boundary",
}
CASES = {
    case.name: case
    for case in node_cases._NodeTestCases
    if case.model.graph.node[0].op_type in {"RoiAlign", "NonMaxSuppression"}
}


def numpy_form(kind: str, attributes: Mapping[str, Any]) -> Form:
    return {"RoiAlign": op_forms.roi_align_reference, "NonMaxSuppression": op_forms.nms_reference}[kind](attributes)


def torch_form(kind: str, attributes: Mapping[str, Any]) -> Form:
    return {"RoiAlign": op_forms.roi_align_in_torch, "NonMaxSuppression": op_forms.nms_in_torch}[kind](attributes)


def model(kind: str, attributes: Mapping[str, Any]) -> onnx.ModelProto:
    return {"RoiAlign": op_forms.roi_align_model, "NonMaxSuppression": op_forms.nms_model}[kind](attributes)


def onnxruntime_form(kind: str, attributes: Mapping[str, Any]) -> Form:
    return op_forms.on_onnxruntime(model(kind, attributes))


def openvino_form(kind: str, attributes: Mapping[str, Any]) -> Form:
    return op_forms.on_openvino(model(kind, attributes))


FORMS = [
    pytest.param(numpy_form, id="numpy"),
    pytest.param(torch_form, id="torch"),
    pytest.param(onnxruntime_form, id="onnxruntime"),
    pytest.param(openvino_form, id="openvino", marks=pytest.mark.openvino),
]


def as_ours(node: onnx.NodeProto, arrays: list[Array]) -> tuple[dict[str, Any], list[Array]]:
    """The attributes and inputs with which our op states what a standard node and its inputs state."""
    if node.op_type == "NonMaxSuppression":
        boxes, scores, limit, iou_threshold, score_threshold = arrays
        return {
            "iou_threshold": float(iou_threshold[0]),
            "score_threshold": float(score_threshold[0]),
            "max_per_class": int(limit[0]),
        }, [boxes, scores]
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    features, rois, images = arrays
    attributes = op_forms.roi_align_attributes(
        1,
        output_height=values["output_height"],
        output_width=values["output_width"],
        sampling_ratio=values["sampling_ratio"],
        coordinate_transformation_mode=values["coordinate_transformation_mode"].decode(),
        spatial_scales=[values["spatial_scale"]],
    )
    return attributes, [features, np.concatenate([images[:, None].astype(np.float32), rois], axis=1)]


def test_every_case_is_covered_or_excluded() -> None:
    assert set(CASES) == COVERED | set(EXCLUDED)


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("name", sorted(COVERED))
def test_onnx_case(name: str, make: Callable[[str, Mapping[str, Any]], Form]) -> None:
    case = CASES[name]
    node = case.model.graph.node[0]
    for inputs, (expected,) in case.data_sets:
        attributes, ours = as_ours(node, inputs)
        actual = make(node.op_type, attributes)(ours)
        np.testing.assert_allclose(actual, expected, rtol=case.rtol, atol=case.atol)


@pytest.mark.openvino
def test_openvino_alone_fails_the_boundary_case() -> None:
    case = CASES["test_nonmaxsuppression_iou_threshold_boundary"]
    inputs, (expected,) = case.data_sets[0]
    attributes, ours = as_ours(case.model.graph.node[0], inputs)
    uncorrected = op_forms.on_openvino(op_forms.nms_model(attributes), prepare=inline_functions)
    assert uncorrected(ours).tolist() != expected.tolist()
