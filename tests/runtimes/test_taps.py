"""A tapped model gives the tensors between its stages too, and everything else as before."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from toy_model import SPEC, busy_proto, write_toy

from edgemask.errors import ModelFileError
from edgemask.runtimes import Detector, ModelFile, read_model, write_model
from edgemask.runtimes.taps import with_taps

IMAGES = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)
SIZES = np.array([[64, 64]], np.int64)
# Tensors of the busy toy that get the names of stages, or names that only look like them.
NAMES = {
    "before": "backbone.0",
    "between": "backbone.1",
    "stage/sides": "stage/resize",
    "stage/longest": "rpn.scores.4",
    "stage/product": "proposals",
    "stage/nothing": "proposals/cast",
    "boxes/cast": "mask_headless",
}
TAPPED = ["backbone.0", "backbone.1", "stage/resize", "rpn.scores.4", "proposals"]


def renamed() -> onnx.ModelProto:
    proto = busy_proto()
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [NAMES.get(name, name) for name in names]
    return proto


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("staged") / "m.onnx"
    proto = renamed()
    proto.graph.value_info.append(helper.make_tensor_value_info("backbone.0", TensorProto.FLOAT, [1, 32, "h", "w"]))
    write_model(proto, SPEC, path)
    return read_model(path)


def test_every_stage_tensor_becomes_an_output(model: ModelFile) -> None:
    own = [output.name for output in model.proto.graph.output]
    tapped = with_taps(model)
    assert [output.name for output in tapped.proto.graph.output] == [*own, *TAPPED]
    assert tapped.proto.graph.output[len(own)].type.tensor_type.elem_type == TensorProto.FLOAT
    assert tapped.data == tapped.proto.SerializeToString()
    assert (tapped.spec, tapped.path, tapped.proto.graph.node) == (model.spec, model.path, model.proto.graph.node)
    assert [output.name for output in model.proto.graph.output] == own, "the model itself is as it was"


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)])
def test_other_outputs_are_unchanged(model: ModelFile, device: str) -> None:
    with Detector(model, device) as detector, Detector(with_taps(model), device) as tapped:
        expected, found = detector.run(IMAGES, SIZES), tapped.run(IMAGES, SIZES)
    assert list(found) == [*expected, *TAPPED]
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(found["backbone.1"], np.maximum(found["backbone.0"], 0))
    np.testing.assert_array_equal(found["stage/resize"], SIZES.astype(np.float32))


def test_an_output_that_is_a_stage_is_given_once(model: ModelFile) -> None:
    once = with_taps(model)
    proto = once.proto
    proto.graph.node[-1].output[0] = "nms"
    again = with_taps(once)
    assert [output.name for output in again.proto.graph.output].count("proposals") == 1
    assert again.proto.graph.output[-1].name == "nms"


def test_a_graph_without_stages_is_refused(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"the graph of .*m\.onnx names no stage"):
        with_taps(read_model(path))
