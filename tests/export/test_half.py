"""FP16: heavy regions in float16 with float16 weights, and a cast at their borders, once for a tensor."""

import half_graph
import numpy as np
import onnx
import onnxruntime
import pytest
from half_graph import HALF, assert_casts_are_borders, casts_of, float_proto, half_file, types_of
from numpy.typing import NDArray
from onnx import numpy_helper
from seeded_faults import half_precision_areas

from edgemask.errors import UnsupportedModel
from edgemask.export.cleaning import name_inlined
from edgemask.export.half import LIMIT, compute_in_half, half_tensors
from edgemask.export.onnx_ops import inline
from edgemask.optest import run_op_tests

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
IN_HALF = {
    *("backbone/conv/Conv", "backbone/relu/Relu", "backbone/se/Conv", "backbone/se/HardSigmoid", "backbone/se/Mul"),
    *(
        "backbone/last/Conv",
        "fpn/Resize",
        "fpn/Add",
        "fpn/layer/Conv",
        "fpn/pool/MaxPool",
        "rpn/head/Conv",
        "rpn/head/Conv_2",
    ),
    *("box_head/head/fc6/Gemm", "box_head/head/Relu", "box_head/predictor/Gemm"),
    *("mask_head/Gather", "mask_head/Squeeze", "mask_head/Unsqueeze", "mask_head/MatMul"),
    "keypoint_head/up/ConvTranspose",
}


def halved(**weights: NDArray[np.float32]) -> onnx.ModelProto:
    proto = float_proto(**weights)
    compute_in_half(proto)
    return proto


def test_heavy_regions_are_float16_and_the_islands_float32() -> None:
    proto = halved()
    types = types_of(proto)
    in_half = {node.name for node in proto.graph.node if node.op_type != "Cast" and types[node.output[0]] == HALF}
    assert in_half == IN_HALF
    assert half_tensors(proto) == [node.output[0] for node in proto.graph.node if node.name in IN_HALF]
    others = {node.name for node in proto.graph.node if node.op_type != "Cast"} - IN_HALF
    for node in proto.graph.node:
        if node.name in others:
            read = {types[name] for name in node.input if name}
            assert HALF not in read or node.op_type == "Shape"
    values = [*proto.graph.input, *proto.graph.output]
    assert HALF not in {value.type.tensor_type.elem_type for value in values}


def test_casts_stand_at_borders_only() -> None:
    assert_casts_are_borders(halved())


def test_declared_types_are_those_that_follow() -> None:
    proto = halved()
    onnx.checker.check_model(proto, full_check=True)
    types = types_of(proto)
    declared = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    assert declared.keys() >= {name for node in proto.graph.node for name in node.output} - set(half_graph.OUTPUTS)
    assert all(types[name] == kind for name, kind in declared.items())


def test_names_are_of_the_stages() -> None:
    before, proto = float_proto(), halved()
    produced = {name: node.op_type for node in proto.graph.node for name in node.output}
    for node in before.graph.node:
        if node.output[0] not in half_graph.OUTPUTS:
            assert produced[node.output[0]] == node.op_type, "the node gives the tensor of its name, not its cast"
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    stages = {"stage", "backbone", "fpn", "rpn", "box_head", "mask_head", "keypoint_head"}
    assert {node.name.split("/")[0] for node in casts_of(proto)} == stages
    for node in casts_of(proto):
        assert node.output[0] in (f"{node.input[0]}/cast", node.input[0].removesuffix("/half"))


def test_weights_are_float16_and_rounded_to_the_nearest() -> None:
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in float_proto().graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in halved().graph.initializer}
    assert after.keys() == before.keys() | {"constant/0/half"}
    for name, values in before.items():
        if values.dtype != np.float32 or name in ("stage.scale", "constant/0"):
            np.testing.assert_array_equal(after[name], values, err_msg=name)
            assert after[name].dtype == values.dtype
        else:
            assert after[name].dtype == np.float16
            np.testing.assert_array_equal(after[name], values.astype(np.float16), err_msg=name)
    np.testing.assert_array_equal(after["constant/0/half"], before["constant/0"].astype(np.float16))


def test_function_bodies_stay_as_they_are() -> None:
    bodies = [function.SerializeToString() for function in float_proto().functions]
    assert [function.SerializeToString() for function in halved().functions] == bodies != []


def test_computes_what_float32_computes_but_for_rounding() -> None:
    """The file as it is; where ONNX Runtime has no kernel for float16 it computes a node in float32."""
    whole, rounded = float_proto(), halved()
    expected, found = (
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            half_graph.OUTPUTS, half_graph.inputs()
        )
        for proto in (whole, rounded)
    )
    for name, wanted, own in zip(half_graph.OUTPUTS, expected, found, strict=True):
        assert own.dtype == np.float32
        error = np.abs(wanted - own).max() / np.abs(wanted).max()
        assert 0 < error < 5e-3, name


@pytest.mark.parametrize("device", DEVICES)
def test_ops_of_a_file_pass_their_self_test(device: str) -> None:
    proto = halved()
    tests = run_op_tests(half_file(proto), device)
    assert [(test.name, test.passed) for test in tests] == [
        ("box_head/pool/MultiScaleRoiAlign_L2", True),
        ("mask_head/pool/MultiScaleRoiAlign_L2", True),
    ]


def test_a_body_that_computes_areas_in_float16_is_noticed() -> None:
    proto = halved()
    half_precision_areas(proto)
    tests = run_op_tests(half_file(proto), "cpu")
    assert [test.passed for test in tests] == [False, False]


@pytest.mark.parametrize("static", [False, True], ids=["openvino", "tensorrt"])
def test_inlined_bodies_stay_float32(static: bool) -> None:
    proto = inline(halved(), static=static)
    name_inlined(proto)
    onnx.checker.check_model(proto, full_check=True)
    types = types_of(proto)
    bodies = [node for node in proto.graph.node if "/body/" in node.name]
    assert len(bodies) > 20
    assert HALF not in {types[name] for node in bodies for name in [*node.input, *node.output] if name in types}
    assert half_tensors(proto) == half_tensors(halved())
    assert all(test.passed for test in run_op_tests(half_file(proto), "cpu"))


@pytest.mark.parametrize("name", ["backbone_conv", "fpn_weight", "mask_head_last"])
@pytest.mark.parametrize("value", [65_505.0, -7e4, np.inf, np.nan])
def test_weight_beyond_float16_is_refused_by_name(name: str, value: float) -> None:
    written = name[::-1].replace("_", ".", 1)[::-1] if name.startswith("mask") else name.replace("_", ".")
    weights = np.zeros(half_graph.SHAPES[written], np.float32)
    weights.flat[1] = value
    with pytest.raises(UnsupportedModel, match=rf"weight {written} holds .*, float16 goes up to 65504") as refusal:
        halved(**{name: weights})
    assert "fp32" in str(refusal.value.remedy)


def test_weights_at_the_end_of_the_range_are_taken() -> None:
    weights = np.zeros(half_graph.SHAPES["fpn.weight"], np.float32)
    weights.flat[:3] = LIMIT, -LIMIT, 1e-9
    proto = halved(fpn_weight=weights)
    (stored,) = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == "fpn.weight")
    assert stored.flat[:3].tolist() == [LIMIT, -LIMIT, 0.0]
