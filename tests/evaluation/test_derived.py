"""AP against the reference: its own detections as annotations."""

from typing import Any

import numpy as np
import pytest

from edgemask.detections import Detections
from edgemask.errors import DatasetError, UsageError
from edgemask.evaluation import coco_metrics, compare_coco, truth_from

SIZE = (90, 130)
NAMES = {18: "dog", 90: "brush"}
DISC = (np.hypot(*np.mgrid[-1:1:28j, -1:1:28j]) < 0.95).astype(np.float32)


def found(rng: np.random.Generator, count: int, **changes: Any) -> Detections:
    corners = rng.uniform(0, [80, 50], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (count, 2))], 1).astype(np.float32)
    points = np.concatenate(
        [rng.uniform(boxes[:, None, :2], boxes[:, None, 2:], (count, 5, 2)), np.ones((count, 5, 1))], 2
    )
    fields: dict[str, Any] = {
        "boxes": boxes,
        "scores": np.sort(rng.random(count).astype(np.float32))[::-1],
        "labels": rng.integers(1, 3, count),
        "masks": np.repeat(DISC[None], count, axis=0),
        "keypoints": points.astype(np.float32),
        "keypoint_scores": np.ones((count, 5), np.float32),
        "image_size": SIZE,
    }
    return Detections(**(fields | changes))


def results_of(images: dict[int, Detections]) -> dict[int, list[dict[str, Any]]]:
    return {image: detections.to_coco(image, tuple(NAMES)) for image, detections in images.items()}


def test_what_becomes_an_object() -> None:
    detections = found(np.random.default_rng(0), 12)
    results = results_of({4: detections})[4]
    threshold = results[6]["score"]
    document = truth_from([(4, SIZE, results), (9, (30, 40), [])], NAMES, score_threshold=threshold)
    assert document["images"] == [{"id": 4, "height": 90, "width": 130}, {"id": 9, "height": 30, "width": 40}]
    assert document["categories"] == [{"id": 18, "name": "dog"}, {"id": 90, "name": "brush"}]
    objects = document["annotations"]
    assert [entry["id"] for entry in objects] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry["area"] for entry in objects] == detections.bitmaps()[:7].sum((1, 2)).tolist()
    assert [entry["num_keypoints"] for entry in objects] == [5] * 7
    assert [entry["category_id"] for entry in objects] == [result["category_id"] for result in results[:7]]
    assert not any("score" in entry for entry in objects)


def test_boxes_have_their_own_area() -> None:
    detections = found(np.random.default_rng(1), 3, masks=None, keypoints=None, keypoint_scores=None)
    document = truth_from([(1, SIZE, results_of({1: detections})[1])], NAMES, score_threshold=0)
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    assert [entry["area"] for entry in document["annotations"]] == pytest.approx(sides.prod(1).tolist())
    assert "num_keypoints" not in document["annotations"][0]


def test_the_reference_is_perfect_against_itself_and_another_is_not() -> None:
    rng = np.random.default_rng(2)
    images = {image: found(rng, 15) for image in range(1, 5)}
    by_image = results_of(images)
    given = ((image, SIZE, results) for image, results in by_image.items())  # taken one by one
    document = truth_from(given, NAMES, score_threshold=0.5)
    results = [result for image in by_image.values() for result in image]
    tasks = ("boxes", "masks", "keypoints")
    assert all(metrics.ap == pytest.approx(1) for metrics in coco_metrics(document, results, tasks=tasks).values())
    worse = [{**result, "category_id": 18} if number % 5 == 0 else result for number, result in enumerate(results)]
    compared = compare_coco(document, results, worse, tasks=tasks, resamples=50)
    for task in tasks:
        assert compared[task].reference.ap == pytest.approx(1)
        assert 0.5 < compared[task].candidate.ap < 0.97
        assert -1 <= compared[task].intervals["ap"].low < compared[task].intervals["ap"].high < 0


def test_what_does_not_fit_is_refused() -> None:
    results = results_of({1: found(np.random.default_rng(3), 2)})[1]

    def made(images: Any, names: Any = NAMES) -> dict[str, Any]:
        return truth_from(images, names, score_threshold=0)

    with pytest.raises(UsageError, match="results: expected results of image 2, got one of image 1"):
        made([(2, SIZE, results)])
    with pytest.raises(UsageError, match="categories: expected all of the results', got none for"):
        made([(1, SIZE, results)], {5: "cat"})
    with pytest.raises(UsageError, match="expected bbox in each"):
        made([(1, SIZE, [{key: value for key, value in results[0].items() if key != "bbox"}])])
    with pytest.raises(DatasetError, match="the reference's detections: image number 2 has the id 1 of another"):
        made([(1, SIZE, results), (1, SIZE, results)])
    with pytest.raises(DatasetError, match="lists no image"):
        made([])
    with pytest.raises(DatasetError, match="lists no category"):
        made([(1, SIZE, [])], {})
