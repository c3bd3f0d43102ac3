"""Regions that pooling must not get wrong."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.ops import level_thresholds

Float32 = NDArray[np.float32]
_Made = Iterator[tuple[str, Sequence[float]]]

_FLOAT16_LIMIT = 65_504.0
_LONGEST_SIDE = 4096  # of a region; adaptive sampling of longer ones takes seconds


@dataclass(frozen=True, slots=True)
class Pooling:
    """What decides which regions are worth a vector.

    Attributes:
        output_size: (height, width).
        sampling_ratio: 0 is adaptive.
        half_pixel: whether coordinates are shifted.
        scales: feature pixels per canvas pixel, by level.
        canonical_scale: as for `edgemask.ops.multi_scale_roi_align`.
        canonical_level: likewise.
        maps: (H, W) of each level.
        canvas: (H, W) in pixels of the largest canvas.
    """

    output_size: tuple[int, int]
    sampling_ratio: int
    half_pixel: bool
    scales: tuple[float, ...]
    canonical_scale: float
    canonical_level: int
    maps: tuple[tuple[int, int], ...]
    canvas: tuple[int, int]


def regions(pooling: Pooling) -> tuple[list[str], Float32]:
    """Every kind of region: what it is about, and boxes [V, 4] in canvas pixels."""
    height, width = (side / pooling.scales[0] for side in pooling.maps[0])
    made = [
        *_at_levels(pooling),
        *_large(pooling),
        *_degenerate(height, width),
        *(_flipped(width) if pooling.sampling_ratio or not pooling.half_pixel else ()),
        *_at_border(height, width),
        *_sampled_at_border(pooling),
        *_drawn(height, width),
    ]
    return [kind for kind, _ in made], np.array([box for _, box in made], np.float32)


def _at_levels(pooling: Pooling) -> _Made:
    """An area is exact here: one side is a power of two."""
    edges = level_thresholds(pooling.scales, pooling.canonical_scale, pooling.canonical_level)
    for level, edge in enumerate(edges, 1):
        short = 2.0 ** round(math.log2(edge) / 2)
        for place, area in (
            ("where level {} begins", edge),
            ("one float32 below level {}", np.nextafter(edge, np.float32(0))),
            ("one float32 above the begin of level {}", np.nextafter(edge, np.float32(np.inf))),
        ):
            long = float(area) / short
            yield f"area {place.format(level)}", (0, 1, long, 1 + short)
            yield f"area {place.format(level)}, upright", (2, 0, 2 + short, long)


def _large(pooling: Pooling) -> _Made:
    """Areas at which float16 overflows, and up to the largest canvas."""
    height, width = (min(side, _LONGEST_SIDE) for side in pooling.canvas)
    for area in (_FLOAT16_LIMIT, _FLOAT16_LIMIT + 16, 2.0**16, 70_000.0, 100_000.0, 150_000.0, 190_000.0):
        yield f"area of {area:.0f} px²", (0, 0, area / 256, 256)
    for share in (0.3, 0.6, 1.0):
        box = (0, 0, width * share, height * share)
        yield f"area of {box[2] * box[3]:.0f} px², a part of the canvas", box
    yield "more than the canvas", (-width / 2, -height / 3, 1.5 * width, 1.25 * height)


def _degenerate(height: float, width: float) -> _Made:
    for x, y in ((width / 3, height / 3), (16, 16)):
        yield "no width", (x, y, x, y + 24)
        yield "no height", (x, y, x + 24, y)
        yield "a point", (x, y, x, y)
    yield "a point in the map's corner", (width, height, width, height)
    yield "less than a pixel", (width / 2, height / 2, width / 2 + 1e-3, height / 2 + 1e-2)


def _flipped(width: float) -> _Made:
    yield "flipped along x", (60, 10, 20, 40)
    yield "flipped along y", (10.5, 60, 50, 20)
    yield "flipped along x and y", (40, 50, 10, 20)
    yield "flipped along x and y, an area of a higher level", (width, 420, 0, 3)


def _at_border(height: float, width: float) -> _Made:
    yield "the whole map", (0, 0, width, height)
    yield "in the lower right corner", (width - 24, height - 24, width, height)
    for name, x, y in (("left", -1, 0), ("right", 1, 0), ("top", 0, -1), ("bottom", 0, 1)):
        box = np.array([20.3, 17.7, 70.9, 58.1])
        across = np.array([x * width / 2, y * height / 2] * 2)
        yield f"across the {name} border", tuple(box + across)
        yield f"beyond the {name} border", tuple(box + 4 * across)


def _sampled_at_border(pooling: Pooling) -> _Made:
    """The first sample at -1, or the last at the far border, exactly and one float32 outside.

    A bin is as many pixels of the finest map wide as it has samples, so that every position is exact.
    """
    scale = pooling.scales[0]
    if math.frexp(scale)[0] != 0.5:
        return
    step = pooling.sampling_ratio or 2
    shift = 0.5 if pooling.half_pixel else 0.0
    for axis, name in ((1, "x"), (0, "y")):
        length, size = step * pooling.output_size[axis], pooling.maps[0][axis]
        near, far = -1.5 + shift, size - length + 0.5 + shift
        outside = float(np.spacing(np.float32(size + 2)))
        for kind, begin, end in (
            ("the first sample at -1", near, near + length),
            ("the first sample beyond -1", float(np.nextafter(np.float32(near), np.float32(-2))), near + length),
            ("the last sample at the border", far, far + length),
            ("the last sample beyond the border", far + outside, far + length + outside),
        ):
            box = (begin, 1 + shift, end, 2 + shift) if axis == 1 else (1 + shift, begin, 2 + shift, end)
            yield f"{kind} along {name}", tuple(side / scale for side in box)


def _drawn(height: float, width: float) -> _Made:
    random = np.random.default_rng(3)
    for _ in range(6):
        x, y = random.uniform(0, 0.7, 2) * (width, height)
        wide, high = np.exp(random.uniform(np.log(2), np.log(300), 2))
        yield "any", (x, y, x + wide, y + high)
    for side in (8.0, 32.0, 112.0):
        yield "whole pixels of the map", (side / 2, 0, 1.5 * side, side)
