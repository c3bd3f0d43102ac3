"""The definitions of the two ops, on numbers that can be worked out by hand, and the levels of
torchvision."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.errors import UsageError
from edgemask.ops import batched_nms, floor32, level_thresholds, multi_scale_roi_align, roi_levels

SCALES = [0.25, 0.125, 0.0625, 0.03125]
# A map whose value is its column number: a pooled bin is the mean x of its samples.
RAMP = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 1, 8, 8))


def pool(box: list[float], **changes: Any) -> list[float]:
    """One row of two bins over the ramp."""
    options = {"output_size": (1, 2), "sampling_ratio": 1, "spatial_scales": [1.0], **changes}
    pooled = multi_scale_roi_align([RAMP], np.array([[0, *box]]), **options)
    return [float(value) for value in pooled[0, 0, 0]]


def select(boxes: Any, scores: Any, **changes: Any) -> list[list[int]]:
    options = {"iou_threshold": 0.5, "score_threshold": 0.0, "max_per_class": 10, **changes}
    return [[int(i) for i in row] for row in batched_nms(np.array([boxes]), np.array([scores]), **options)]


@pytest.mark.parametrize("value", [0.3, 0.5, 0.6, 0.7, 1.0, 0.0, 1 / 3, -0.1, 1e-50])
def test_floor32(value: float) -> None:
    result = floor32(value)
    assert result == np.float32(result)
    # As Python floats: numpy would round the value to float32 before it compares.
    assert result <= value < float(np.nextafter(np.float32(result), np.float32(np.inf)))
    assert floor32(result) == result


def test_floor32_differs_from_rounding() -> None:
    assert floor32(0.6) < 0.6 < float(np.float32(0.6))


@pytest.mark.parametrize(
    ("box", "changes", "expected"),
    [
        ([2, 2, 6, 4], {}, [3, 5]),  # bins 2 wide from x = 2: centres 3 and 5
        ([2, 2, 6, 4], {"coordinate_transformation_mode": "half_pixel"}, [2.5, 4.5]),
        ([2, 2, 6, 4], {"sampling_ratio": 0}, [3, 5]),  # 2 samples each: 2.5, 3.5 and 4.5, 5.5
        ([2, 2, 2, 4], {}, [2.25, 2.75]),  # no width: one pixel wide
        ([4, 2, 2, 4], {}, [4.25, 4.75]),  # flipped: one pixel wide from x1
        ([2.5, 2, 2.5, 4], {"coordinate_transformation_mode": "half_pixel"}, [2, 2]),  # a line
        ([2, 2, 2, 4], {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 0}, [0, 0]),
        ([6, 2, 2, 4], {"coordinate_transformation_mode": "half_pixel"}, [4.5, 2.5]),  # backwards
        ([-3, 2, 1, 4], {}, [0, 0]),  # -2 is out, 0 is the first column
        ([6, 2, 10, 4], {}, [7, 0]),  # 7 is the last column, 9 is out
        ([7, 2, 9, 4], {}, [7, 0]),  # 7.5 takes the border's value, 8.5 is out
        ([6.5, 2, 8.5, 4], {}, [7, 7]),  # 8 = the width: the border's value still
        ([20, 20, 24, 24], {}, [0, 0]),
        ([6, 2, 10, 4], {"sampling_ratio": 2}, [6.75, 0]),  # 6.5 and the border at 7; 8.5 and 9.5 are out
        ([4, 4, 12, 8], {"spatial_scales": [0.5]}, [3, 5]),
        ([1, 2, 4, 4], {"spatial_scales": [2.0]}, [3.5, 6.5]),
    ],
)
def test_roi_align_by_hand(box: list[float], changes: dict[str, Any], expected: list[float]) -> None:
    assert pool(box, **changes) == expected


def test_roi_takes_its_image_and_level() -> None:
    features = [
        np.full((2, 3, 64 >> level, 64 >> level), [[[[10.0 * level]]], [[[10.0 * level + 1]]]]) for level in range(4)
    ]
    sides = [111, 112, 223, 224, 448, 2000]
    rois = np.array([[image, 0, 0, side, side] for image in (0, 1) for side in sides], np.float32)
    pooled = multi_scale_roi_align(features, rois, output_size=(7, 7), sampling_ratio=2, spatial_scales=SCALES)
    assert pooled.shape == (12, 3, 7, 7)
    # The first bin lies within every map.
    assert pooled[:, 2, 0, 0].tolist() == [0, 10, 10, 20, 30, 30, 1, 11, 11, 21, 31, 31]


@pytest.mark.parametrize("batch", [0, 2])
def test_no_roi(batch: int) -> None:
    features = [np.zeros((batch, 3, 8, 8))] * 2
    pooled = multi_scale_roi_align(
        features, np.zeros((0, 5)), output_size=(7, 5), sampling_ratio=2, spatial_scales=[0.5, 0.25]
    )
    assert pooled.shape == (0, 3, 7, 5)
    assert pooled.dtype == np.float32


@pytest.mark.parametrize(("canonical_scale", "canonical_level"), [(224, 4), (112, 4), (96, 3), (300, 5)])
def test_levels_are_those_of_torchvision(canonical_scale: int, canonical_level: int) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops.poolers import LevelMapper

    thresholds = level_thresholds(SCALES, canonical_scale, canonical_level)
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(0, np.log(3000), (100_000, 2)))
    # Half of them so near a threshold that rounding tells: leaving out the tolerance moves it by 1.4e-6.
    near = np.repeat(thresholds, 20_000)[:50_000] * (1 + random.uniform(-4e-6, 4e-6, 50_000))
    sides[:50_000, 1] = near / sides[:50_000, 0]
    boxes = np.concatenate([np.zeros_like(sides), sides], axis=1).astype(np.float32)
    exact = [canonical_scale * 2.0**octave for octave in range(-3, 4)]
    boxes = np.concatenate([boxes, np.array([[5, 9, 5 + side, 9 + side] for side in exact], np.float32)])
    expected = LevelMapper(2, 5, canonical_scale, canonical_level)([torch.from_numpy(boxes)]).numpy()
    levels = roi_levels(boxes, thresholds)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    distance = np.abs(area[:, None].astype(np.float64) / thresholds - 1).min(axis=1)
    assert set(levels.tolist()) == {0, 1, 2, 3}
    assert distance[levels != expected].max(initial=0.0) < 5e-7
    assert (levels[-len(exact) :] == expected[-len(exact) :]).all()


def test_levels_of_degenerate_boxes() -> None:
    boxes = np.array([[0, 0, 0, 500], [500, 0, 0, 500], [500, 500, 0, 0]], np.float32)
    # An area of zero, a negative one, and a positive one of two flips: torchvision squares away the signs
    # too.
    assert roi_levels(boxes, level_thresholds(SCALES, 224, 4)).tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"spatial_scales": [0.25, 0.0625]}, "consecutive powers of two"),
        ({"spatial_scales": [0.125, 0.25]}, "consecutive powers of two"),
        ({"spatial_scales": [0.3, 0.15]}, "consecutive powers of two"),
        ({"spatial_scales": [0.25]}, "2 feature levels and 1 spatial scales"),
        ({"spatial_scales": [0.25, -0.125]}, "positive"),
        ({"output_size": (0, 7)}, r"output_size is \(0, 7\)"),
        ({"sampling_ratio": -1}, "torchvision's -1"),
        ({"canonical_scale": 0.0}, "canonical_scale is 0"),
        ({"canonical_level": -1}, "canonical_level is -1"),
        ({"coordinate_transformation_mode": "asymmetric"}, "'asymmetric'"),
        ({"rois": np.array([[2, 0, 0, 4, 4]])}, "images 2 to 2 of a batch of 2"),
        ({"rois": np.array([[-1, 0, 0, 4, 4]])}, "images -1 to -1"),
    ],
)
def test_roi_align_refuses(changes: dict[str, Any], problem: str) -> None:
    options: dict[str, Any] = {
        "rois": np.array([[0, 0, 0, 4, 4]]),
        "output_size": (7, 7),
        "sampling_ratio": 2,
        "spatial_scales": [0.25, 0.125],
        **changes,
    }
    with pytest.raises(UsageError, match=problem):
        multi_scale_roi_align([np.zeros((2, 1, 8, 8)), np.zeros((2, 1, 4, 4))], **options)


PAIR = [[0, 0, 2, 1], [1, 0, 2, 1]]  # IoU 1/2 exactly


@pytest.mark.parametrize(
    ("boxes", "scores", "changes", "expected"),
    [
        (PAIR, [0.9, 0.8], {}, [0, 1]),  # strictly above the threshold only
        (PAIR, [0.9, 0.8], {"iou_threshold": 0.49}, [0]),
        (PAIR, [0.8, 0.9], {"iou_threshold": 0.49}, [1]),
        (PAIR, [0.9, 0.9], {"iou_threshold": 0.49}, [0]),  # tied: the lower index
        ([[0, 0, 5, 1], [0, 0, 3, 1]], [0.9, 0.8], {"iou_threshold": 0.6}, [0]),  # float32(3/5) > 0.6
        ([[2, 1, 0, 0], [1, 1, 2, 0]], [0.9, 0.8], {"iou_threshold": 0.49}, [0]),  # flipped corners
        ([[0, 0, 2, 2]] * 3, [0.7, 0.9, 0.8], {}, [1]),
        ([[0, 0, 2, 2]] * 3, [0.7, 0.9, 0.8], {"iou_threshold": 1.0}, [1, 2, 0]),
        ([[0, 0, 0, 2]] * 2, [0.7, 0.9], {"iou_threshold": 0.0}, [1, 0]),  # no area, no overlap
        ([[0, 0, 9, 9], [3, 3, 3, 5]], [0.9, 0.8], {"iou_threshold": 0.0}, [0, 1]),
        (PAIR, [0.9, 0.3], {"score_threshold": 0.3}, [0]),  # strictly above this one too
        (PAIR, [float("nan"), 0.3], {}, [1]),
        (PAIR, [-0.5, -0.9], {"score_threshold": -0.7}, [0]),
        (PAIR, [0.3, 0.8], {"max_per_class": 1}, [1]),
        (PAIR, [0.3, 0.8], {"max_per_class": 0}, []),
    ],
)
def test_nms_by_hand(
    boxes: list[list[float]], scores: list[float], changes: dict[str, Any], expected: list[int]
) -> None:
    assert select(boxes, [scores], **changes) == [[0, 0, index] for index in expected]


def test_nms_order_and_classes() -> None:
    boxes = np.array([PAIR, PAIR], np.float32)
    scores = np.array([[[0.1, 0.2], [0.9, 0.8]], [[0.0, 0.5], [0.4, 0.0]]], np.float32)
    kept = batched_nms(boxes, scores, iou_threshold=0.4, score_threshold=0.0, max_per_class=10)
    # A class suppresses only itself; the order is by batch and class before score.
    assert kept.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(("batch", "classes", "count"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_nms_of_nothing(batch: int, classes: int, count: int) -> None:
    boxes: NDArray[Any] = np.zeros((batch, count, 4))
    kept = batched_nms(boxes, np.ones((batch, classes, count)), iou_threshold=0.5, score_threshold=0.0, max_per_class=5)
    assert kept.shape == (0, 3)
    assert kept.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"iou_threshold": 50.0}, "iou_threshold is 50.0"),
        ({"iou_threshold": -0.1}, "iou_threshold is -0.1"),
        ({"iou_threshold": float("nan")}, "iou_threshold is nan"),
        ({"score_threshold": float("nan")}, "score_threshold is not a number"),
        ({"max_per_class": -1}, "max_per_class is -1"),
    ],
)
def test_nms_refuses(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        select(PAIR, [[0.9, 0.8]], **changes)
