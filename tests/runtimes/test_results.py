"""What comes out of a graph: the same detections from flat and from padded rows, or an error that names the device."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_model import SPEC

from edgemask.canvas import Placement, boxes_to_original
from edgemask.detections import Detections
from edgemask.errors import BrokenOutput, EdgemaskError
from edgemask.keypoints import decode_heatmaps, keypoints_to_original
from edgemask.runtimes.results import detections_of, map_of, rows_of

Outputs = dict[str, NDArray[Any]]

FLAT = SPEC.replace(tasks=("boxes", "masks", "keypoints"), num_keypoints=5)
PADDED = FLAT.replace(outputs="padded", max_detections=4)
COUNTS = (2, 0, 4)  # detections of each image of the batch
PLACEMENTS = [
    Placement((80, 200), (40, 100), (64, 128), resized_beyond_reference=False),
    Placement((64, 64), (64, 64), (64, 128), resized_beyond_reference=False),
    Placement((30, 40), (60, 80), (64, 128), resized_beyond_reference=False),
]


def flat_outputs() -> Outputs:
    chance, count = np.random.default_rng(0), sum(COUNTS)
    low = chance.uniform(0, 20, (count, 2))
    boxes = np.hstack([low, low + chance.uniform(1, 18, (count, 2))])
    values = {
        "boxes": boxes,
        "scores": np.concatenate([np.sort(chance.uniform(size=own))[::-1] for own in COUNTS]),
        "masks": chance.uniform(size=(count, 4, 4)),
        "keypoint_heatmaps": chance.normal(size=(count, 5, 6, 6)),
    }
    outputs: Outputs = {name: value.astype(np.float32) for name, value in values.items()}
    return outputs | {"labels": chance.integers(1, 3, count), "batch_index": np.repeat(np.arange(3), COUNTS)}


def padded_outputs() -> Outputs:
    """The same detections in four rows for each image, and behind them what nobody must read."""
    flat = flat_outputs()
    padded: Outputs = {"num_detections": np.array(COUNTS, np.int64)}
    for name in flat.keys() - {"batch_index"}:
        values = np.full((3, 4, *flat[name].shape[1:]), -1).astype(flat[name].dtype)
        if values.dtype == np.float32:
            values[:] = np.nan
        for image, count in enumerate(COUNTS):
            values[image, :count] = flat[name][flat["batch_index"] == image]
        padded[name] = values
    return padded


@pytest.mark.parametrize("image", range(3))
def test_rows_of_an_image(image: int) -> None:
    flat = flat_outputs()
    own = slice(sum(COUNTS[:image]), sum(COUNTS[: image + 1]))
    for outputs, spec in ((flat, FLAT), (padded_outputs(), PADDED)):
        rows = rows_of(outputs, image, spec)
        assert rows.keys() == {"boxes", "scores", "labels", "masks", "keypoint_heatmaps"}
        for name, value in rows.items():
            np.testing.assert_array_equal(value, flat[name][own])


def test_flat_rows_may_come_in_any_order_of_images() -> None:
    flat = flat_outputs()
    order = np.array([3, 0, 4, 2, 1, 5])
    mixed = {name: value[order] for name, value in flat.items()}
    assert rows_of(mixed, 0, FLAT)["scores"].tolist() == flat["scores"][:2].tolist()


@pytest.mark.parametrize("image", range(3))
def test_flat_and_padded_give_the_same_detections(image: int) -> None:
    placement = PLACEMENTS[image]
    one, other = (
        detections_of(outputs, image, placement, spec, "cpu")
        for outputs, spec in ((flat_outputs(), FLAT), (padded_outputs(), PADDED))
    )
    assert isinstance(one, Detections)
    assert len(one) == COUNTS[image]
    assert one.image_size == other.image_size == placement.original_size
    for name in ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_boxes_and_keypoints_are_in_pixels_of_the_original() -> None:
    outputs = flat_outputs()
    rows, placement = outputs["batch_index"] == 2, PLACEMENTS[2]
    found = detections_of(outputs, 2, placement, FLAT, "cpu")
    np.testing.assert_array_equal(found.boxes, boxes_to_original(outputs["boxes"][rows], placement))
    points, scores = decode_heatmaps(outputs["keypoint_heatmaps"][rows], outputs["boxes"][rows])
    np.testing.assert_array_equal(found.keypoints, keypoints_to_original(points, placement))
    np.testing.assert_array_equal(found.keypoint_scores, scores)
    assert found.keypoints is not None
    assert found.keypoints.shape == (4, 5, 3)
    low, high = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    assert ((found.keypoints[..., :2] >= low) & (found.keypoints[..., :2] <= high)).all()


def test_a_heatmap_with_one_peak_gives_that_point() -> None:
    """By hand: of 4 x 4 cells over a box of 8 x 8 canvas pixels the third to the right, the second down."""
    heatmaps = np.full((1, 1, 4, 4), -9, np.float32)
    heatmaps[0, 0, 1, 2] = 9
    outputs: Outputs = {
        "batch_index": np.array([0]),
        "boxes": np.array([[8, 16, 16, 24]], np.float32),
        "scores": np.array([0.5], np.float32),
        "labels": np.array([1]),
        "keypoint_heatmaps": heatmaps,
    }
    placement = Placement((128, 64), (64, 64), (64, 64), resized_beyond_reference=False)
    found = detections_of(outputs, 0, placement, FLAT, "cpu")
    assert found.masks is None
    assert found.keypoints is not None
    x, y, visible = found.keypoints[0, 0].tolist()
    assert 8 + 4 <= x <= 8 + 6
    assert 2 * (16 + 2) <= y <= 2 * (16 + 4)
    assert visible == 1


def test_a_model_of_boxes_alone() -> None:
    outputs = {name: value for name, value in flat_outputs().items() if name not in ("masks", "keypoint_heatmaps")}
    boxes = FLAT.replace(tasks=("boxes",), mask_size=None, num_keypoints=None)
    found = detections_of(outputs, 0, PLACEMENTS[0], boxes, "cpu")
    assert (found.masks, found.keypoints, found.keypoint_scores) == (None, None, None)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_index", np.array(0)),
        ("batch_index", np.array([0])),
        ("batch_index", np.array([[0]])),
        ("boxes", np.zeros((6, 3), np.float32)),
        ("boxes", np.array(["a"] * 6, object)),
        ("scores", np.zeros((), np.float32)),
        ("masks", np.zeros((6, 4), np.float32)),
        ("labels", np.zeros((6, 2), np.int64)),
        ("keypoint_heatmaps", np.zeros((6, 5, 4), np.float32)),
    ],
)
def test_outputs_that_do_not_belong_together(name: str, value: NDArray[Any]) -> None:
    with pytest.raises(BrokenOutput, match="the model gave no detections on cpu: "):
        detections_of(flat_outputs() | {name: value}, 0, PLACEMENTS[0], FLAT, "cpu")


@pytest.mark.parametrize(
    "value", [np.zeros((), np.uint8), np.zeros((0, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)]
)
def test_a_map_of_another_size(value: NDArray[Any]) -> None:
    with pytest.raises(BrokenOutput, match="the model gave no map on cpu: "):
        map_of({"labels": value, "scores": value.astype(np.float32)}, 0, PLACEMENTS[0], SPEC, "cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["boxes", "scores", "masks", "keypoint_heatmaps"])
@pytest.mark.parametrize(("outputs", "spec"), [(flat_outputs, FLAT), (padded_outputs, PADDED)], ids=["flat", "padded"])
def test_outputs_that_are_no_numbers(outputs: Any, spec: Any, name: str, value: float) -> None:
    values = outputs()
    values[name][-1 if spec.outputs == "flat" else (2, 3)] = value
    with pytest.raises(EdgemaskError, match=rf"gave {name} that are not numbers on openvino:GPU") as caught:
        detections_of(values, 2, PLACEMENTS[2], spec, "openvino:GPU")
    assert "edgemask validate" in str(caught.value.remedy)
    assert len(detections_of(values, 0, PLACEMENTS[0], spec, "openvino:GPU")) == 2, "of one image, not of the others"


def test_all_broken_outputs_are_named() -> None:
    values = flat_outputs()
    values["boxes"][0] = values["masks"][1] = np.nan
    with pytest.raises(EdgemaskError, match="gave boxes, masks that are not numbers on cpu"):
        detections_of(values, 0, PLACEMENTS[0], FLAT, "cpu")
