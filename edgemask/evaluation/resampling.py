"""COCO metrics of many resampled sets of images at once, from matches that were found once.

An image that is drawn w times counts w times: nothing is matched or sorted again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.evaluation.matches import Matches

RESAMPLED = ("ap", "ap50", "ap75", "ar")
_AT_50, _AT_75 = 0, 5  # among COCO's thresholds 0.50, 0.55 ... 0.95
_LEVELS = np.linspace(0.0, 1.0, 101)  # of recall, at which COCO reads the precision
# Numbers in an array at a time: few enough for the cache, many enough to make numpy's calls worth it.
_AT_A_TIME = 100_000
_WEIGHTS_AT_A_TIME = 4_000_000

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a difference may lie: the limits of a confidence interval, both NaN where there is none."""

    low: float
    high: float


def paired_intervals(
    sides: Sequence[Mapping[int, Matches]],
    objects: Mapping[int, IntArray],
    *,
    resamples: int,
    seed: int,
    confidence: float,
) -> dict[str, Interval]:
    """Bootstraps the second side's metrics minus the first one's over images, the same draws for both.

    Args:
        sides: two, of each the matches by category, as `matches_of` gives them.
        objects: what `objects_of` gave.
        resamples: sets of images drawn; those without an object play no part.
        seed: of the draws.
        confidence: share of the resampled differences inside the interval.

    Returns:
        The percentile intervals of `RESAMPLED`; NaN where there are no objects, or a single image, whose every
        resample is itself.
    """
    images = len(next(iter(objects.values()), ()))
    differences = np.zeros((0, len(RESAMPLED)))
    if images > 1:
        drawn = [weighted_metrics(sides, objects, weights) for weights in draws(images, resamples, seed)]
        metrics = np.concatenate(drawn, axis=1)
        differences = metrics[1] - metrics[0]
        differences = differences[~np.isnan(differences).any(axis=1)]
    if not len(differences):
        return dict.fromkeys(RESAMPLED, Interval(float("nan"), float("nan")))
    limits = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: Interval(*column) for name, column in zip(RESAMPLED, limits.T.tolist(), strict=True)}


def draws(images: int, resamples: int, seed: int) -> Iterator[IntArray]:
    """Draws as many images with replacement as there are, again and again; how often each one was drawn.

    Yields:
        int64 [B, images], B adding up to `resamples`; the same ones for the same numbers.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _WEIGHTS_AT_A_TIME // images)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)


def weighted_metrics(
    sides: Sequence[Mapping[int, Matches]], objects: Mapping[int, IntArray], weights: IntArray
) -> FloatArray:
    """Counts the metrics of each side on each weighted set of images.

    Args:
        sides: the matches of each side by category, as `matches_of` gives them.
        objects: what `objects_of` gave.
        weights: int64 [B, images], how often each image counts; the same for all sides.

    Returns:
        float64 [sides, B, 4] as `RESAMPLED` has them, over all areas; NaN in a set without an object. A category
        without one in a set is left out of its mean, as COCO does.
    """
    thresholds = len(_example(sides).hits)
    total = np.zeros((len(sides), 2, len(weights), thresholds))
    present = np.zeros(len(weights))
    for category, per_image in objects.items():
        if not per_image.any():
            continue
        largest = max(int((weights @ per_image).max()), *(len(side[category].images) for side in sides))
        step = max(1, _AT_A_TIME // largest)
        for start in range(0, len(weights), step):
            rows = slice(start, start + step)
            numbers = weights[rows] @ per_image
            reached = _reached(numbers)
            present[rows] += numbers > 0
            for sums, side in zip(total, sides, strict=True):
                _add(sums[:, rows], side[category], weights[rows], numbers, reached)
    with np.errstate(invalid="ignore"):
        precision, recall = (total / present[:, None]).transpose(1, 0, 2, 3)
    columns = precision.mean(-1), precision[..., _AT_50], precision[..., _AT_75], recall.mean(-1)
    return np.stack(columns, axis=-1)


def _example(sides: Sequence[Mapping[int, Matches]]) -> Matches:
    return next(iter(sides[0].values()))


def _reached(numbers: IntArray) -> IntArray:
    """int64 [B, n + 1]: how many of the levels are reached when 0, 1 ... n of a set's objects are found."""
    found = np.arange(numbers.max() + 1)
    return np.searchsorted(_LEVELS, found / np.maximum(numbers, 1)[:, None], side="right")


def _add(sums: FloatArray, matches: Matches, weights: IntArray, numbers: IntArray, reached: IntArray) -> None:
    """Adds the average precision and the recall of a category to float64 [2, B, T]."""
    own = weights[:, matches.images]
    offsets = reached.shape[1] * np.arange(len(weights))[:, None]
    before: NDArray[np.bool_] | None = None
    for threshold, (hits, counted) in enumerate(zip(matches.hits, matches.counted, strict=True)):
        if not len(hits):
            continue
        if before is None or not np.array_equal(before, counted):
            seen = np.cumsum(own if counted.all() else own * counted, axis=1)
            before = counted
        found = np.cumsum(own[:, hits], axis=1)
        precision = found / np.maximum(seen[:, hits], 1)
        # COCO's: at each recall the best precision from there on.
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        levels = np.diff(reached.ravel()[found + offsets], axis=1, prepend=0)
        sums[0, :, threshold] += np.einsum("ij,ij->i", best, levels) / len(_LEVELS)
        sums[1, :, threshold] += found[:, -1] / np.maximum(numbers, 1)
