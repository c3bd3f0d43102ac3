"""Keypoints: one map of logits per keypoint and box -> a point on the canvas -> a point of the original image."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import Placement
from edgemask.checks import Described, refuse
from edgemask.images import PIXEL_LIMIT

FloatArray = NDArray[np.float32]

# Rows and columns of a box that are computed at a time: with 17 keypoints 2 MB, whatever the size of the box.
_ROWS, _COLUMNS = 64, 512
# Of the cubic kernel, as torch has it; OpenCV's too, while Pillow takes -0.5.
_SHARPNESS = np.float32(-0.75)


def decode_heatmaps(heatmaps: FloatArray, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Finds the peak of each heatmap after it was spread over its box.

    torchvision's `heatmaps_to_keypoints`: the map is resized bicubically to the box's width and height rounded up
    to whole pixels, a point is the centre of the highest pixel, of equal ones the first by row and column, and is
    scaled back to the box's true size. Equal to it but where two pixels are within float32 rounding of each other.

    Args:
        heatmaps: float32 [N, K, S, S] logits.
        boxes: float32 [N, 4] xyxy, canvas pixels; a side shorter than 1 counts as 1.

    Returns:
        float32 [N, K, 3] of (x, y, 1), canvas pixels; and float32 [N, K], the logits at the peaks.

    Raises:
        UsageError: arrays of another type or shape, numbers that are not finite, or a box of more than 65 million
            pixels.
    """
    _check(heatmaps, boxes)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1))
    pixels = np.ceil(sides)
    found = np.ones((*heatmaps.shape[:2], 3), np.float32)
    scores = np.empty(heatmaps.shape[:2], np.float32)
    for row, maps in enumerate(heatmaps):
        width, height = (int(side) for side in pixels[row])
        peaks, scores[row] = _peaks(maps, height, width)
        centres = np.stack([peaks % width, peaks // width], axis=1).astype(np.float32) + np.float32(0.5)
        found[row, :, :2] = centres * (sides[row] / pixels[row]) + boxes[row, :2]
    return found, scores


def keypoints_to_original(keypoints: FloatArray, placement: Placement) -> FloatArray:
    """Brings float32 [N, K, 3] keypoints (x, y, 1) from canvas pixels to pixels of the original image.

    float32 ratios per axis, as torchvision's `resize_keypoints`.

    Raises:
        UsageError: keypoints of another type or shape.
    """
    if keypoints.dtype != np.float32 or keypoints.ndim != 3 or keypoints.shape[2] != 3:
        refuse("keypoints", "float32 [N, K, 3]", Described(f"{keypoints.dtype} {list(keypoints.shape)}"))
    ratio_height, ratio_width = np.asarray(placement.original_size, np.float32) / np.asarray(placement.size, np.float32)
    return keypoints * np.array([ratio_width, ratio_height, 1], np.float32)


def _peaks(maps: FloatArray, height: int, width: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Returns the flat position of the highest pixel of each of [K, S, S] maps at the new size, and its value."""
    count, side = maps.shape[:2]
    position, value = np.zeros(count, np.intp), np.full(count, -np.inf, np.float32)
    for left, right in _blocks(width, _COLUMNS):
        columns = maps @ _bicubic_axis(side, width, left, right).T
        for top, bottom in _blocks(height, _ROWS):
            block = (_bicubic_axis(side, height, top, bottom) @ columns).reshape(count, -1)
            best = block.argmax(axis=1)
            row, column = np.divmod(best, right - left)
            here, highest = (row + top) * width + column + left, block[np.arange(count), best]
            better = (highest > value) | ((highest == value) & (here < position))
            position[better], value[better] = here[better], highest[better]
    return position, value


def _blocks(length: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, length)) for start in range(0, length, size))


def _bicubic_axis(length: int, new_length: int, first: int, last: int) -> FloatArray:
    """Returns float32 [last - first, length]: the share of each old position in the new ones first ... last - 1.

    The arithmetic is that of torch's `interpolate(mode="bicubic", align_corners=False)`, positions as in
    `canvas.bilinear_axis`: four old positions take part, and what lies beyond the border counts as the border.
    """
    scale = np.float64(np.float32(length) / np.float32(new_length))
    sources = (scale * (np.arange(first, last) + 0.5) - 0.5).astype(np.float32)
    lower = np.floor(sources)
    after = sources - lower
    before = np.float32(1) - after
    weights = _far(after + np.float32(1)), _near(after), _near(before), _far(before + np.float32(1))
    shares = np.zeros((last - first, length), np.float32)
    rows = np.arange(last - first)
    for step, weight in enumerate(weights):
        shares[rows, np.clip(lower.astype(np.intp) + (step - 1), 0, length - 1)] += weight
    return shares


def _near(distance: FloatArray) -> FloatArray:
    """The cubic kernel up to a distance of 1."""
    a = _SHARPNESS
    return ((a + 2) * distance - (a + 3)) * distance * distance + 1


def _far(distance: FloatArray) -> FloatArray:
    """The cubic kernel from a distance of 1 to 2."""
    a, wide = np.float64(_SHARPNESS), distance.astype(np.float64)
    inner = ((a * wide - 5 * a).astype(np.float32) * wide + 8 * a).astype(np.float32)
    return inner * distance - 4 * _SHARPNESS


def _check(heatmaps: FloatArray, boxes: FloatArray) -> None:
    shape = heatmaps.shape
    if heatmaps.dtype != np.float32 or len(shape) != 4 or shape[2] != shape[3] or not shape[2]:
        refuse("heatmaps", "float32 [N, K, S, S]", Described(f"{heatmaps.dtype} {list(shape)}"))
    if boxes.dtype != np.float32 or boxes.shape != (shape[0], 4):
        refuse("boxes", f"float32 [{shape[0]}, 4]", Described(f"{boxes.dtype} {list(boxes.shape)}"))
    if not np.isfinite(heatmaps).all():
        refuse("heatmaps", "finite numbers", heatmaps[~np.isfinite(heatmaps)][0].item())
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        refuse("boxes", "finite numbers", boxes[~finite][0].tolist())
    corners = boxes.astype(np.float64)
    areas = np.ceil(np.maximum(corners[:, 2:] - corners[:, :2], 1)).prod(axis=1)
    if (areas > PIXEL_LIMIT).any():
        refuse("boxes", f"at most {PIXEL_LIMIT} pixels each", boxes[areas > PIXEL_LIMIT][0].tolist())
