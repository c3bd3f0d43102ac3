"""What TensorRT's documents say of single nodes; TensorRT itself is in no test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import op_forms
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemask.errors import ModelFileError
from edgemask.export import onnx_ops
from edgemask.tensorrt import JETPACK_NOTES, OPSETS, SUPPORT, NodeCheck, check_tensorrt

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
NODE = "stage/node"


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    constants: dict[str, Any] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A graph of the nodes; inputs by name as data type and shape, constants by name as arrays."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in nodes[-1].output if name],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check_one(
    operator: str,
    inputs: Sequence[str],
    known: dict[str, Any],
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    **attributes: Any,
) -> NodeCheck:
    """The record of one node; `known` holds arrays, which are constants, and types with shapes, which are inputs."""
    node = helper.make_node(operator, list(inputs), list(outputs), NODE, **attributes)
    values = {name: value for name, value in known.items() if isinstance(value, tuple)}
    constants = {name: value for name, value in known.items() if not isinstance(value, tuple)}
    (check,) = check_tensorrt(model_of([node], values, constants, opset))
    assert (check.node, check.operator) == (NODE, operator)
    return check


def test_table_names_operators_of_onnx_and_types_of_onnx() -> None:
    assert len(SUPPORT) > 150
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(SUPPORT) <= known
    kinds = frozenset(TensorProto.DataType.keys())
    assert all(support.types and support.types <= kinds for support in SUPPORT.values())
    with pytest.raises(TypeError):
        SUPPORT["NonZero"] = SUPPORT["Add"]  # type: ignore[index]


def test_what_runs_has_no_reason() -> None:
    check = check_one("Add", ["a", "b"], {"a": (INT64, [2]), "b": (INT64, [2])})
    assert check == NodeCheck(NODE, "Add", "runs", "")


@pytest.mark.parametrize("operator", ["SequenceEmpty", "Unique", "Compress", "BitShift", "MatMulInteger", "Det"])
def test_operators_that_the_table_lacks(operator: str) -> None:
    inputs = {"MatMulInteger": ["x", "x"]}.get(operator, ["x"])
    check = check_one(operator, inputs, {"x": (TensorProto.UINT8 if len(inputs) > 1 else FLOAT, [2, 2])})
    assert (check.verdict, check.reason) == ("refused", "not among the operators of TensorRT's parser")


@pytest.mark.parametrize(
    ("operator", "kind", "verdict", "words"),
    [
        ("Sqrt", FLOAT, "runs", ""),
        ("Sqrt", TensorProto.DOUBLE, "restricted", "DOUBLE is computed as FLOAT"),
        ("Neg", INT64, "runs", ""),
        ("Relu", TensorProto.INT8, "refused", "INT8 is not among"),
        ("Not", BOOL, "runs", ""),
        ("ReduceMax", BOOL, "refused", "BOOL is not among"),
        ("ReduceMax", TensorProto.UINT8, "refused", "UINT8 is not among"),
        ("Identity", TensorProto.UINT8, "refused", "UINT8 is not among"),
        ("Identity", BOOL, "runs", ""),
        ("Identity", TensorProto.STRING, "refused", "STRING is not among"),
    ],
)
def test_data_types(operator: str, kind: int, verdict: str, words: str) -> None:
    opset = 20 if operator == "ReduceMax" else 18  # which takes BOOL since 20
    check = check_one(operator, ["x"], {"x": (kind, [2])}, opset=opset)
    assert check.verdict == verdict
    assert words in check.reason


def test_integers_are_not_multiplied_as_matrices() -> None:
    check = check_one("MatMul", ["a", "b"], {"a": (INT64, [2, 2]), "b": (INT64, [2, 2])})
    assert (check.verdict, check.reason) == ("refused", "INT64 is not among its data types")


def test_types_of_indices_and_conditions_are_not_data_types() -> None:
    gather = check_one("Gather", ["x", "i"], {"x": (FLOAT, [4]), "i": (INT64, [2])})
    where = check_one("Where", ["c", "x", "x"], {"c": (BOOL, [4]), "x": (FLOAT, [4])})
    pooled = check_one(
        "RoiAlign",
        ["x", "rois", "batch"],
        {"x": (FLOAT, [1, 1, 8, 8]), "rois": (FLOAT, ["R", 4]), "batch": (INT64, ["R"])},
        sampling_ratio=2,
    )
    assert [check.verdict for check in (gather, where, pooled)] == ["runs", "runs", "runs"]


def test_types_are_inferred_along_the_graph() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], "a/Cast", to=INT64),
        helper.make_node("Sqrt", ["whole"], ["y"], "a/Sqrt"),
        helper.make_node("Cast", ["y"], ["z"], "a/Cast_2", to=TensorProto.INT16),
    ]
    checks = check_tensorrt(model_of(nodes, {"x": (FLOAT, [2])}))
    assert [check.verdict for check in checks] == ["runs", "refused", "refused"]
    assert [check.reason.split()[0] for check in checks[1:]] == ["INT64", "INT16"]


@pytest.mark.parametrize(
    ("k", "attributes", "verdict", "words"),
    [
        (3840, {}, "runs", ""),
        (3841, {}, "refused", "K is 3841, more than 3840"),
        (5, {"sorted": 0}, "refused", "sorted must be 1"),
        (5, {"axis": 1}, "runs", ""),
        (5, {"axis": -5}, "refused", "axis -5 of 5, not one of the last four"),
        (5, {"axis": 0}, "refused", "axis 0 of 5"),
    ],
)
def test_top_k(k: int, attributes: dict[str, int], verdict: str, words: str) -> None:
    known = {"x": (FLOAT, [9, 9, 9, 9, 9000]), "k": np.array([k])}
    check = check_one("TopK", ["x", "k"], known, ["values", "places"], **attributes)
    assert check.verdict == verdict
    assert words in check.reason


def test_top_k_with_a_computed_k() -> None:
    check = check_one("TopK", ["x", "k"], {"x": (FLOAT, [9]), "k": (INT64, [1])}, ["values", "places"])
    assert check.verdict == "restricted"
    assert "K is computed" in check.reason


def test_a_constant_node_is_a_constant() -> None:
    for value, verdict in ((3840, "runs"), (3841, "refused")):
        constant = helper.make_node("Constant", [], ["k"], "a/Constant", value_ints=[value])
        top = helper.make_node("TopK", ["x", "k"], ["values", "places"], "a/TopK")
        assert check_tensorrt(model_of([constant, top], {"x": (FLOAT, [9000])}))[1].verdict == verdict


def test_shapes_that_data_decides() -> None:
    nonzero = check_one("NonZero", ["x"], {"x": (BOOL, [9])})
    assert (nonzero.verdict, nonzero.reason[:22]) == ("restricted", "a data-dependent shape")
    nodes = [
        helper.make_node("Shape", ["x"], ["sides"], "a/Shape"),
        helper.make_node("Mul", ["sides", "two"], ["double"], "a/Mul"),
        helper.make_node("Expand", ["x", "double"], ["from_shape"], "a/Expand"),
        helper.make_node("ReduceMax", ["n"], ["most"], "a/ReduceMax", keepdims=0),
        helper.make_node("Range", ["zero", "most", "one"], ["from_data"], "a/Range"),
    ]
    constants = {"two": np.array([2]), "zero": np.array(0), "one": np.array(1)}
    checks = {
        check.node: check
        for check in check_tensorrt(model_of(nodes, {"x": (FLOAT, [1]), "n": (INT64, [3])}, constants))
    }
    assert checks["a/Expand"].verdict == "runs"
    assert checks["a/Range"].verdict == "restricted"
    assert checks["a/Range"].reason == "a data-dependent shape: most does not follow from shapes alone"


def nms(limit: Any, scores: list[int | str]) -> NodeCheck:
    known = {
        "boxes": (FLOAT, [scores[0], scores[2], 4]),
        "scores": (FLOAT, scores),
        "limit": limit,
        "overlap": np.array([0.5], np.float32),
        "lowest": (FLOAT, [1]),
    }
    return check_one("NonMaxSuppression", [*known], known)


def test_non_max_suppression_is_restricted_by_its_shape() -> None:
    check = nms(np.array([100]), [1, 2, "N"])
    assert check.verdict == "restricted"
    assert check.reason.startswith("a data-dependent shape")
    assert "lowest: limit and thresholds" in check.reason
    assert "limit, lowest: limit and thresholds" in nms((INT64, [1]), [1, 2, 10]).reason


def test_non_max_suppression_drops_candidates() -> None:
    assert "pairs of box and class: " not in nms(np.array([100]), [4, 5, 1000]).reason
    assert "5005 pairs of box and class: only the 5000 best above" in nms(np.array([100]), [4, 5, 1001]).reason


@pytest.mark.parametrize(
    ("opset", "attributes", "verdict", "words"),
    [
        (16, {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 0}, "restricted", "NaN"),
        (16, {"sampling_ratio": 0}, "restricted", "NaN"),  # half_pixel is what ONNX means
        (16, {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 2}, "runs", ""),
        (16, {"coordinate_transformation_mode": "output_half_pixel", "sampling_ratio": 0}, "runs", ""),
        (16, {"coordinate_transformation_mode": "output_half_pixel"}, "restricted", "sampling_ratio is left out"),
        (15, {"sampling_ratio": 0}, "runs", ""),  # knows no half pixel
    ],
)
def test_roi_align(opset: int, attributes: dict[str, Any], verdict: str, words: str) -> None:
    known = {"x": (FLOAT, [1, 1, 8, 8]), "rois": (FLOAT, [3, 4]), "batch": (INT64, [3])}
    check = check_one("RoiAlign", [*known], known, opset=opset, **attributes)
    assert check.verdict == verdict
    assert words in check.reason


@pytest.mark.parametrize("operator", ["Squeeze", "Unsqueeze", "ReduceSum", "CumSum"])
def test_axes_must_be_constant(operator: str) -> None:
    axes: list[int | str] = [] if operator == "CumSum" else [1]
    computed = check_one(operator, ["x", "axes"], {"x": (FLOAT, [1, 3]), "axes": (INT64, axes)})
    constant = check_one(operator, ["x", "axes"], {"x": (FLOAT, [1, 3]), "axes": np.zeros(axes, np.int64)})
    assert computed.verdict == "refused"
    assert "axes is computed and must be a constant" in computed.reason
    assert constant.verdict == ("restricted" if operator == "CumSum" else "runs")


def test_depth_of_one_hot_must_be_constant() -> None:
    known = {"i": (INT64, [3]), "depth": (INT64, []), "values": (FLOAT, [2])}
    assert check_one("OneHot", [*known], known).verdict == "refused"
    assert check_one("OneHot", [*known], {**known, "depth": np.array(5)}).verdict == "runs"


def test_a_running_sum_is_a_loop_and_of_floats() -> None:
    check = check_one("CumSum", ["x", "axis"], {"x": (INT64, [3]), "axis": np.array(0)})
    assert check.verdict == "refused"
    assert check.reason == "INT64 is not among its data types; becomes a loop with a step for each element"


@pytest.mark.parametrize(
    ("attributes", "verdict"), [({}, "runs"), ({"reduction": "none"}, "restricted"), ({"reduction": "add"}, "refused")]
)
def test_scatter(attributes: dict[str, str], verdict: str) -> None:
    known = {"x": (FLOAT, [4]), "i": (INT64, [2, 1]), "updates": (FLOAT, [2])}
    assert check_one("ScatterND", [*known], known, **attributes).verdict == verdict
    elements = {"x": (FLOAT, [4]), "i": (INT64, [2]), "updates": (FLOAT, [2])}
    assert check_one("ScatterElements", [*elements], elements, **attributes).verdict == "runs"


@pytest.mark.parametrize(
    ("attributes", "verdict"),
    [
        ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, "runs"),
        ({"mode": "cubic"}, "restricted"),
        ({"mode": "linear", "antialias": 1}, "refused"),
        ({"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, "refused"),
        ({"mode": "linear", "keep_aspect_ratio_policy": "not_larger"}, "refused"),
    ],
)
def test_resize(attributes: dict[str, Any], verdict: str) -> None:
    known = {"x": (FLOAT, [1, 1, 4, 4]), "scales": np.array([1, 1, 2, 2], np.float32)}
    assert check_one("Resize", ["x", "", "scales"], known, opset=19, **attributes).verdict == verdict


@pytest.mark.parametrize(
    ("operator", "outputs", "attributes", "verdict"),
    [
        ("MaxPool", ["y"], {"kernel_shape": [2, 2], "dilations": [1, 1]}, "runs"),
        ("MaxPool", ["y"], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "refused"),
        ("MaxPool", ["y", "places"], {"kernel_shape": [2, 2]}, "refused"),
        ("MaxPool", ["y", ""], {"kernel_shape": [2, 2]}, "runs"),
        ("LpPool", ["y"], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "refused"),
    ],
)
def test_pooling(operator: str, outputs: list[str], attributes: dict[str, Any], verdict: str) -> None:
    check = check_one(operator, ["x"], {"x": (FLOAT, [1, 1, 8, 8])}, outputs, **attributes)
    assert check.verdict == verdict


def test_normalisation_in_training() -> None:
    known = {"x": (FLOAT, [1, 2, 8, 8]), **{name: np.ones(2, np.float32) for name in ("scale", "bias", "mean", "var")}}
    assert check_one("BatchNormalization", [*known], known).verdict == "runs"
    outputs = ["y", "mean_out", "var_out"]
    check = check_one("BatchNormalization", [*known], known, outputs, training_mode=1)
    assert check.reason == "only the first output is given; in training mode"


def test_powers_of_integers() -> None:
    check = check_one("Pow", ["x", "e"], {"x": (INT64, [3]), "e": np.array(2)})
    assert check.verdict == "restricted"
    assert check_one("Pow", ["x", "e"], {"x": (FLOAT, [3]), "e": np.array(2)}).verdict == "runs"


@pytest.mark.parametrize(
    ("zero_point", "verdict"), [(np.int8(0), "runs"), (np.int8(3), "refused"), (np.uint8(0), "restricted")]
)
def test_zero_points(zero_point: Any, verdict: str) -> None:
    known = {"x": (FLOAT, [3]), "scale": np.float32(0.1), "zero": np.array(zero_point)}
    assert check_one("QuantizeLinear", [*known], known).verdict == verdict


@pytest.mark.parametrize(("opset", "verdict"), [(8, "refused"), (9, "runs"), (24, "runs"), (25, "refused")])
def test_op_sets(opset: int, verdict: str) -> None:
    assert (opset in OPSETS) == (verdict == "runs")
    assert check_one("Relu", ["x"], {"x": (FLOAT, [2])}, opset=opset).verdict == verdict


def test_branches_are_looked_into() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["x"], [name], f"{name}/{operator}")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    node = helper.make_node(
        "If", ["c"], ["y"], "a/If", then_branch=branch("yes", "Relu"), else_branch=branch("no", "Det")
    )
    checks = check_tensorrt(model_of([node], {"c": (BOOL, []), "x": (FLOAT, [2, 2])}))
    assert {check.node: check.verdict for check in checks} == {
        "a/If": "restricted",
        "a/If/yes/Relu": "runs",
        "a/If/no/Det": "refused",
    }


def test_foreign_operators_need_a_plugin() -> None:
    node = helper.make_node("FancyNms", ["x"], ["y"], NODE, domain="acme")
    model = model_of([node], {"x": (FLOAT, [2])})
    model.opset_import.append(helper.make_opsetid("acme", 1))
    (check,) = check_tensorrt(model)
    assert (check.operator, check.verdict) == ("acme.FancyNms", "refused")
    assert "--target tensorrt" in check.reason


def test_a_call_without_its_function_is_refused() -> None:
    model = op_forms.roi_align_model(op_forms.roi_align_attributes(2))
    assert check_tensorrt(model)[0].verdict == "restricted"
    del model.functions[:]
    assert [check.verdict for check in check_tensorrt(model)] == ["refused"]


def test_functions_are_looked_into_with_the_attributes_of_each_call() -> None:
    attributes = {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 0}
    model = op_forms.roi_align_model(op_forms.roi_align_attributes(1, **attributes))
    second = model.graph.node.add()
    second.CopyFrom(model.graph.node[0])
    second.output[0] = "other"
    next(entry for entry in second.attribute if entry.name == "sampling_ratio").i = 2
    checks = [check for check in check_tensorrt(model) if check.operator == "RoiAlign"]
    assert [(check.node, check.verdict) for check in checks] == [
        ("output/MultiScaleRoiAlign_L1/pooled", "restricted"),
        ("other/MultiScaleRoiAlign_L1/pooled", "runs"),
    ]


def test_types_and_sizes_reach_into_functions() -> None:
    model = op_forms.nms_model({"iou_threshold": 0.5, "score_threshold": 0.05, "max_per_class": 10})
    for value, sides in zip(model.graph.input, ([1, 2501, 4], [1, 2, 2501]), strict=True):
        for dimension, side in zip(value.type.tensor_type.shape.dim, sides, strict=True):
            dimension.dim_value = side
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    last = check_tensorrt(model)[-1]
    assert last.node == "output/BatchedNms/selected"
    assert "DOUBLE is computed as FLOAT" in last.reason
    assert "5002 pairs of box and class" in last.reason
    assert "limit and thresholds" not in last.reason


def test_static_pooling_runs_where_the_sorted_one_is_restricted() -> None:
    attributes = op_forms.roi_align_attributes(4)
    plain = check_tensorrt(onnx_ops.inline(op_forms.roi_align_model(attributes)))
    static = check_tensorrt(onnx_ops.inline(op_forms.roi_align_model(attributes), static=True))
    assert {check.operator for check in plain if check.verdict != "runs"} == {"NonZero"}
    assert [check for check in static if check.verdict != "runs"] == []


def test_a_graph_whose_types_do_not_fit_is_an_error() -> None:
    node = helper.make_node("MatMulInteger", ["x"], ["y"], NODE)
    with pytest.raises(ModelFileError, match=r"the types of the graph do not fit: .*out of bounds"):
        check_tensorrt(model_of([node], {"x": (FLOAT, [2, 2])}))


def test_the_model_is_not_changed() -> None:
    model = op_forms.roi_align_model(op_forms.roi_align_attributes(2))
    before = model.SerializeToString(deterministic=True)
    check_tensorrt(model)
    assert model.SerializeToString(deterministic=True) == before


def test_notes_say_that_nothing_was_verified() -> None:
    assert "Nothing of this was run on TensorRT" in JETPACK_NOTES[0]
    assert any("RoiAlign" in note and "CPU" in note for note in JETPACK_NOTES)
