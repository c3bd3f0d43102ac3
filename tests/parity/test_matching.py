"""Which detection is which, and how much two of them overlap."""

import numpy as np
import pytest
from found import changed, detections, found_on

from edgemask.errors import UsageError
from edgemask.parity import box_ious, keypoint_similarity, mask_iou, pair_up


def test_the_assignment_matches_the_most() -> None:
    """The best overlap alone would take reference 0 to candidate 0 and leave two detections without a match."""
    reference = detections([[0, 0, 1000, 10], [6, 0, 1006, 10]], [0.9, 0.9])
    candidate = detections([[2, 0, 1002, 10], [-3, 0, 997, 10]], [0.9, 0.9])
    rows, columns, ious = pair_up(reference, candidate, box_iou=0.99, score=1e-3)
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 1: 0}
    assert (ious >= 0.99).all()


def test_box_ious_equal_torchvision() -> None:
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    one, other = found_on(0, 40).boxes, found_on(0, 30).boxes + np.float32(3)
    expected = ops.box_iou(torch.tensor(one), torch.tensor(other)).numpy()
    np.testing.assert_allclose(box_ious(one, other), expected, atol=1e-6)


def test_boxes_without_area() -> None:
    boxes = np.array([[5, 5, 5, 9], [5, 5, 9, 9], [7, 7, 5, 5]], np.float32)
    assert box_ious(boxes, boxes).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_mask_iou_equals_that_of_whole_bitmaps() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        corners = rng.uniform((-20, -20), (310, 230), (2, 2))
        corners[1] = corners[0] + rng.uniform(-15, 15, 2)
        boxes = np.concatenate([corners, corners + rng.uniform(0.1, 60, (2, 2))], 1)
        sides = rng.integers(1, 29, 2)
        one, other = (
            detections([box], [0.5], masks=rng.uniform(0.2, 1, (1, side, side)).astype(np.float32))
            for box, side in zip(boxes, sides, strict=True)
        )
        bitmaps = one.bitmaps()[0], other.bitmaps()[0]
        union = (bitmaps[0] | bitmaps[1]).sum()
        expected = (bitmaps[0] & bitmaps[1]).sum() / union if union else 1.0
        assert mask_iou(one, 0, other, 0) == expected


def test_mask_iou_needs_masks() -> None:
    found = found_on(0)
    with pytest.raises(UsageError, match="expected them on both sides"):
        mask_iou(found, 0, changed(found, masks=None), 0)


def test_keypoint_similarity_is_that_of_cocos_library() -> None:
    mask = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 100, (3, 17, 3)).astype(np.float32)
    points[..., 2] = 1
    other = points + np.float32([3, -2, 0]) * rng.uniform(0, 1, (3, 17, 1)).astype(np.float32)
    boxes = np.array([[0, 0, 50, 80], [10, 0, 110, 90], [0, 5, 20, 30]], np.float32)
    distances = np.linalg.norm((points - other)[..., :2].astype(np.float64), axis=-1)
    found = keypoint_similarity(distances, boxes)
    evaluation = mask.COCOeval(iouType="keypoints")
    for row in range(3):
        left, top, right, bottom = boxes[row].tolist()
        area = (right - left) * (bottom - top) / 2
        truth = {"keypoints": points[row].ravel().tolist(), "num_keypoints": 17, "area": area}
        truth["bbox"] = [left, top, right - left, bottom - top]
        evaluation._gts = {(1, 1): [truth]}
        evaluation._dts = {(1, 1): [{"keypoints": other[row].ravel().tolist(), "score": 1.0}]}
        assert evaluation.computeOks(1, 1)[0, 0] == pytest.approx(found[row], abs=1e-6)
    assert found.min() > 0.5


def test_keypoints_of_other_numbers_have_equal_sigmas() -> None:
    boxes = np.array([[0, 0, 20, 40]], np.float32)
    near, far = (keypoint_similarity(np.full((1, 5), distance), boxes)[0] for distance in (1.0, 5.0))
    assert near == pytest.approx(np.exp(-1 / (2 * 400 * 0.16)))
    assert far < near
