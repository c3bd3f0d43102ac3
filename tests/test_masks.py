"""Masks: pasted as torchvision pastes them, and written as COCO's run lengths."""

import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask import masks as module
from edgemask.errors import DependencyMissing, UsageError
from edgemask.masks import (
    bitmap_to_polygons,
    bitmap_to_rle,
    masks_to_rle,
    paste_crop,
    paste_each,
    paste_masks,
    rle_to_bitmap,
    segmentation_to_rle,
)

# torchvision computes in another order; the last bit of a float32 just below 1 is 6e-8.
UNDECIDED = 2e-6


def random_boxes(chance: np.random.Generator, count: int, height: int, width: int) -> NDArray[np.float32]:
    corners = np.sort(chance.random((count, 2, 2)) * [width, height], axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def torchvision_paste(masks: Any, boxes: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    pasted: NDArray[np.float32] = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)[
        :, 0
    ].numpy()
    return pasted


@pytest.mark.parametrize("side", [28, 14, 1])
@pytest.mark.parametrize("size", [(240, 320), (1, 50), (97, 31), (500, 700)])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_paste_is_torchvisions(side: int, size: tuple[int, int], threshold: float) -> None:
    chance = np.random.default_rng(side)
    height, width = size
    boxes = random_boxes(chance, 12, height, width)
    boxes[0] = [0, 0, width, height]
    boxes[1, 2:] = boxes[1, :2]  # a point
    boxes[2] = [width - 0.2, height - 0.2, width, height]
    boxes[3] = [0, 0, 0.4, height]
    logits = chance.normal(0, 4, (12, side, side))
    masks = (1 / (1 + np.exp(-logits))).astype(np.float32)
    probability = torchvision_paste(masks, boxes, size)
    decided = np.abs(probability - threshold) >= UNDECIDED
    bitmaps = paste_masks(masks, boxes, size, threshold)
    assert bitmaps.shape == (12, *size)
    assert bitmaps.any()
    assert decided.mean() > 0.9999
    np.testing.assert_array_equal(bitmaps[decided], (probability > threshold)[decided])


def test_paste_by_hand() -> None:
    # One cell, padded to 3: the 2 x 2 box grows threefold around (3, 3), to pixels 0 ... 6 of a 7 x 7 region.
    bitmap = paste_masks(np.ones((1, 1, 1), np.float32), np.array([[2, 2, 4, 4]], np.float32), (8, 9))[0]
    expected = np.zeros((8, 9), bool)
    expected[2:5, 2:5] = True
    expected[[2, 2, 4, 4], [2, 4, 2, 4]] = False  # the corners, by (4/7)^2 = 0.33; the sides have 4/7
    np.testing.assert_array_equal(bitmap, expected)


def test_boxes_outside_or_flipped_give_no_pixel() -> None:
    boxes = np.array([[-90, -90, -50, -50], [900, 10, 950, 20], [40, 40, 10, 10]], np.float32)
    assert not paste_masks(np.ones((3, 28, 28), np.float32), boxes, (64, 64)).any()


def test_no_masks() -> None:
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 6)).shape == (0, 5, 6)


def test_paste_each_is_the_same_one_at_a_time() -> None:
    chance = np.random.default_rng(1)
    masks, boxes = chance.random((5, 28, 28), np.float32), random_boxes(chance, 5, 90, 120)
    one_by_one = list(paste_each(masks, boxes, (90, 120), 0.4))
    np.testing.assert_array_equal(np.stack(one_by_one), paste_masks(masks, boxes, (90, 120), 0.4))
    with pytest.raises(UsageError):
        paste_each(masks, boxes[:2], (90, 120))  # at the call, not at the first step


def scattered(chance: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]]:
    """Masks of any kind in boxes inside, across and beyond the edges of images that may be a pixel wide."""
    height, width = (int(side) for side in chance.integers(1, chance.choice([2, 4, 50]) + 1, 2))
    side = int(chance.choice([1, 2, 7, 28]))
    masks = chance.random((8, side, side)) ** chance.choice([0.05, 1, 4])  # nearly full, mixed, nearly empty
    corners = chance.uniform(-1.5, 1.5, (8, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + chance.uniform(0, 2.5, (8, 2)) ** 2 * [width, height]], axis=1)
    boxes[0] = [-width, -height, 2 * width, 2 * height]
    return masks.astype(np.float32), boxes.astype(np.float32), (height, width)


@pytest.mark.parametrize("seed", range(60))
def test_crops_and_run_lengths_are_those_of_the_whole(seed: int) -> None:
    pytest.importorskip("faster_coco_eval")
    masks, boxes, size = scattered(np.random.default_rng(seed))
    bitmaps = paste_masks(masks, boxes, size, 0.4)
    for mask, box, bitmap in zip(masks, boxes, bitmaps, strict=True):
        crop, top, left = paste_crop(mask, box, size, 0.4)
        height, width = crop.shape
        whole = np.zeros(size, bool)
        whole[top : top + height, left : left + width] = crop
        np.testing.assert_array_equal(whole, bitmap)
    assert masks_to_rle(masks, boxes, size, 0.4) == [bitmap_to_rle(bitmap) for bitmap in bitmaps]


def test_scattered_masks_are_of_every_kind() -> None:
    """What the test above would be nothing without."""
    kinds = set()
    for seed in range(60):
        masks, boxes, size = scattered(np.random.default_rng(seed))
        for bitmap in paste_masks(masks, boxes, size, 0.4):
            wraps = bool(size[1] > 1 and (bitmap[-1, :-1] & bitmap[0, 1:]).any())
            kinds.add((bool(bitmap.any()), bool(bitmap.all()), bool(bitmap[0, 0]), bool(bitmap[-1, -1]), wraps))
    assert {
        (False, False, False, False, False),
        (True, True, True, True, False),
        (True, True, True, True, True),
    } < kinds
    assert {(True, False, start, end, wraps) for start in (0, 1) for end in (0, 1) for wraps in (0, 1)} <= kinds


def test_a_crop_is_no_larger_than_its_box_with_a_cell_around() -> None:
    box = np.array([100, 200, 128, 228], np.float32)
    crop, top, left = paste_crop(np.ones((28, 28), np.float32), box, (20_000, 30_000))
    assert (crop.shape, top, left) == ((31, 31), 199, 99)
    beyond = np.array([-90, -90, -50, -50], np.float32)
    assert paste_crop(np.ones((28, 28), np.float32), beyond, (64, 64))[0].shape == (0, 0)


def test_run_lengths_of_masks_make_no_bitmap() -> None:
    pytest.importorskip("faster_coco_eval")
    masks, size = np.ones((50, 28, 28), np.float32), (20_000, 30_000)
    boxes = np.tile(np.array([100, 200, 128, 228], np.float32), (50, 1))
    tracemalloc.start()
    try:
        runs = masks_to_rle(masks, boxes, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [rle["size"] for rle in runs] == [[20_000, 30_000]] * 50
    assert peak < 2_000_000  # a bitmap would be 600 MB


def test_no_masks_no_run_lengths() -> None:
    pytest.importorskip("faster_coco_eval")
    assert masks_to_rle(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 7)) == []


def test_paste_holds_no_floats_of_the_image() -> None:
    count, size = 20, (1000, 1000)
    masks = np.ones((count, 28, 28), np.float32)
    boxes = np.tile(np.array([0, 0, 1000, 1000], np.float32), (count, 1))
    tracemalloc.start()
    try:
        paste_masks(masks, boxes, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The bitmaps are 20 MB; one float32 image would be 4 MB more, all of them 80.
    assert peak < count * 1000 * 1000 + 2_000_000


@pytest.mark.parametrize(
    ("masks", "boxes", "message"),
    [
        (np.zeros((1, 28, 28)), np.zeros((1, 4), np.float32), r"masks: expected float32 \[N, M, M\], got float64"),
        (np.zeros((1, 28, 27), np.float32), np.zeros((1, 4), np.float32), r"got float32 \[1, 28, 27\]"),
        (np.zeros((1, 0, 0), np.float32), np.zeros((1, 4), np.float32), r"\[1, 0, 0\]"),
        (np.zeros((2, 28, 28), np.float32), np.zeros((1, 4), np.float32), r"boxes: expected float32 \[2, 4\]"),
        (np.zeros((1, 9, 9), np.float32), np.full((1, 4), np.nan, np.float32), "finite"),
    ],
)
def test_unusable_arrays_are_refused(masks: Any, boxes: Any, message: str) -> None:
    for use in (paste_masks, masks_to_rle):
        with pytest.raises(UsageError, match=message):
            use(masks, boxes, (10, 10))
    if len(masks) == len(boxes):
        with pytest.raises(UsageError, match=message):
            paste_crop(masks[0], boxes[0], (10, 10))


# Run lengths

BITMAPS = [
    np.zeros((4, 5), bool),
    np.ones((4, 5), bool),
    np.random.default_rng(0).random((37, 23)) > 0.5,
    np.random.default_rng(1).random((40, 300))[:, ::-1] > 0.99,
]


@pytest.mark.parametrize("bitmap", BITMAPS)
def test_run_lengths_there_and_back(bitmap: NDArray[np.bool_]) -> None:
    pytest.importorskip("faster_coco_eval")
    rle = bitmap_to_rle(bitmap)
    assert (rle["size"], type(rle["counts"])) == (list(bitmap.shape), str)
    for form in (rle, {**rle, "counts": rle["counts"].encode()}, {**rle, "counts": runs_of(bitmap)}):
        back = rle_to_bitmap(form)
        assert (back.dtype, back.flags.c_contiguous) == (np.dtype(bool), True)
        np.testing.assert_array_equal(back, bitmap)
        assert segmentation_to_rle(form, *bitmap.shape) == rle


def runs_of(bitmap: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed counts: lengths of alternating runs by column, the first one of zeros."""
    runs, value = [0], False
    for pixel in bitmap.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_run_lengths_by_hand() -> None:
    pytest.importorskip("faster_coco_eval")
    bitmap = np.zeros((5, 7), bool)
    bitmap[1:3, 2:5] = True
    assert bitmap_to_rle(bitmap) == {"size": [5, 7], "counts": ";230009"}  # pycocotools 2.0.11 writes the same


def test_polygons_are_joined() -> None:
    pytest.importorskip("faster_coco_eval")
    squares = [[1, 1, 5, 1, 5, 5, 1, 5], [10.0, 2.0, 14.0, 2.0, 14.0, 8.0, 10.0, 8.0]]
    bitmap = rle_to_bitmap(segmentation_to_rle(squares, 12, 20))
    expected = np.zeros((12, 20), bool)
    expected[1:5, 1:5] = expected[2:8, 10:14] = True
    np.testing.assert_array_equal(bitmap, expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        "text",
        [[]],
        [[1, 2, 3, 4]],  # the library would take four numbers for a box
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, float("nan"), 5, 6]],
        [[1, 2, 3, 1e30, 5, 6]],  # the library would walk along that edge for ever
        [["a"] * 6],
        {},
        {"size": [5, 7]},
        {"size": [5, 7], "counts": None},
        {"size": [5, 7], "counts": [36]},
        {"size": [5, 7], "counts": [34]},
        {"size": [5, 7], "counts": [-1, 36]},
        {"size": [5, 7], "counts": [17.5, 17.5]},
        {"size": [5, 7], "counts": ""},
        {"size": [5, 7], "counts": "zzzz"},
        {"size": [5, 7], "counts": "é"},
        {"size": [7, 5], "counts": [35]},
        {"size": [5, -7], "counts": [35]},
        {"size": [5], "counts": [5]},
        {"size": [100_000, 100_000], "counts": [10**10]},
    ],
    ids=lambda segmentation: ascii(segmentation)[:40],
)
def test_unsound_segmentation_is_refused(segmentation: Any) -> None:
    pytest.importorskip("faster_coco_eval")
    with pytest.raises(UsageError):
        rle_to_bitmap(segmentation_to_rle(segmentation, 5, 7))


@pytest.mark.parametrize("bitmap", [np.zeros((3, 3)), np.zeros(3, bool), np.zeros((0, 3), bool)])
def test_only_bitmaps_are_written(bitmap: Any) -> None:
    for write in (bitmap_to_rle, bitmap_to_polygons):
        with pytest.raises(UsageError, match=r"bool \[H, W\], not empty, got"):
            write(bitmap)


def test_outlines() -> None:
    pytest.importorskip("supervision")
    bitmap = np.zeros((30, 40), bool)
    bitmap[2:8, 3:10] = True
    bitmap[15:25, 20:35] = True
    bitmap[18:20, 25:28] = False
    bitmap[0, 0] = True  # one pixel has no outline
    outlines = bitmap_to_polygons(bitmap)
    extents = sorted((*p.min(axis=0).tolist(), *p.max(axis=0).tolist()) for p in outlines)
    assert extents == [(3, 2, 9, 7), (20, 15, 34, 24), (24, 17, 28, 20)]
    assert all(p.ndim == 2 and p.shape[1] == 2 and np.issubdtype(p.dtype, np.integer) for p in outlines)
    assert bitmap_to_polygons(np.zeros((4, 4), bool)) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bitmap = np.ones((3, 3), bool)
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(DependencyMissing, match=r"edgemask\[coco\]"):
        bitmap_to_rle(bitmap)
    with pytest.raises(DependencyMissing, match=r"edgemask\[coco\]"):
        masks_to_rle(np.ones((1, 2, 2), np.float32), np.ones((1, 4), np.float32), (3, 3))
    monkeypatch.setitem(sys.modules, "supervision", None)
    module.import_supervision.cache_clear()
    with pytest.raises(DependencyMissing, match=r"edgemask\[draw\]"):
        bitmap_to_polygons(bitmap)
