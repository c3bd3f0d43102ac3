"""A tapped model gives the tensors between its stages too, and everything else as before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from toy_model import SPEC, busy_proto, write_toy

from edgemask.errors import ModelFileError, UsageError
from edgemask.runtimes import Detector, ModelFile, read_model, write_model
from edgemask.runtimes.taps import batch_of, stages_of, with_taps

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
        "nms.rois": np.zeros((7, 5), np.float32),
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


@pytest.mark.parametrize("room", [None, ROOM], ids=["flat", "padded"])
def test_what_branches_were_fed_with_says_whose_their_rows_are(room: int | None) -> None:
    """Of a graph that was cut: its own proposals and detections are others, in number too."""
    spec = SPEC.replace(batch=2, max_detections=ROOM, max_proposals=ROOM, outputs="padded" if room else "flat")
    outputs, counter = batch_of_two(room), "num_detections" if room else "batch_index"
    fed = {name: outputs.pop(name) for name in ("proposals", counter)}
    behind = {name: outputs[name] for name in ("box_head", "mask_head", "masks")}
    expected = stages_of(outputs | fed, 0, spec)
    own = {"proposals": np.array([[0, 1, 1, 9, 9]], np.float32)}
    own[counter] = np.array([0, 0]) if room else np.zeros(0, np.int64)
    found = stages_of(behind | own, 0, spec, fed)
    assert found.keys() == {*behind, "proposals"}
    for name in behind:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(found["proposals"], own["proposals"])


def record_of_one() -> dict[str, NDArray[Any]]:
    """As of an image that was alone, flat."""
    chance = np.random.default_rng(0)
    shapes = {"fpn.0": (1, 2, 3, 4), "rpn.scores": (1, 6), "rpn.boxes": (1, 6, 4), "proposals": (3, 5)}
    shapes |= {"box_head": (3, 7), "box_head.boxes": (3, 28), "boxes": (2, 4), "scores": (2,), "labels": (2,)}
    shapes |= {"mask_head": (2, 5, 5), "masks": (2, 5, 5), "keypoint_heatmaps": (2, 17, 5, 5)}
    record: dict[str, NDArray[Any]] = {name: chance.uniform(1, 9, shape) for name, shape in shapes.items()}
    record = {name: value.astype(np.float32) for name, value in record.items()}
    record["proposals"][:, 0] = 0
    record["proposals"][:, 3:] += 10
    return record | {"labels": np.array([2, 1]), "image_sizes": np.array([[50, 60]])}


@pytest.mark.parametrize("copies", [None, 1, 3])
@pytest.mark.parametrize("outputs", ["flat", "padded"])
def test_the_way_there_and_back(outputs: Any, copies: int | None) -> None:
    spec = SPEC.replace(batch=copies, max_detections=ROOM, max_proposals=5, outputs=outputs)
    record = record_of_one()
    batch = batch_of(record, spec)
    count = copies or 1
    assert len(batch["fpn.0"]) == count
    assert batch["nms.rois"].shape == (count * (2 if outputs == "flat" else ROOM), 5)
    assert batch["nms.rois"].dtype == batch["proposals"].dtype == np.float32
    for index in range(count):
        found = stages_of(batch, index, spec)
        assert found.keys() == record.keys()
        assert (found["proposals"][:, 0] == index).all()
        found["proposals"][:, 0] = 0
        for name, value in record.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            assert found[name].dtype == value.dtype


def test_padded_rows_stand_for_nothing() -> None:
    spec = SPEC.replace(batch=2, max_detections=ROOM, max_proposals=5, outputs="padded")
    batch = batch_of(record_of_one(), spec)
    assert not batch["proposals"][3:5, 1:].any()
    np.testing.assert_array_equal(batch["proposals"][:, 0], [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(batch["nms.present"], [True, True, False, False] * 2)
    np.testing.assert_array_equal(batch["nms.labels"], [2, 1, 0, 0] * 2)
    np.testing.assert_array_equal(batch["num_detections"], [2, 2])
    assert batch["masks"].shape == (2, ROOM, 5, 5)
    assert batch["mask_head"].shape == (2 * ROOM, 5, 5)


@pytest.mark.parametrize(("limit", "name"), [("max_proposals", "proposals"), ("max_detections", "boxes")])
def test_more_rows_than_there_is_room_for(limit: str, name: str) -> None:
    spec = SPEC.replace(max_detections=ROOM, max_proposals=5, outputs="padded").replace(**{limit: 1})
    with pytest.raises(UsageError, match=f"{name}: expected at most 1 rows for an image"):
        batch_of(record_of_one(), spec)


def test_masks_of_all_classes_as_older_files_give_them() -> None:
    spec = SPEC.replace(max_detections=ROOM, max_proposals=5)
    batch = batch_of(record_of_one(), spec)
    every = np.random.default_rng(1).uniform(size=(2, 3, 5, 5))
    found = stages_of(batch | {"mask_head": every}, 0, spec)
    np.testing.assert_array_equal(found["mask_head"], every[[0, 1], [2, 1]])


def test_a_semantic_batch() -> None:
    spec = SPEC.replace(tasks=("semantic",), mask_size=None, batch=3)
    record = {"head": np.ones((1, 3, 4, 4)), "labels": np.ones((1, 8, 8), np.uint8)}
    batch = batch_of(record, spec)
    assert {name: value.shape for name, value in batch.items()} == {"head": (3, 3, 4, 4), "labels": (3, 8, 8)}
    np.testing.assert_array_equal(stages_of(batch, 2, spec)["labels"], record["labels"])
