"""Keypoints: found in heatmaps and brought back as torchvision does it, in little memory."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask import keypoints as module
from edgemask.canvas import Placement
from edgemask.errors import UsageError
from edgemask.keypoints import decode_heatmaps, keypoints_to_original

FloatArray = NDArray[np.float32]


def noise(chance: np.random.Generator, count: int, points: int, side: int) -> FloatArray:
    return chance.normal(0, 3, (count, points, side, side)).astype(np.float32)


def hills(chance: np.random.Generator, count: int, points: int, side: int) -> FloatArray:
    """One hill per map, the top of some beyond the border, with a little noise."""
    rows, columns = np.mgrid[:side, :side]
    top, left = chance.uniform(-1, side, (2, count, points, 1, 1))
    width = chance.uniform(1, 6, (count, points, 1, 1))
    heights = 12 * np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (2 * width**2)) - 4
    heights += chance.normal(0, 0.1, heights.shape)
    return np.asarray(heights, np.float32)


def some_boxes(chance: np.random.Generator) -> FloatArray:
    """50 of all kinds: below a pixel, whole numbers, thin, flipped, and nearly a whole canvas."""
    sides = np.concatenate(
        [
            chance.uniform(0, 1.5, (10, 2)),
            chance.uniform(10, 120, (17, 2)),
            chance.integers(1, 90, (10, 2)),
            chance.uniform([100, 1], [600, 9], (5, 2)),
            chance.uniform([1, 100], [9, 600], (5, 2)),
            [[-20, 30], [1150.3, 640.7], [611.5, 520]],
        ]
    )
    corners = chance.uniform(0, 180, sides.shape)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def torchvisions(heatmaps: FloatArray, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

    points, scores = heatmaps_to_keypoints(torch.from_numpy(heatmaps), torch.from_numpy(boxes))
    return points.numpy(), scores.numpy()


def one_peak(*places: tuple[int, int], side: int = 8) -> FloatArray:
    """A map that is 1 at the (row, column) places and 0 elsewhere."""
    peaks = np.zeros((1, 1, side, side), np.float32)
    for place in places:
        peaks[0, 0][place] = 1
    return peaks


@pytest.mark.parametrize("side", [28, 56])
@pytest.mark.parametrize("maps", [hills, noise])
def test_points_are_torchvisions(maps: Any, side: int) -> None:
    chance = np.random.default_rng(side)
    distances = []
    for points in (1, 5, 17):
        boxes = some_boxes(chance)
        heatmaps = maps(chance, len(boxes), points, side)
        expected, expected_scores = torchvisions(heatmaps, boxes)
        found, scores = decode_heatmaps(heatmaps, boxes)
        assert (found.dtype, found.shape) == (np.dtype(np.float32), expected.shape)
        assert (scores.dtype, scores.shape) == (np.dtype(np.float32), expected_scores.shape)
        assert (found[:, :, 2] == 1).all()
        np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-4)  # measured: 3e-6
        distances.append(np.abs(found - expected).max(axis=2).ravel())
    distance = np.concatenate(distances)
    assert len(distance) > 1000
    # Pixels within float32 rounding of each other may change places. Measured: none of 17,000 did.
    assert (distance <= 1e-3).mean() >= 0.999
    assert np.median(distance) == 0


def test_points_by_hand() -> None:
    boxes = np.array([[10, 20, 18, 28], [10, 20, 17, 27.5], [10, 20, 10.25, 5]], np.float32)
    found, scores = decode_heatmaps(np.repeat(one_peak((1, 6)), 3, axis=0), boxes)
    # The pixel's centre in the box, and in a box of 7 x 7.5 that was computed as 7 x 8; a pixel is the least.
    assert found[0].tolist() == [[16.5, 21.5, 1]]
    assert found[1, 0, 1] == 20 + 1.5 * 7.5 / 8
    assert found[2].tolist() == [[10.5, 20.5, 1]]
    assert scores[0].tolist() == [1]


@pytest.mark.parametrize(
    ("places", "first"),
    [([], (0, 0)), ([(5, 0), (1, 7)], (1, 7)), ([(3, 7), (3, 1)], (3, 1)), ([(7, 7)], (7, 7))],
)
@pytest.mark.parametrize("blocks", [(64, 512), (3, 2), (1, 1)])
def test_first_of_equal_peaks(
    places: list[tuple[int, int]], first: tuple[int, int], blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", blocks[0])
    monkeypatch.setattr(module, "_COLUMNS", blocks[1])
    found, scores = decode_heatmaps(one_peak(*places), np.array([[0, 0, 8, 8]], np.float32))
    assert found[0, 0].tolist() == [first[1] + 0.5, first[0] + 0.5, 1]
    assert scores[0, 0] == bool(places)


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(3)
    heatmaps, boxes = noise(chance, 50, 2, 14), some_boxes(chance)
    whole, whole_scores = decode_heatmaps(heatmaps, boxes)
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 33)
    found, scores = decode_heatmaps(heatmaps, boxes)
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_allclose(scores, whole_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("points", [1, 17])
def test_no_detections(points: int) -> None:
    found, scores = decode_heatmaps(np.zeros((0, points, 56, 56), np.float32), np.zeros((0, 4), np.float32))
    assert (found.shape, scores.shape) == ((0, points, 3), (0, points))
    assert found.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("box", [[0, 0, 1333, 800], [0, 0, 40_000, 25]])
def test_memory_is_bounded_for_any_box(box: list[int]) -> None:
    heatmaps = noise(np.random.default_rng(0), 1, 17, 56)
    tracemalloc.start()
    try:
        decode_heatmaps(heatmaps, np.array([box], np.float32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The resized maps are 72 MB; measured: 6 MB.
    assert peak < 16_000_000


@pytest.mark.parametrize(
    ("heatmaps", "boxes", "message"),
    [
        (np.zeros((1, 2, 9, 9)), np.zeros((1, 4), np.float32), r"expected float32 \[N, K, S, S\], got float64"),
        (np.zeros((2, 9, 9), np.float32), np.zeros((2, 4), np.float32), r"heatmaps: .* got float32 \[2, 9, 9\]"),
        (np.zeros((1, 2, 9, 8), np.float32), np.zeros((1, 4), np.float32), r"got float32 \[1, 2, 9, 8\]"),
        (np.zeros((1, 2, 0, 0), np.float32), np.zeros((1, 4), np.float32), r"got float32 \[1, 2, 0, 0\]"),
        (one_peak(), np.zeros((2, 4), np.float32), r"boxes: expected float32 \[1, 4\], got float32 \[2, 4\]"),
        (one_peak(), np.zeros((1, 4)), r"boxes: expected float32 \[1, 4\], got float64"),
        (one_peak() * np.float32(np.nan), np.zeros((1, 4), np.float32), "heatmaps: expected finite numbers, got nan"),
        (one_peak(), np.array([[0, 0, np.inf, 1]], np.float32), r"boxes: expected finite numbers, got \[0.0, 0.0, inf"),
        (one_peak(), np.array([[0, 0, 1e6, 90]], np.float32), "boxes: expected at most 65000000 pixels each"),
        (one_peak(), np.array([[-3e38, 0, 3e38, 1]], np.float32), "pixels each"),
    ],
)
def test_unusable_arrays_are_refused(heatmaps: Any, boxes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode_heatmaps(heatmaps, boxes)


def test_keypoints_go_back_with_torchvisions_arithmetic() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.transform import resize_keypoints

    points = np.random.default_rng(0).uniform(0, 800, (90, 17, 3)).astype(np.float32)
    points[:, :, 2] = 1
    placement = Placement((427, 640), (800, 1199), (800, 1216), False)
    expected = resize_keypoints(torch.from_numpy(points), placement.size, placement.original_size)
    original = keypoints_to_original(points, placement)
    assert original.dtype == np.float32
    np.testing.assert_array_equal(original, expected.numpy())
    assert keypoints_to_original(points[:0], placement).shape == (0, 17, 3)


@pytest.mark.parametrize(
    "points", [np.zeros((1, 17, 3)), np.zeros((1, 17, 2), np.float32), np.zeros((1, 3), np.float32)]
)
def test_unusable_keypoints_are_refused(points: Any) -> None:
    with pytest.raises(UsageError, match=r"keypoints: expected float32 \[N, K, 3\], got float"):
        keypoints_to_original(points, Placement((1, 1), (1, 1), (32, 32), False))
