"""The nodes that torch's exporter writes, the bodies that go with them, and what becomes of both."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import op_forms
import pytest
import torch
from numpy.typing import NDArray
from onnx import defs, shape_inference

from edgemask.errors import UsageError
from edgemask.export import onnx_ops
from edgemask.ops import MAX_LEVELS, floor32

STATIC_BODIES = [onnx_ops.roi_align_function(levels, static=True) for levels in range(1, MAX_LEVELS + 1)]
BODIES = [onnx_ops.nms_function(), *(onnx_ops.roi_align_function(n) for n in range(1, MAX_LEVELS + 1)), *STATIC_BODIES]
POOLER = op_forms.roi_align_attributes(2)
FORMS = pytest.mark.parametrize(
    "form",
    [lambda model: model, onnx_ops.inline, lambda model: onnx_ops.inline(model, static=True)],
    ids=["functions", "inlined", "static"],
)


class Detector(torch.nn.Module):
    """Both ops as a detector uses them: pool what the suppression kept."""

    def forward(
        self, fine: torch.Tensor, coarse: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept = torch.ops.edgemask.batched_nms(boxes, scores, 0.6, 0.1, 50)
        rois = torch.cat([kept[:, :1].float(), boxes[kept[:, 0], kept[:, 2]]], dim=1)
        return kept, torch.ops.edgemask.multi_scale_roi_align([fine, coarse], rois, **POOLER)


def inputs(batch: int, boxes: int, best_score: float = 1.0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(batch + boxes)
    corners = torch.rand(batch, boxes, 4) * 250
    scores = torch.rand(batch, 3, boxes) * best_score
    return torch.randn(batch, 3, 64, 96), torch.randn(batch, 3, 32, 48), corners, scores


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    """The detector with dynamic batch and boxes, its bodies appended."""
    batch, boxes = torch.export.Dim("batch"), torch.export.Dim("boxes")
    program = torch.onnx.export(
        Detector().eval(),
        inputs(2, 30),
        input_names=["fine", "coarse", "boxes", "scores"],
        output_names=["kept", "pooled"],
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch, 1: boxes}, {0: batch, 2: boxes}),
        dynamo=True,
        opset_version=onnx_ops.BODY_OPSET,
        custom_translation_table=onnx_ops.custom_translation_table(),
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.functions.extend(onnx_ops.local_functions(model))
    return model


pytestmark = pytest.mark.filterwarnings(
    "ignore:# The axis name:UserWarning",  # the exporter, about dimensions that two inputs share
)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def test_exported_nodes(exported: onnx.ModelProto) -> None:
    nodes = {node.op_type: attributes_of(node) for node in exported.graph.node if node.domain == "edgemask"}
    assert nodes == {
        "BatchedNms": {
            "iou_threshold": floor32(0.6),
            "score_threshold": np.float32(0.1),
            "max_per_class": 50,
        },
        "MultiScaleRoiAlign_L2": POOLER,
    }
    assert [function.name for function in exported.functions] == ["BatchedNms", "MultiScaleRoiAlign_L2"]
    assert {entry.domain: entry.version for entry in exported.opset_import} == {"": 18, "edgemask": 1}


@FORMS
def test_exported_model_is_sound(exported: onnx.ModelProto, form: Any) -> None:
    model = form(exported)
    onnx.checker.check_model(model, full_check=True)
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            dimension.Clear()
    # The shapes come from the bodies alone: for that no schema may hide them.
    assert not defs.has("BatchedNms", 1, "edgemask")
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = [
        [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]
        for value in inferred.graph.output
    ]
    assert shapes == [[None, 3], [None, 3, 7, 7]]


@pytest.mark.parametrize(
    "case",
    [inputs(2, 30), inputs(3, 7), inputs(1, 1), inputs(2, 0), inputs(2, 20, best_score=0.05)],
    ids=["as exported", "another size", "one box", "no box", "no detection"],
)
@FORMS
def test_exported_model_on_onnxruntime(exported: onnx.ModelProto, form: Any, case: tuple[torch.Tensor, ...]) -> None:
    session = onnxruntime.InferenceSession(form(exported).SerializeToString(), providers=["CPUExecutionProvider"])
    names = ["fine", "coarse", "boxes", "scores"]
    feed: dict[str, NDArray[Any]] = {name: value.numpy() for name, value in zip(names, case, strict=True)}
    kept, pooled = session.run(None, feed)
    expected_kept, expected_pooled = (value.numpy() for value in Detector()(*case))
    np.testing.assert_array_equal(kept, expected_kept)
    np.testing.assert_allclose(pooled, expected_pooled, rtol=0, atol=op_forms.ROI_ALIGN_TOLERANCE)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_body_is_portable(body: onnx.FunctionProto) -> None:
    operators = {node.op_type for node in body.node}
    assert {node.domain for node in body.node} == {""}
    assert not operators & {
        "If",
        "Loop",
        "Scan",
        "SplitToSequence",
        "SequenceConstruct",
        "ConcatFromSequence",
    }
    assert all(defs.has(name, onnx_ops.BODY_OPSET, "") for name in operators)
    assert [(entry.domain, entry.version) for entry in body.opset_import] == [("", onnx_ops.BODY_OPSET)]


def test_one_level_has_no_level_logic() -> None:
    operators = {node.op_type for node in onnx_ops.roi_align_function(1).node}
    assert operators == {"Constant", "Split", "Squeeze", "Cast", "Mul", "RoiAlign"}


def test_static_bodies_have_shapes_that_no_data_decides() -> None:
    for body in STATIC_BODIES:
        producers = {output: node for node in body.node for output in node.output}
        operators = {node.op_type for node in body.node}
        assert not operators & {"NonZero", "Shape", "Range", "ScatterElements", "Concat"}
        for gather in (node for node in body.node if node.op_type == "Gather"):
            assert [producers[name].op_type for name in gather.input] == ["Constant", "Constant"]


def test_static_body_gives_the_shape_before_it_runs() -> None:
    model = op_forms.roi_align_model(op_forms.roi_align_attributes(3), static=True)
    for value in model.graph.input:
        sides = (50, 5) if value.name == "rois" else (2, 8, 16, 16)
        for dimension, side in zip(value.type.tensor_type.shape.dim, sides, strict=True):
            dimension.dim_value = side
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inlined = shape_inference.infer_shapes(onnx_ops.inline(model), check_type=True, strict_mode=True)
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*inlined.graph.value_info, *inlined.graph.output)
    }
    assert all(all(side > 0 for side in shape) for shape in shapes.values()), shapes
    assert shapes["output"] == [50, 8, 7, 7]


def test_inline_replaces_bodies_by_static_ones() -> None:
    model = op_forms.roi_align_model(POOLER)
    assert [function.name for function in model.functions] == ["MultiScaleRoiAlign_L2"]
    assert "NonZero" in {node.op_type for node in onnx_ops.inline(model).graph.node}
    inlined = onnx_ops.inline(model, static=True)
    assert inlined == onnx_ops.inline(op_forms.roi_align_model(POOLER, static=True))
    assert "NonZero" not in {node.op_type for node in inlined.graph.node}


def test_inline_adds_missing_bodies() -> None:
    model = op_forms.roi_align_model(POOLER)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.functions[:]
    assert onnx_ops.inline(bare) == onnx_ops.inline(model)
    assert len(bare.functions) == 0
    assert {node.domain for node in onnx_ops.inline(bare).graph.node} == {""}


def test_unknown_node_is_refused() -> None:
    model = op_forms.nms_model({"iou_threshold": 0.5, "score_threshold": 0.0, "max_per_class": 1})
    model.graph.node[0].op_type = "BatchedNms2"
    with pytest.raises(UsageError, match="the graph uses BatchedNms2"):
        onnx_ops.local_functions(model)


def test_other_op_set_is_refused() -> None:
    model = op_forms.roi_align_model(POOLER)
    model.opset_import[0].version = 20
    with pytest.raises(UsageError, match=r"op set \[20\]"):
        onnx_ops.local_functions(model)


def test_foreign_model_needs_no_function() -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [], [])
    assert onnx_ops.local_functions(onnx.helper.make_model(graph)) == []
