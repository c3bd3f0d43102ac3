"""A part of a graph computes what the whole does there, from whatever tensors it is given."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from toy_model import SPEC, busy_proto

from edgemask.errors import ModelFileError
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.cuts import cut, inputs_of, produced
from edgemask.runtimes.devices import open_runtime

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
IMAGES = np.random.default_rng(0).uniform(0, 255, (1, 3, 32, 32)).astype(np.float32)
SIZES = np.array([[32, 32]], np.int64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """Two convolutions, `before` and behind `between`, and outputs that depend on them a little."""
    path = tmp_path_factory.mktemp("cuts") / "m.onnx"
    proto = busy_proto()
    for name in ("before", "between"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32, "h", "w"]))
    write_model(proto, SPEC, path)
    return read_model(path)


def run(part: ModelFile, device: str, **values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    runtime, _ = open_runtime(part, device)
    try:
        return runtime.run(inputs_of(part, values))
    finally:
        runtime.close()


def names(values: Any) -> list[str]:
    return [value.name for value in values]


@pytest.mark.parametrize("device", DEVICES)
def test_parts_put_together_are_the_whole(model: ModelFile, device: str) -> None:
    whole = run(model, device, images=IMAGES, image_sizes=SIZES)
    first = run(cut(model, ["before"], []), device, images=IMAGES)
    assert list(first) == ["before"]
    second = run(cut(model, ["between", "maps"], ["before"]), device, **first)
    np.testing.assert_array_equal(second["maps"], whole["maps"])
    third = run(cut(model, ["boxes", "scores"], ["maps"]), device, image_sizes=SIZES, **second)
    for name, value in third.items():
        np.testing.assert_array_equal(value, whole[name])


def test_a_part_holds_what_it_needs_and_no_more(model: ModelFile) -> None:
    before = model.proto.SerializeToString()
    part = cut(model, ["maps"], ["between", "boxes"])
    graph = part.proto.graph
    assert names(graph.node) == ["backbone/Conv_2"]
    assert names(graph.initializer) == ["second"]
    assert names(graph.input) == ["given/between"], "nothing reads boxes, and no image is looked at"
    assert names(graph.output) == ["maps"]
    onnx.checker.check_model(part.proto, full_check=True)
    assert (part.spec, part.path, part.data) == (model.spec, model.path, part.proto.SerializeToString())
    assert model.proto.SerializeToString() == before, "the whole is as it was"


def test_what_is_wanted_may_be_given_as_well(model: ModelFile) -> None:
    """Each stage of a chain is fed, and gives what it makes of that."""
    part = cut(model, ["before", "between", "maps"], ["before", "between"])
    assert names(part.proto.graph.input) == ["images", "given/before", "given/between"]
    fed = {"before": np.full((1, 32, 16, 16), -2, np.float32), "between": np.zeros((1, 32, 16, 16), np.float32)}
    found = run(part, "cpu", images=IMAGES, **fed)
    np.testing.assert_array_equal(found["before"], run(cut(model, ["before"], []), "cpu", images=IMAGES)["before"])
    assert not found["between"].any()
    assert not found["maps"].any()


def test_sides_of_given_tensors_are_not_tied_to_others(model: ModelFile) -> None:
    (value,) = cut(model, ["maps"], ["between"]).proto.graph.input
    sides = value.type.tensor_type.shape.dim
    assert [side.dim_value for side in sides] == [1, 32, 0, 0]
    assert not any(side.dim_param for side in sides)


def test_types_that_the_file_does_not_say_are_inferred(model: ModelFile) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.value_info[:]
    part = cut(dataclasses.replace(model, proto=proto), ["maps"], ["between"])
    assert part.proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node[0].domain = proto.graph.node[1].domain = "com.microsoft"
    with pytest.raises(ModelFileError, match=r"does not say of which type between is"):
        cut(dataclasses.replace(model, proto=proto), ["maps"], ["between"])


def test_values_are_cast_to_what_the_part_takes(model: ModelFile) -> None:
    part = cut(model, ["maps"], ["between"])
    part.proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    (value,) = inputs_of(part, {"between": np.ones((1, 32, 4, 8), np.float32)[..., ::2], "other": IMAGES}).values()
    assert value.dtype == np.float16
    assert value.flags.c_contiguous


def test_what_no_node_computes(model: ModelFile, tmp_path: Path) -> None:
    assert produced(model) >= {"before", "between", "maps", "boxes"}
    assert "images" not in produced(model)
    with pytest.raises(ModelFileError, match=r"m\.onnx computes no fpn\.0, images\n"):
        cut(model, ["maps", "images", "fpn.0"], [])
