"""Detections: what is in them is sound, and they go over to COCO and supervision unharmed."""

import dataclasses
import json
import pickle  # noqa: TID251  its own copies are read again
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.detections import Detections, name_of
from edgemask.errors import UsageError
from edgemask.masks import rle_to_bitmap


def arrays(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "boxes": np.array([[10, 20, 50, 60], [0, 0, 30.5, 12], [70, 5, 90, 45]], np.float32),
        "scores": np.array([0.9, 0.8, 0.3], np.float32),
        "labels": np.array([2, 1, 2], np.int64),
        "masks": np.stack([np.full((28, 28), p, np.float32) for p in (0.9, 0.7, 0.8)]),
        "keypoints": np.arange(3 * 5 * 3, dtype=np.float32).reshape(3, 5, 3),
        "keypoint_scores": np.ones((3, 5), np.float32),
        "image_size": (64, 96),
    }
    return values | changes


def full(**changes: Any) -> Detections:
    return Detections(**arrays(**changes))


def boxes_only(**changes: Any) -> Detections:
    return full(**({"masks": None, "keypoints": None, "keypoint_scores": None} | changes))


def test_length_and_description() -> None:
    assert len(full()) == 3
    assert repr(full()) == "<Detections: 3 boxes with masks with keypoints on 64 x 96 (H x W)>"
    assert repr(Detections.empty((5, 6))) == "<Detections: 0 boxes on 5 x 6 (H x W)>"


def test_arrays_are_read_only_and_not_copied() -> None:
    values = arrays()
    found = Detections(**values)
    for name in ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores"):
        held = getattr(found, name)
        assert np.shares_memory(held, values[name])
        with pytest.raises(ValueError, match="read-only"):
            held[0] = 0
        values[name][0] = values[name][0]  # the caller's own array stays writable
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.scores = values["scores"]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(0), [0]),
        (slice(1, None), [1, 2]),
        (slice(0, 0), []),
        ([0, 2], [0, 2]),
        ([], []),
        (np.array([1, 1]), [1, 1]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
        (np.zeros(3, bool), []),
    ],
)
def test_index_takes_all_fields_at_once(index: Any, rows: list[int]) -> None:
    found, chosen = full(), full()[index]
    assert chosen.image_size == found.image_size
    for name in ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(found, name)[rows])


def test_index_by_score() -> None:
    found = boxes_only()
    chosen = found[found.scores > 0.5]
    assert chosen.labels.tolist() == [2, 1]
    assert chosen.masks is None


def test_index_that_cannot_be_meant() -> None:
    found = full()
    for index in (3, -4, np.array([5])):
        with pytest.raises(IndexError):
            found[index]
    with pytest.raises(IndexError):
        found[np.array([True, False])]
    with pytest.raises(UsageError, match=r"descending order, got 0.3 before 0.9") as caught:
        found[[2, 0]]
    assert "ascending" in (caught.value.remedy or "")
    for index in (np.array([0.0, 1.0]), np.array([[0, 1]])):
        with pytest.raises(UsageError, match="index: expected"):
            found[index]


def test_iteration_gives_one_detection_at_a_time() -> None:
    assert [one.scores.tolist() for one in full()] == [[s] for s in full().scores.tolist()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((3, 4))}, r"boxes: expected float32 \[3, 4\], got float64 \[3, 4\]"),
        ({"boxes": np.zeros((2, 4), np.float32)}, r"got float32 \[2, 4\]"),
        ({"boxes": [[0, 0, 1, 1]] * 3}, "boxes: expected .* array, got list"),
        ({"boxes": np.full((3, 4), np.inf, np.float32)}, "boxes: expected finite"),
        ({"scores": np.zeros((3, 1), np.float32)}, r"scores: expected float32 \[N\]"),
        ({"scores": None}, "scores: expected .* got NoneType"),
        ({"scores": np.array([0.3, 0.8, 0.1], np.float32)}, r"descending order, got 0\.3 before 0\.8"),
        ({"scores": np.array([1.2, 0.8, 0.1], np.float32)}, "scores: expected 0 to 1, got 1.2"),
        ({"scores": np.array([0.9, np.nan, 0.1], np.float32)}, "scores: expected 0 to 1, got nan"),
        ({"labels": np.zeros(3, np.int32)}, r"labels: expected int64 \[3\], got int32"),
        ({"labels": np.zeros(3, np.int64)}, "1 or more; 0 is the background, got 0"),
        ({"masks": np.zeros((3, 28, 14), np.float32)}, r"masks: expected float32 \[3, M, M\]"),
        ({"masks": np.zeros((2, 28, 28), np.float32)}, "masks"),
        ({"keypoints": np.zeros((3, 5, 2), np.float32)}, r"keypoints: expected float32 \[3, K, 3\]"),
        ({"keypoints": None}, "an array exactly when keypoints is"),
        ({"keypoint_scores": None}, "an array exactly when keypoints is"),
        ({"keypoint_scores": np.zeros((3, 4), np.float32)}, "expected 5 per detection, as keypoints, got 4"),
        ({"image_size": (0, 5)}, r"image_size\[0\]"),
        ({"image_size": 5}, "image_size"),
    ],
)
def test_unsound_content_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        full(**changes)


def test_softmax_rounded_above_one_is_no_fault() -> None:
    assert len(boxes_only(scores=np.array([1.0000001, 0.8, 0.3], np.float32))) == 3


def test_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(full()))
    np.testing.assert_array_equal(copy.masks, full().masks)
    assert copy.image_size == (64, 96)


def test_empty() -> None:
    found = Detections.empty((64, 96), mask_size=28, num_keypoints=17)
    assert len(found) == 0
    assert found.bitmaps().shape == (0, 64, 96)
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 17, 3)
    assert found.to_coco(1) == []
    assert len(found[found.scores > 0.5]) == 0
    plain = Detections.empty((64, 96))
    assert plain.masks is plain.keypoints is plain.keypoint_scores is None


def test_bitmaps_lie_in_the_boxes() -> None:
    bitmaps = full().bitmaps()
    assert bitmaps.dtype == bool
    assert bitmaps.shape == (3, 64, 96)
    assert extent(bitmaps[0]) == (10, 20, 49, 59)
    assert not full().bitmaps(threshold=0.95).any()
    with pytest.raises(UsageError, match="a model that gives masks"):
        boxes_only().bitmaps()


def extent(bitmap: NDArray[np.bool_]) -> tuple[int, ...]:
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def test_coco_records() -> None:
    pytest.importorskip("faster_coco_eval")
    found = full()
    records = json.loads(json.dumps(found.to_coco(7, category_ids=(18, 90))))
    assert [record["category_id"] for record in records] == [90, 18, 90]
    assert {record["image_id"] for record in records} == {7}
    assert [record["bbox"] for record in records] == [[10, 20, 40, 40], [0, 0, 30.5, 12], [70, 5, 20, 40]]
    assert [record["score"] for record in records] == found.scores.tolist()
    assert records[0]["keypoints"] == list(range(15))
    for record, bitmap in zip(records, found.bitmaps(), strict=True):
        np.testing.assert_array_equal(rle_to_bitmap(record["segmentation"]), bitmap)


def test_coco_records_of_a_large_image_make_no_bitmap() -> None:
    pytest.importorskip("faster_coco_eval")
    tracemalloc.start()
    try:
        records = full(image_size=(20_000, 30_000)).to_coco(1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [record["segmentation"]["size"] for record in records] == [[20_000, 30_000]] * 3
    assert peak < 2_000_000  # a bitmap would be 600 MB


def test_coco_records_without_masks_need_no_library() -> None:
    records = boxes_only().to_coco(1)
    assert [sorted(record) for record in records] == [["bbox", "category_id", "image_id", "score"]] * 3
    assert [record["category_id"] for record in records] == [2, 1, 2]
    with pytest.raises(UsageError, match="category_ids: expected at least 2, one per label, got 1"):
        boxes_only().to_coco(1, category_ids=[5])


def test_coco_library_reads_the_records() -> None:
    pytest.importorskip("faster_coco_eval")
    from faster_coco_eval import COCO

    found = full()[:2]
    truth = COCO(
        {
            "images": [{"id": 1, "height": 64, "width": 96}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [],
        }
    )
    loaded = truth.loadRes(found.to_coco(1))
    for record, bitmap in zip(loaded.anns.values(), found.bitmaps(), strict=True):
        np.testing.assert_array_equal(loaded.annToMask(record), bitmap)


def test_supervision_detections() -> None:
    pytest.importorskip("supervision")
    theirs = full().to_supervision(["cat", "dog"])
    np.testing.assert_array_equal(theirs.xyxy, full().boxes)
    np.testing.assert_array_equal(theirs.mask, full().bitmaps())
    np.testing.assert_array_equal(theirs.confidence, full().scores)
    assert theirs.class_id is not None
    assert theirs.class_id.tolist() == [2, 1, 2]
    assert [str(name) for name in theirs.data["class_name"]] == ["dog", "cat", "dog"]
    assert len(Detections.empty((5, 6), mask_size=28).to_supervision()) == 0
    assert boxes_only().to_supervision().mask is None


def test_label_without_a_name() -> None:
    assert [name_of(label, ["a"]) for label in (1, 2, 0)] == ["a", "class_2", "class_0"]
    assert name_of(3, None) == "class_3"
