"""A record is in the order of the data's road, and what a runtime makes of the outputs is a part of it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.semantic import SemanticMap
from edgemask.stage_record import in_order, of_detections, of_map, on_the_road, packed


def test_the_road() -> None:
    road = ["image_sizes", "stage/resize", "backbone.0", "fpn.0", "fpn.2", "fpn.10", "rpn.scores.1", "rpn.boxes.0"]
    road += ["rpn.boxes", "rpn.scores", "proposals", "box_head", "box_head.boxes", "boxes", "labels", "scores"]
    road += ["mask_head", "masks", "detections", "detections.keypoints", "paste"]
    assert on_the_road([*reversed(road), "nms", "nms.rois", "batch_index", "fpn", "fpn.x", "paste.0"]) == road


def test_in_order_leaves_out_what_is_no_stage() -> None:
    values = {name: np.zeros(1) for name in ("paste", "num_detections", "fpn.1", "fpn.0")}
    assert list(in_order(values)) == ["fpn.0", "fpn.1", "paste"]


def found(count: int, **further: Any) -> Detections:
    boxes = np.array([[1, 1, 5, 6], [2, 0, 9, 7]], np.float32)[:count]
    scores = np.array([0.9, 0.25], np.float32)[:count]
    masks = np.ones((count, 4, 4), np.float32)
    return Detections(boxes, scores, np.array([2, 1])[:count], masks, image_size=(8, 11), **further)


def test_of_detections() -> None:
    points: dict[str, NDArray[Any]] = {"keypoints": np.ones((2, 3, 3)), "keypoint_scores": np.ones((2, 3))}
    points = {name: value.astype(np.float32) for name, value in points.items()}
    detections = found(2, **points)
    record = of_detections(detections)
    assert list(record) == ["detections", "detections.keypoints", "detections.keypoint_scores", "paste"]
    np.testing.assert_array_equal(record["detections"], np.array([[1, 1, 5, 6, 0.9, 2], [2, 0, 9, 7, 0.25, 1]], "f"))
    np.testing.assert_array_equal(record["detections.keypoints"], points["keypoints"])
    np.testing.assert_array_equal(
        np.unpackbits(record["paste"], axis=2)[:, :, :11].astype(np.bool_), detections.bitmaps()
    )
    assert record["paste"].shape == (2, 8, 2)


def test_of_no_detections() -> None:
    record = of_detections(found(0))
    assert {name: (value.shape, str(value.dtype)) for name, value in record.items()} == {
        "detections": ((0, 6), "float32"),
        "paste": ((0, 8, 2), "uint8"),
    }


@pytest.mark.parametrize("width", [7, 8, 9])
def test_packed(width: int) -> None:
    bitmaps = np.random.default_rng(0).uniform(size=(3, 5, width)) > 0.5
    rows = packed(iter(bitmaps), (5, width))
    np.testing.assert_array_equal(np.unpackbits(rows, axis=2, count=width).astype(np.bool_), bitmaps)
    assert packed([], (5, width)).shape == (0, *rows.shape[1:])


def test_of_map() -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    record = of_map(SemanticMap(labels, np.full((2, 2), 0.5, np.float32)))
    np.testing.assert_array_equal(record["map"], labels)
    assert record["map.scores"].dtype == np.float32
