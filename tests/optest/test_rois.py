"""The regions are at the edges that they are said to be at."""

import dataclasses

import numpy as np
import pytest

from edgemask.ops import LEVEL_TOLERANCE, level_thresholds, multi_scale_roi_align, roi_levels
from edgemask.optest.rois import Float32, Pooling, regions

SCALES = (0.25, 0.125, 0.0625, 0.03125)
POOLING = Pooling(
    output_size=(7, 7),
    sampling_ratio=2,
    half_pixel=False,
    scales=SCALES,
    canonical_scale=224.0,
    canonical_level=4,
    maps=((32, 40), (16, 20), (8, 10), (4, 5)),
    canvas=(800, 1088),
)
EDGES = level_thresholds(SCALES, 224.0, 4)


def by_kind(pooling: Pooling) -> dict[str, Float32]:
    kinds, boxes = regions(pooling)
    assert boxes.dtype == np.float32
    return {kind: boxes[[other == kind for other in kinds]] for kind in kinds}


@pytest.mark.parametrize("suffix", ["", ", upright"])
def test_areas_are_one_float_around_every_edge(suffix: str) -> None:
    found = by_kind(POOLING)
    for level in (1, 2, 3):
        kinds = ("one float32 below level {}", "where level {} begins", "one float32 above the begin of level {}")
        boxes = np.concatenate([found[f"area {kind.format(level)}{suffix}"] for kind in kinds])
        assert roi_levels(boxes, EDGES).tolist() == [level - 1, level, level]
        without_tolerance = EDGES / LEVEL_TOLERANCE
        assert roi_levels(boxes[1:2], without_tolerance).tolist() == [level - 1]


def test_some_areas_overflow_in_float16_and_are_not_of_the_last_level() -> None:
    boxes = np.concatenate([boxes for kind, boxes in by_kind(POOLING).items() if kind.startswith("area of")])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overflows = area >= 65_520  # where float16 rounds up to infinity
    assert (roi_levels(boxes, EDGES)[overflows] < 3).sum() >= 4
    assert area.max() == 800 * 1088
    assert (area == 65_504).any()


@pytest.mark.parametrize("half_pixel", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_samples_lie_on_the_border_and_one_float_beyond(ratio: int, half_pixel: bool) -> None:
    pooling = dataclasses.replace(POOLING, sampling_ratio=ratio, half_pixel=half_pixel)
    found = by_kind(pooling)
    features = [np.ones((1, 1, *size), np.float32) for size in POOLING.maps]
    for axis in "xy":
        for inside, outside, place in (
            ("the first sample at -1", "the first sample beyond -1", 0),
            ("the last sample at the border", "the last sample beyond the border", -1),
        ):
            boxes = np.concatenate([found[f"{kind} along {axis}"] for kind in (inside, outside)])
            pooled = multi_scale_roi_align(
                features,
                np.pad(boxes, ((0, 0), (1, 0))),
                output_size=(7, 7),
                sampling_ratio=ratio,
                spatial_scales=SCALES,
                coordinate_transformation_mode="half_pixel" if half_pixel else "output_half_pixel",
            )
            bins = pooled[:, 0, 3, :] if axis == "x" else pooled[:, 0, :, 3]
            samples = ratio or 2
            assert bins[0, place] == 1.0
            assert bins[1, place] == pytest.approx(1 - 1 / samples, abs=1e-6)


def test_what_is_not_defined_is_left_out() -> None:
    pooling = dataclasses.replace(POOLING, sampling_ratio=0, half_pixel=True, scales=(1 / 12,), maps=((8, 9),))
    undefined = by_kind(pooling)
    assert not any("flipped" in kind or "level" in kind or "sample" in kind for kind in undefined)
    assert len(by_kind(POOLING)["flipped along x"]) == 1
