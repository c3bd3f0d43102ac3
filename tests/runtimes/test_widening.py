"""A file in FP16 on ONNX Runtime's CPU provider: float32 arithmetic with the rounded weights, all else as it was."""

from typing import Any

import half_graph
import numpy as np
import onnx
import onnxruntime
import pytest
from half_graph import HALF, float_proto, half_file, types_of
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemask.export.half import compute_in_half
from edgemask.runtimes import ModelFile
from edgemask.runtimes.cuts import cut, inputs_of
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.widening import float32_data, widened

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]


@pytest.fixture(scope="module")
def file() -> ModelFile:
    proto = float_proto()
    compute_in_half(proto)
    return half_file(proto)


def run(data: bytes, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(half_graph.OUTPUTS, inputs)  # type: ignore[no-any-return]


def rounded_float_proto() -> onnx.ModelProto:
    """The graph in float32 with the weights that the file has."""
    proto, half = float_proto(), float_proto()
    compute_in_half(half)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    for tensor in proto.graph.initializer:
        if stored[tensor.name].dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name].astype(np.float32), tensor.name))
    return proto


def test_no_float16_is_left_and_the_file_is_untouched(file: ModelFile) -> None:
    before = file.proto.SerializeToString()
    wide = widened(file.proto)
    assert file.proto.SerializeToString() == before
    onnx.checker.check_model(wide, full_check=True)
    assert HALF not in types_of(wide).values()
    assert HALF not in {value.type.tensor_type.elem_type for value in wide.graph.value_info}
    assert [node.name for node in wide.graph.node] == [node.name for node in file.proto.graph.node]
    assert wide.functions == file.proto.functions


def test_arithmetic_is_that_of_float32_with_rounded_weights(file: ModelFile) -> None:
    inputs = half_graph.inputs()
    wide = run(float32_data(file), inputs)
    expected = run(rounded_float_proto().SerializeToString(), inputs)
    for name, wanted, own in zip(half_graph.OUTPUTS, expected, wide, strict=True):
        # But for the constant that float32 nodes read too, which the float16 ones have rounded.
        np.testing.assert_allclose(own, wanted, rtol=2e-3, atol=2e-3, err_msg=name)
    unrounded = run(float_proto().SerializeToString(), inputs)
    assert any(np.abs(wanted - own).max() > 1e-5 for wanted, own in zip(unrounded, wide, strict=True))


def test_float32_file_is_opened_as_it_is() -> None:
    file = half_file(float_proto(), "fp32")
    assert float32_data(file) is file.data


@pytest.mark.parametrize("device", DEVICES)
def test_part_takes_float16_where_its_graph_does(file: ModelFile, device: str) -> None:
    inputs = half_graph.inputs()
    found: dict[str, NDArray[Any]] = {}
    for wanted, given in ((["fpn.0", "fpn.1"], []), (["box_head", "scores"], ["fpn.0", "fpn.1"])):
        part = cut(file, wanted, given)
        kinds = {value.name: value.type.tensor_type.elem_type for value in part.proto.graph.input}
        assert all(kinds[f"given/{name}"] == HALF for name in given)
        runtime, _ = open_runtime(part, device)
        try:
            found |= runtime.run(inputs_of(part, inputs | found))
        finally:
            runtime.close()
    (scores,) = (
        value for name, value in zip(half_graph.OUTPUTS, run(file.data, inputs), strict=True) if name == "scores"
    )
    np.testing.assert_allclose(found["scores"], scores, rtol=2e-3, atol=2e-3)
    assert found["box_head"].dtype == (np.float32 if device == "cpu" else np.float16)


def test_constants_within_nodes_are_widened() -> None:
    value = numpy_helper.from_array(np.array([1.5, 2.0], np.float16), "value")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["constant"], "constant", value=value),
            helper.make_node("Add", ["half", "constant"], ["sum"], "sum"),
        ],
        "constants",
        [helper.make_tensor_value_info("half", TensorProto.FLOAT16, [2])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT16, [2])],
    )
    wide = widened(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    onnx.checker.check_model(wide, full_check=True)
    (output,) = onnxruntime.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"half": np.array([0.25, 1e4], np.float16)}
    )
    assert output.dtype == np.float32
    assert output.tolist() == [1.75, 10002.0]
