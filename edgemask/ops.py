"""The two custom ops of an exported model as numpy references: what every other form of them must compute.

An op of the domain `edgemask` exists as this reference, as a torch op (`edgemask.export.torch_ops`), as a
function of standard ONNX operators (`edgemask.export.onnx_ops`) and as what OpenVINO reads
(`edgemask.runtimes.functions`). One test holds them together. Boxes are (x1, y1, x2, y2) in pixels of the
canvas. Non-finite input is not defined.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import UsageError

DOMAIN = "edgemask"
DOMAIN_VERSION = 1

COORDINATE_MODES = ("half_pixel", "output_half_pixel")
MAX_LEVELS = 8
MAX_CANONICAL_LEVEL = 15

# torchvision adds 1e-6 to the level before it rounds down; on the area that is a factor of 4 ** -1e-6.
LEVEL_TOLERANCE = np.float32(2.0**-2e-6)

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def floor32(value: float) -> float:
    """Return the largest float32 that is not above `value`.

    torchvision compares a float32 IoU with its threshold in double precision. `iou > value` in double
    precision and `iou > floor32(value)` in float32 agree for every float32 `iou`; with `float32(0.6)`, which
    is above 0.6, not.
    """
    nearest = np.float32(value)
    return float(nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf)))


def check_batched_nms(iou_threshold: float, score_threshold: float, max_per_class: int) -> None:
    """Raise `UsageError` unless these are attributes that `batched_nms` defines."""
    if not 0.0 <= iou_threshold <= 1.0:
        raise UsageError(f"iou_threshold is {iou_threshold}", "give a value from 0 to 1")
    if math.isnan(score_threshold):
        raise UsageError("score_threshold is not a number", "give a number; 0 keeps every positive score")
    if max_per_class < 0:
        raise UsageError(f"max_per_class is {max_per_class}", "give 0 or more; the number of boxes means no limit")


def check_multi_scale_roi_align(
    levels: int,
    output_size: tuple[int, int],
    sampling_ratio: int,
    spatial_scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    coordinate_transformation_mode: str,
) -> None:
    """Raise `UsageError` unless these are attributes that `multi_scale_roi_align` defines."""
    if not 1 <= levels <= MAX_LEVELS or levels != len(spatial_scales):
        raise UsageError(
            f"{levels} feature levels and {len(spatial_scales)} spatial scales",
            f"give 1 to {MAX_LEVELS} levels and one scale for each",
        )
    if any(not 0.0 < scale < math.inf for scale in spatial_scales):
        raise UsageError(f"spatial_scales are {list(spatial_scales)}", "give positive numbers")
    # Only powers of two scale a float32 roi without rounding, and the level formula needs steps of one
    # octave.
    powers = [math.ldexp(0.5, math.frexp(spatial_scales[0])[1] - level) for level in range(levels)]
    if levels > 1 and list(spatial_scales) != powers:
        raise UsageError(
            f"spatial_scales are {list(spatial_scales)}",
            "give consecutive powers of two, the finest level first",
        )
    if min(output_size) < 1:
        raise UsageError(f"output_size is {output_size}", "give a height and a width of at least 1")
    if sampling_ratio < 0:
        raise UsageError(f"sampling_ratio is {sampling_ratio}", "give 0 for adaptive sampling, torchvision's -1")
    if not 0.0 < canonical_scale < math.inf:
        raise UsageError(f"canonical_scale is {canonical_scale}", "give a positive number of pixels")
    if not 0 <= canonical_level <= MAX_CANONICAL_LEVEL:
        raise UsageError(f"canonical_level is {canonical_level}", f"give a level from 0 to {MAX_CANONICAL_LEVEL}")
    if coordinate_transformation_mode not in COORDINATE_MODES:
        raise UsageError(
            f"coordinate_transformation_mode is {coordinate_transformation_mode!r}",
            f"give one of {', '.join(COORDINATE_MODES)}",
        )


def level_thresholds(spatial_scales: Sequence[float], canonical_scale: float, canonical_level: int) -> Float32:
    """Return the area in square pixels from which a roi belongs to level 1, 2, …: float32 [levels - 1].

    torchvision's `floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6)` reaches level k, whose
    scale is 2 ** -k, where `area >= (canonical_scale / (2 ** canonical_level * scale)) ** 2 * 2 ** -2e-6`.
    Evaluated in float32 in exactly this order it is the same number everywhere, which no logarithm is. What
    torchvision rounds on the way moves its threshold by less than 5e-7 of the area; all other areas get its
    level.
    """
    scales = np.asarray(spatial_scales[1:], np.float32)
    side = np.float32(canonical_scale) / (np.float32(2**canonical_level) * scales)
    return np.asarray((side * side) * LEVEL_TOLERANCE, np.float32)


def roi_levels(boxes: Float32, thresholds: Float32) -> Int64:
    """Return the level index of each box [R, 4] by its float32 area; an area of 0 or less is of level 0."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray((area[:, None] >= thresholds).sum(axis=1), np.int64)


def multi_scale_roi_align(
    features: Sequence[NDArray[Any]],
    rois: NDArray[Any],
    *,
    output_size: tuple[int, int],
    sampling_ratio: int,
    spatial_scales: Sequence[float],
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    coordinate_transformation_mode: str = "output_half_pixel",
) -> Float32:
    """Pool each roi from the pyramid level that its area selects, by averaging bilinear samples.

    With one level there is nothing to select and its scale may be any positive number. A roi is scaled by its
    level's spatial scale and cut into `output_size` bins with `sampling_ratio` x `sampling_ratio` samples in
    each, or `ceil(roi size / output size)` samples a side where the ratio is 0.

    - `output_half_pixel` (torchvision's `aligned=False`, its detection models' choice): coordinates as they
      are, and a roi narrower or lower than one feature pixel, or flipped, is pooled as one pixel wide or high
      from its x1 or y1.
    - `half_pixel` (`aligned=True`): coordinates shifted by -0.5 and sizes as they are. A roi without width or
      height gives zeros under adaptive sampling; a fixed ratio samples it along a line or at a point, and a
      flipped one backwards. Not defined: a flipped roi under adaptive sampling, which torchvision and ONNX
      Runtime fail on.
    - A sample below -1 or above the map's height or width counts as 0; between that and the map's border it
      takes the border's value. It counts in the average either way.

    Args:
        features: one [B, C, Hi, Wi] map for each level, finest first; computed in float32.
        rois: [R, 5] batch index (a whole number) and box. R may be 0.
        output_size: height and width of the result.
        sampling_ratio: samples per bin and axis; 0 is adaptive, as in ONNX (torchvision writes -1).
        spatial_scales: feature pixels per canvas pixel of each level: consecutive powers of two.
        canonical_scale: side in pixels of the square roi that belongs to `canonical_level`.
        canonical_level: that level, counted as torchvision does: scale 2 ** -k is level k.
        coordinate_transformation_mode: `output_half_pixel` or `half_pixel`, as in ONNX RoiAlign.

    Returns:
        float32 [R, C, height, width].

    Raises:
        UsageError: an attribute outside these definitions, or a batch index outside the batch.

    Source: torchvision 0.29.2 `ops/poolers.py` and `csrc/ops/cpu/roi_align_kernel.cpp`; ONNX RoiAlign-16,
        mode avg.
    """
    check_multi_scale_roi_align(
        len(features),
        output_size,
        sampling_ratio,
        spatial_scales,
        canonical_scale,
        canonical_level,
        coordinate_transformation_mode,
    )
    rois = np.asarray(rois, np.float32)
    batch, boxes = rois[:, 0].astype(np.int64), rois[:, 1:]
    if len(rois) and not (batch.min() >= 0 and batch.max() < features[0].shape[0]):
        raise UsageError(
            f"rois name images {batch.min()} to {batch.max()} of a batch of {features[0].shape[0]}",
            "give batch indices from 0 on in column 0 of the rois",
        )
    levels = roi_levels(boxes, level_thresholds(spatial_scales, canonical_scale, canonical_level))
    pooled = np.zeros((len(rois), features[0].shape[1], *output_size), np.float32)
    for index, level in enumerate(levels):
        pooled[index] = _roi_align(
            np.asarray(features[level][batch[index]], np.float32),
            boxes[index] * np.float32(spatial_scales[level]),
            output_size,
            sampling_ratio,
            half_pixel=coordinate_transformation_mode == "half_pixel",
        )
    return pooled


def _roi_align(
    feature: Float32, box: Float32, output_size: tuple[int, int], sampling_ratio: int, *, half_pixel: bool
) -> NDArray[np.float64]:
    """Pool one box, in pixels of the map [C, H, W]; averaging its samples is one matrix for each axis."""
    x1, y1, x2, y2 = box - np.float32(0.5 if half_pixel else 0.0)
    width, height = x2 - x1, y2 - y1
    if not half_pixel:
        width, height = np.maximum(width, np.float32(1.0)), np.maximum(height, np.float32(1.0))
    rows = _sample_weights(y1, height, output_size[0], feature.shape[1], sampling_ratio)
    columns = _sample_weights(x1, width, output_size[1], feature.shape[2], sampling_ratio)
    return np.asarray(rows @ feature @ columns.T, np.float64)


def _sample_weights(
    start: np.float32, length: np.float32, bins: int, size: int, sampling_ratio: int
) -> NDArray[np.float64]:
    """Return the weight [bins, size] of each feature row (or column) in each bin's average."""
    weights = np.zeros((bins, size), np.float64)
    # The positions are float32, in the kernels' order: a sample near -1 or the far border must fall on their
    # side.
    step = length / np.float32(bins)
    samples = sampling_ratio or int(np.ceil(step))
    if samples < 1:
        return weights
    bin_starts = start + np.arange(bins, dtype=np.float32)[:, None] * step
    offsets = (np.arange(samples, dtype=np.float32) + np.float32(0.5)) * step / np.float32(samples)
    positions = bin_starts + offsets
    inside = (positions >= -1.0) & (positions <= size)
    clamped = np.clip(positions, np.float32(0.0), np.float32(size - 1))
    low = clamped.astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    fraction = (clamped - low) * inside
    rows = np.broadcast_to(np.arange(bins)[:, None], positions.shape)
    np.add.at(weights, (rows, low), inside - fraction)
    np.add.at(weights, (rows, high), fraction)
    return weights / samples


def batched_nms(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    *,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
) -> Int64:
    """Suppress, per image and class, every box that overlaps a better one of the same class too much.

    Only scores above `score_threshold` (strictly, as float32) take part. Boxes are taken by descending score,
    equal scores by ascending index; a box is dropped where its float32 IoU with one already kept is strictly
    above `iou_threshold`. Corners are put in order first, as ONNX does and torchvision does not. A box
    without area neither suppresses nor is suppressed. There are no class offsets: with more than 1,000 boxes
    torchvision does the same.

    Args:
        boxes: [B, N, 4], shared by the classes; computed in float32.
        scores: [B, C, N].
        iou_threshold: 0 to 1; compared as `floor32(iou_threshold)`.
        score_threshold: scores equal to it are dropped.
        max_per_class: boxes kept for each image and class; 0 keeps none.

    Returns:
        int64 [M, 3]: batch, class and box index, by batch, then class, then descending score, then ascending
        index. Any of B, C, N and M may be 0.

    Raises:
        UsageError: an attribute outside these definitions.

    Source: ONNX NonMaxSuppression-11; torchvision 0.29.2 `csrc/ops/cpu/nms_kernel.cpp`.
    """
    check_batched_nms(iou_threshold, score_threshold, max_per_class)
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    ordered = np.concatenate(
        [np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])], -1
    )
    threshold = np.float32(floor32(iou_threshold))
    selected = [
        (image, label, box)
        for image in range(scores.shape[0])
        for label in range(scores.shape[1])
        for box in _nms(ordered[image], scores[image, label], threshold, np.float32(score_threshold), max_per_class)
    ]
    return np.asarray(selected, np.int64).reshape(-1, 3)


def _nms(
    boxes: Float32, scores: Float32, iou_threshold: np.float32, score_threshold: np.float32, limit: int
) -> list[int]:
    """Return the kept indices of one image and class, best first; the corners are in order."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.flatnonzero(scores > score_threshold)
    left = left[np.argsort(-scores[left], kind="stable")]
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        overlap = np.prod(np.maximum(sides, np.float32(0.0)), axis=1)
        union = area[best] + area[left] - overlap
        iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
        left = left[~(iou > iou_threshold)]
    return kept
