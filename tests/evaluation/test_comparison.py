"""Two sides on the same images: their figures, the interval of the difference, and the classes."""

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_sets import CATEGORIES, annotated, data_set, document, guesses, persons, written

from edgemask.errors import DatasetError, UsageError
from edgemask.evaluation import Interval, coco_metrics, compare_coco, read_truth
from edgemask.evaluation.resampling import RESAMPLED

RNG = np.random.default_rng


def two_sides(images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A candidate that loses some of what the reference finds."""
    truth = data_set(RNG(0), images=images)
    reference = guesses(RNG(1), truth)
    kept = RNG(2).random(len(reference)) < 0.8
    return truth, reference, [result for result, keep in zip(reference, kept, strict=True) if keep]


def test_each_side_has_the_figures_that_it_has_alone(tmp_path: Path) -> None:
    truth, reference, candidate = two_sides()
    path = written(truth, tmp_path)
    compared = compare_coco(path, reference, candidate, max_detections=7, image_ids=[1, 2, 3, 12], resamples=10)
    assert list(compared) == ["boxes", "masks"]
    for task, both in compared.items():
        for metrics, results in ((both.reference, reference), (both.candidate, candidate)):
            alone = coco_metrics(path, results, tasks=[task], max_detections=7, image_ids=[1, 2, 3, 12])[task]
            assert dataclasses.astuple(metrics) == pytest.approx(dataclasses.astuple(alone), nan_ok=True)
        assert both.images == 4
        assert both.reference.ap != both.candidate.ap
    assert compare_coco(read_truth(path), reference, candidate, tasks=["boxes"], resamples=10) == compare_coco(
        truth, reference, candidate, tasks=["boxes"], resamples=10
    )


def test_what_is_given_stays_as_it_was() -> None:
    given = two_sides()
    before = copy.deepcopy(given)
    compare_coco(*given, resamples=5)
    assert given == before
    json.dumps(given)


def test_equal_sides_differ_by_nothing() -> None:
    """Also in another order of results; draws of its own for each side would show here."""
    truth, reference, _ = two_sides()
    reference = guesses(RNG(4), truth, tied=False)
    for candidate in (reference, reference[::-1]):
        intervals = compare_coco(truth, reference, candidate, resamples=100)["masks"].intervals
        assert intervals == dict.fromkeys(RESAMPLED, Interval(0.0, 0.0))


def test_intervals_lie_around_the_difference_and_follow_the_seed() -> None:
    truth, reference, candidate = two_sides(30)
    both = compare_coco(truth, reference, candidate, tasks=["boxes"], resamples=300)["boxes"]
    for name, interval in both.intervals.items():
        difference = getattr(both.candidate, name) - getattr(both.reference, name)
        assert interval.low < difference < interval.high < 0
    again, other = (
        compare_coco(truth, reference, candidate, tasks=["boxes"], resamples=300, seed=seed)["boxes"].intervals
        for seed in (0, 1)
    )
    assert again == both.intervals != other
    narrow = compare_coco(truth, reference, candidate, tasks=["boxes"], resamples=300, confidence=0.5)["boxes"]
    assert both.intervals["ap"].low < narrow.intervals["ap"].low < narrow.intervals["ap"].high


def test_one_image_has_no_interval() -> None:
    """Every resample of it is itself: a width of nothing would look like certainty."""
    truth, reference, candidate = two_sides()
    both = compare_coco(truth, reference, candidate, tasks=["boxes"], image_ids=[3])["boxes"]
    assert both.images == 1
    assert not math.isnan(both.reference.ap)
    assert all(math.isnan(limit) for one in both.intervals.values() for limit in (one.low, one.high))


def test_without_objects_there_is_no_interval_and_empty_results_are_zero() -> None:
    truth, reference, _ = two_sides()
    nothing = compare_coco({**truth, "annotations": []}, reference, [], resamples=5)["masks"]
    assert all(math.isnan(limit) for one in nothing.intervals.values() for limit in (one.low, one.high))
    assert [(entry.objects, math.isnan(entry.candidate)) for entry in nothing.classes] == [(0, True)] * 3
    empty = compare_coco(truth, reference, [], resamples=50)["masks"]
    assert empty.candidate.ap == 0
    assert empty.intervals["ap"].low < empty.intervals["ap"].high < 0


def test_classes_say_where_the_candidate_is_worse() -> None:
    boxes = [(10 * index, 20, 9, 9) for index in range(6)]
    crowd = annotated((0, 60, 50, 50), 1, CATEGORIES[0], iscrowd=1)
    truth = document([crowd, *(annotated(box, 1, CATEGORIES[n % 2]) for n, box in enumerate(boxes))], [1, 2])
    del truth["categories"][1]["name"]
    reference = [{**entry, "score": 0.9} for entry in truth["annotations"][1:]]
    candidate = [{**entry, "bbox": [0, 0, 5, 5]} if entry["category_id"] == 11 else entry for entry in reference]
    rows = compare_coco(truth, reference, candidate, tasks=["boxes"], resamples=5)["boxes"].classes
    assert [(row.category_id, row.name, row.objects) for row in rows] == [
        (7, "name 7", 3),
        (11, "category_11", 3),
        (90, "name 90", 0),
    ]
    assert [row.reference for row in rows] == pytest.approx([1, 1, math.nan], nan_ok=True)
    assert [row.candidate for row in rows] == pytest.approx([1, 0, math.nan], nan_ok=True)


def test_keypoints() -> None:
    truth, reference = persons(RNG(0), 6, 5)
    _, candidate = persons(RNG(0), 6, 9)
    both = compare_coco(truth, reference, candidate, tasks=["keypoints"], max_detections=20, resamples=100)["keypoints"]
    assert both.reference.ap > both.candidate.ap > 0
    assert both.intervals["ap"].low < both.candidate.ap - both.reference.ap < both.intervals["ap"].high
    assert [entry.objects for entry in both.classes] == [18, 0, 0]  # of 20: one is a crowd, one has no visible point


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"resamples": 0}, "resamples: expected a whole number from 1"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"confidence": 1.5}, "confidence: expected a number from 0 to 1"),
        ({"confidence": math.nan}, "confidence"),
        ({"tasks": ["semantic"]}, "task: expected boxes or masks or keypoints"),
        ({"image_ids": []}, "expected at least one image"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_numbers_that_cannot_be_meant(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare_coco(*two_sides(2), **more)


def test_both_sides_are_checked() -> None:
    truth, reference, candidate = two_sides(3)
    stranger = [{**reference[0], "image_id": 99}]
    for sides in ((stranger, candidate), (reference, stranger)):
        with pytest.raises(DatasetError, match=r"does not list the images \[99\]"):
            compare_coco(truth, *sides)
