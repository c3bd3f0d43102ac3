"""The bootstrap counts what COCO's library counts, and its intervals cover what they should."""

import math
from typing import Any

import numpy as np
import pytest
from coco_sets import data_set, guesses, persons
from numpy.typing import NDArray

from edgemask.evaluation.matches import Matches, matches_of, objects_of
from edgemask.evaluation.metrics import evaluate, prepare, summary
from edgemask.evaluation.resampling import RESAMPLED, draws, paired_intervals, weighted_metrics

RNG = np.random.default_rng


def library(truth: dict[str, Any], results: list[dict[str, Any]], task: str, limit: int) -> tuple[Any, list[float]]:
    evaluation = evaluate(prepare(truth, [task], None), results, task, limit)
    metrics = summary(evaluation)
    return evaluation, [getattr(metrics, name) for name in RESAMPLED]


@pytest.mark.parametrize("task", ["boxes", "masks", "keypoints"])
@pytest.mark.parametrize(("crowded", "limit"), [(0, 100), (150, 100), (150, 200), (0, 3)])
def test_once_each_gives_the_library_s_figures(task: str, crowded: int, limit: int) -> None:
    """With crowds, objects that play no part, tied scores and tied IoUs."""
    truth = data_set(RNG(limit), crowded=crowded)
    results = guesses(RNG(1), truth)
    if task == "keypoints":
        truth, results = persons(RNG(limit + crowded), 9, 8)
    evaluation, expected = library(truth, results, task, limit)
    ones = np.ones((1, len(truth["images"])), np.int64)
    counted = weighted_metrics([matches_of(evaluation)], objects_of(evaluation), ones)
    assert counted.shape == (1, 1, 4)
    assert counted[0, 0].tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert 0.02 < expected[0] < 0.98


def test_areas_that_coco_leaves_out_play_no_part() -> None:
    """Boxes turned inside out are of no area, and objects beyond 1e10 pixels of none that is scored."""
    truth = data_set(RNG(1))
    truth["annotations"][3]["area"] = 2e10
    results = guesses(RNG(1), truth)
    before = library(truth, results, "boxes", 100)[1]
    x, y, width, height = results[0]["bbox"]
    results += [{**results[0], "bbox": [x + width, y, -width, height], "score": 0.99}] * 3
    evaluation, expected = library(truth, results, "boxes", 100)
    assert expected == pytest.approx(before)
    counted = weighted_metrics([matches_of(evaluation)], objects_of(evaluation), np.ones((1, 6), np.int64))
    assert counted[0, 0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.data
def test_once_each_gives_the_library_s_figures_of_photographs(shared_data: Any) -> None:
    scene = prepare(shared_data / "coco" / "annotations" / "instances_val.json", ["boxes"], None)
    rng = RNG(0)
    results = [
        {**entry, "bbox": (np.array(entry["bbox"]) + rng.normal(0, 4, 4)).tolist(), "score": float(rng.random())}
        for entry in scene.document["annotations"]
    ]
    evaluation = evaluate(scene, results, "boxes", 100)
    expected = [getattr(summary(evaluation), name) for name in RESAMPLED]
    ones = np.ones((3, len(scene.image_ids)), np.int64)
    for counted in weighted_metrics([matches_of(evaluation)], objects_of(evaluation), ones)[0]:
        assert counted.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_twice_counts_as_two_images(seed: int) -> None:
    """The library scores the copies of an image, and leaves out what was not drawn."""
    rng = RNG(seed)
    truth = data_set(rng, images=7)
    results = guesses(rng, truth, tied=False)
    evaluation, _ = library(truth, results, "masks", 100)
    weights = rng.multinomial(7, [1 / 7] * 7, size=12)
    counted = weighted_metrics([matches_of(evaluation)], objects_of(evaluation), weights)[0]
    for drawn, figures in zip(weights, counted, strict=True):
        copies = {image: [10 * image + copy for copy in range(drawn[image - 1])] for image in range(1, 8)}
        repeated = {
            "images": [{**entry, "id": one} for entry in truth["images"] for one in copies[entry["id"]]],
            "categories": truth["categories"],
            "annotations": [
                {**entry, "id": f"{entry['id']} {one}", "image_id": one}
                for entry in truth["annotations"]
                for one in copies[entry["image_id"]]
            ],
        }
        found = [{**entry, "image_id": one} for entry in results for one in copies[entry["image_id"]]]
        assert figures.tolist() == pytest.approx(library(repeated, found, "masks", 100)[1], abs=1e-12, nan_ok=True)


def test_sets_without_an_object_have_no_figures() -> None:
    truth = data_set(RNG(0), images=3)
    evaluation, _ = library(truth, guesses(RNG(0), truth), "boxes", 100)
    counted = weighted_metrics([matches_of(evaluation)], objects_of(evaluation), np.array([[0, 0, 3], [0, 1, 2]]))
    assert np.isnan(counted[0]).tolist() == [[True] * 4, [False] * 4]


def test_draws_are_of_as_many_images_and_the_same_for_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    (drawn,) = draws(30, 2000, seed=5)
    assert (drawn.shape, drawn.dtype) == ((2000, 30), np.int64)
    assert (drawn.sum(1) == 30).all()
    assert drawn.mean(0) == pytest.approx(1, abs=0.15)
    assert drawn.var() == pytest.approx(29 / 30, abs=0.05)  # of a multinomial
    monkeypatch.setattr("edgemask.evaluation.resampling._WEIGHTS_AT_A_TIME", 3000)
    parts = list(draws(30, 2000, seed=5))
    assert len(parts) == 20
    np.testing.assert_array_equal(np.concatenate(parts), drawn)
    assert not np.array_equal(next(draws(30, 100, seed=6)), drawn[:100])


def test_how_much_is_counted_at_a_time_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = data_set(RNG(0))
    evaluation, _ = library(truth, guesses(RNG(0), truth), "boxes", 100)
    sides, objects = [matches_of(evaluation)], objects_of(evaluation)
    (weights,) = draws(len(truth["images"]), 50, seed=0)
    expected = weighted_metrics(sides, objects, weights)
    monkeypatch.setattr("edgemask.evaluation.resampling._AT_A_TIME", 60)
    np.testing.assert_array_equal(weighted_metrics(sides, objects, weights), expected)


# A made-up population of images with one category: each detection reaches so many of the ten IoU thresholds.
Found = tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.int64]]


def population(rng: np.random.Generator, images: int) -> tuple[NDArray[np.int64], Found, Found]:
    """Objects by image; images, scores and thresholds reached of the reference, and of a candidate that loses some."""
    objects = rng.integers(1, 8, images)
    hard = rng.beta(3, 1.5, images)  # images differ much, which both sides feel alike
    image = np.repeat(np.arange(images), objects)
    score = rng.beta(4, 1, len(image))
    reached = np.where(rng.random(len(image)) < hard[image], rng.integers(4, 11, len(image)), 0)
    lost = rng.random(len(image)) < 0.08
    return objects, (image, score, reached), (image, score, np.where(lost, 0, reached))


def matches(found: Found, images: NDArray[np.intp]) -> dict[int, Matches]:
    """The matches on some images, which are numbered by their position among these."""
    position = np.full(int(found[0].max()) + 1, -1)
    position[images] = np.arange(len(images))
    kept = np.flatnonzero(position[found[0]] >= 0)
    order = kept[np.argsort(-found[1][kept], kind="stable")]
    hits = tuple(np.flatnonzero(found[2][order] > threshold) for threshold in range(10))
    return {1: Matches(position[found[0][order]], np.ones((10, len(order)), np.bool_), hits)}


def test_intervals_cover_the_true_difference() -> None:
    rng = RNG(0)
    objects, *sides = population(rng, 6000)
    everything = np.arange(6000)
    whole = weighted_metrics([matches(side, everything) for side in sides], {1: objects}, np.ones((1, 6000), np.int64))
    truth = dict(zip(RESAMPLED, (whole[1] - whole[0])[0].tolist(), strict=True))
    assert -0.1 < truth["ap"] < -0.03
    covered = dict.fromkeys(RESAMPLED, 0)
    widths = []
    for sample in everything.reshape(100, 60):
        chosen = [matches(side, sample) for side in sides]
        intervals = paired_intervals(chosen, {1: objects[sample]}, resamples=200, seed=0, confidence=0.95)
        widths.append(intervals["ap"].high - intervals["ap"].low)
        for name, interval in intervals.items():
            covered[name] += interval.low <= truth[name] <= interval.high
    # 95 are expected of a perfect interval; a percentile bootstrap of 60 images falls a little short.
    assert {name: count for name, count in covered.items() if not 87 <= count <= 99} == {}
    assert np.mean(widths) < 0.08


def test_pairs_make_intervals_narrow() -> None:
    """Draws of its own for each side would tell the images' difficulty as a difference of the sides."""
    objects, *sides = population(RNG(1), 60)
    chosen = [matches(side, np.arange(60)) for side in sides]
    paired = paired_intervals(chosen, {1: objects}, resamples=400, seed=0, confidence=0.95)["ap"]
    one, other = (weighted_metrics(chosen, {1: objects}, next(draws(60, 400, seed=seed))) for seed in (1, 2))
    low, high = np.quantile(other[1, :, 0] - one[0, :, 0], [0.025, 0.975])
    assert paired.high - paired.low < (high - low) / 2


def test_more_confidence_is_wider() -> None:
    objects, *sides = population(RNG(2), 40)
    chosen = [matches(side, np.arange(40)) for side in sides]
    widths = [
        (limits := paired_intervals(chosen, {1: objects}, resamples=300, seed=0, confidence=c)["ap"]).high - limits.low
        for c in (0.5, 0.9, 0.99)
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[1] / 2


def test_a_single_image_and_none_have_no_interval() -> None:
    objects, *sides = population(RNG(3), 5)
    for images in ([2], []):
        chosen = [matches(side, np.array(images, np.intp)) for side in sides]
        for given in ({1: objects[images]}, {}):
            intervals = paired_intervals(chosen, given, resamples=20, seed=0, confidence=0.95)
            assert list(intervals) == list(RESAMPLED)
            assert all(math.isnan(limit) for one in intervals.values() for limit in (one.low, one.high))
