"""A tapped model gives the tensors between its stages too, and everything else as before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from toy_model import SPEC, busy_proto, write_toy

from edgemask.errors import ModelFileError
from edgemask.runtimes import Detector, ModelFile, read_model, write_model
from edgemask.runtimes.taps import stages_of, with_taps

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


PROPOSALS, DETECTIONS, ROOM = (3, 1), (2, 1), 4


def numbered(counts: tuple[int, ...], *, room: int | None) -> NDArray[np.float32]:
    """100 for each image and 1 for each row of it; with room for a number of rows, zeros behind them."""
    rows = [[100.0 * (image + 1) + row for row in range(count)] for image, count in enumerate(counts)]
    return np.array([value for own in rows for value in own + [0.0] * ((room or len(own)) - len(own))], np.float32)


def batch_of_two(room: int | None) -> dict[str, NDArray[Any]]:
    """Outputs and taps of two images, flat or with `room` rows for each image."""
    scored, found = numbered(PROPOSALS, room=room), numbered(DETECTIONS, room=room)
    images = np.repeat([0, 1], PROPOSALS if room is None else room).astype(np.float32)
    corner = np.where(scored > 0, 8, 0).astype(np.float32)
    detected = {"boxes": np.repeat(found[:, None], 4, 1), "scores": found / 1000, "labels": found.astype(np.int64)}
    detected["masks"] = np.tile(found[:, None, None], (1, 4, 4))
    values: dict[str, NDArray[Any]] = {
        "stage/resize": np.array([[1.0], [2.0]]),
        "fpn.0": np.array([[3.0], [4.0]]),
        "rpn.scores": np.array([[5.0], [6.0]]),
        "proposals": np.stack([images, 0 * corner, 0 * corner, corner, corner], 1),
        "box_head": scored[:, None] + 0.25,
        "box_head.boxes": scored[:, None] + 0.5,
        "nms": np.zeros((7, 3), np.int64),
        "mask_head": detected["masks"] - 0.5,
    }
    if room is None:
        return values | detected | {"batch_index": np.repeat([0, 1], DETECTIONS)}
    by_image = {name: value.reshape(2, room, *value.shape[1:]) for name, value in detected.items()}
    return values | by_image | {"num_detections": np.array(DETECTIONS)}


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("room", [None, ROOM], ids=["flat", "padded"])
def test_stages_of_one_image(room: int | None, image: int) -> None:
    spec = SPEC.replace(batch=2, max_detections=ROOM, max_proposals=ROOM, outputs="padded" if room else "flat")
    found = stages_of(batch_of_two(room), image, spec)
    scored = 100.0 * (image + 1) + np.arange(PROPOSALS[image])
    detected = 100.0 * (image + 1) + np.arange(DETECTIONS[image])
    expected = {
        "stage/resize": [[1.0 + image]],
        "fpn.0": [[3.0 + image]],
        "rpn.scores": [[5.0 + image]],
        "proposals": [[image, 0, 0, 8, 8]] * PROPOSALS[image],
        "box_head": scored[:, None] + 0.25,
        "box_head.boxes": scored[:, None] + 0.5,
        "mask_head": np.tile(detected[:, None, None], (1, 4, 4)) - 0.5,
        "boxes": np.repeat(detected[:, None], 4, 1),
        "scores": (detected / 1000).astype(np.float32),
        "labels": detected,
        "masks": np.tile(detected[:, None, None], (1, 4, 4)),
    }
    assert found.keys() == expected.keys(), "neither the rows' numbers nor the NMS's own choice of the whole batch"
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("room", [None, ROOM], ids=["flat", "padded"])
def test_stages_of_an_image_without_anything(room: int | None) -> None:
    spec = SPEC.replace(batch=3, max_detections=ROOM, max_proposals=ROOM, outputs="padded" if room else "flat")
    outputs = batch_of_two(room)
    if room is not None:
        rows = np.zeros((room, 5), np.float32) + np.array([2, 0, 0, 0, 0], np.float32)
        outputs["proposals"] = np.concatenate([outputs["proposals"], rows])
        outputs["num_detections"] = np.append(outputs["num_detections"], 0)
        for name in ("box_head", "box_head.boxes", "mask_head"):
            outputs[name] = np.concatenate([outputs[name], outputs[name][:room]])
        for name in ("boxes", "scores", "labels", "masks"):
            outputs[name] = np.concatenate([outputs[name], outputs[name][:1]])
    for name in ("stage/resize", "fpn.0", "rpn.scores"):
        outputs[name] = np.concatenate([outputs[name], outputs[name][:1]])
    found = stages_of(outputs, 2, spec)
    assert {name: len(value) for name, value in found.items()} == {
        **dict.fromkeys(("stage/resize", "fpn.0", "rpn.scores"), 1),
        **dict.fromkeys(("proposals", "box_head", "box_head.boxes", "mask_head"), 0),
        **dict.fromkeys(("boxes", "scores", "labels", "masks"), 0),
    }
