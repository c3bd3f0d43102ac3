"""COCO metrics: the arithmetic of pycocotools, whatever the data set looks like."""

import copy
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_sets import CATEGORIES, SIZE, annotated, by_pycocotools, data_set, document, guesses, persons, written

from edgemask.errors import DatasetError, DependencyMissing, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics, read_truth
from edgemask.evaluation.metrics import evaluate, prepare
from edgemask.masks import bitmap_to_rle, rle_to_bitmap, segmentation_to_rle

RNG = np.random.default_rng


def assert_equal(metrics: CocoMetrics, expected: dict[str, float]) -> None:
    assert dataclasses.asdict(metrics) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("task", ["boxes", "masks"])
@pytest.mark.parametrize(("crowded", "limit"), [(0, 100), (150, 100), (150, 200), (0, 3)])
def test_equals_pycocotools(task: str, crowded: int, limit: int, tmp_path: Path) -> None:
    rng = RNG(crowded + limit)
    truth = data_set(rng, crowded=crowded)
    results = guesses(rng, truth)
    metrics = coco_metrics(written(truth, tmp_path), results, tasks=[task], max_detections=limit)[task]
    assert_equal(metrics, by_pycocotools(truth, results, task, limit))
    assert 0.05 < metrics.ap < 0.95
    assert not math.isnan(metrics.ap_small + metrics.ar_small + metrics.ar_medium + metrics.ar_large)


def test_the_document_counts_as_its_file_and_stays_as_it_was(tmp_path: Path) -> None:
    truth = data_set(RNG(0))
    results = guesses(RNG(0), truth)
    path = written(truth, tmp_path)
    read = read_truth(path)
    before = copy.deepcopy((truth, read, results))
    assert coco_metrics(truth, results) == coco_metrics(read, results) == coco_metrics(path, results)
    assert (truth, read, results) == before
    scene = prepare(truth, ["masks"], None)
    entries = copy.deepcopy(scene.document)
    evaluate(scene, results, "masks", 100)
    assert scene.document == entries  # the library leaves its own marks on what it is given


def test_ids_of_any_size() -> None:
    """COCO's code holds ids as floats; image 0 and a time stamp are as good as others."""
    truth = data_set(RNG(5), images=4)
    ids = {1: 0, 2: 20_261_122_103_000_123, 3: -4, 4: 2**31}
    truth["images"] = [{**entry, "id": ids[entry["id"]]} for entry in truth["images"]]
    truth["annotations"] = [{**entry, "image_id": ids[entry["image_id"]]} for entry in truth["annotations"]]
    results = guesses(RNG(5), truth)
    with pytest.raises(DatasetError, match="whole number from -9007199254740992 to 9007199254740992"):
        coco_metrics(truth, results)
    truth = json.loads(json.dumps(truth).replace("20261122103000123", "20261122103000"))
    results = json.loads(json.dumps(results).replace("20261122103000123", "20261122103000"))
    assert_equal(coco_metrics(truth, results, tasks=["boxes"])["boxes"], by_pycocotools(truth, results, "boxes", 100))


def test_more_than_a_hundred_objects_count_where_the_model_gives_them(tmp_path: Path) -> None:
    truth = data_set(RNG(0), images=2, crowded=150)
    perfect = [{**entry, "score": 1.0} for entry in truth["annotations"] if entry["category_id"] == CATEGORIES[2]]
    recalls = [coco_metrics(truth, perfect, tasks=["boxes"], max_detections=d)["boxes"].ar for d in (100, 150)]
    assert recalls[1] > recalls[0]


def test_some_images_only() -> None:
    rng = RNG(3)
    truth = data_set(rng)
    results = guesses(rng, truth)
    metrics = coco_metrics(truth, results, tasks=["masks"], image_ids=[2, 4])["masks"]
    assert_equal(metrics, by_pycocotools(truth, results, "masks", 100, ids=[2, 4]))
    assert metrics.ap != coco_metrics(truth, results, tasks=["masks"])["masks"].ap


def test_no_result_scores_zero_and_no_object_scores_nothing() -> None:
    truth = data_set(RNG(1))
    metrics = coco_metrics(truth, [])
    assert (metrics["boxes"].ap, metrics["masks"].ap, metrics["masks"].ar) == (0, 0, 0)
    assert_equal(metrics["masks"], by_pycocotools(truth, [], "masks", 100))
    nothing = coco_metrics(truth, guesses(RNG(1), truth), image_ids=[len(truth["images"])])
    assert all(math.isnan(value) for value in dataclasses.astuple(nothing["boxes"]))
    bare = {**truth, "annotations": []}
    for task in ("boxes", "masks", "keypoints"):
        assert all(math.isnan(value) for value in dataclasses.astuple(coco_metrics(bare, [], tasks=[task])[task]))


def test_categories_that_are_not_annotated_play_no_part() -> None:
    truth = data_set(RNG(2))
    results = guesses(RNG(2), truth)
    foreign = [{**result, "category_id": 5, "score": 1.0} for result in results]
    assert coco_metrics(truth, results + foreign) == coco_metrics(truth, results)


def test_numbers_of_objects_play_no_part_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """COCO's code takes annotation 0 for "no match" and loses it; a minimal file need not say area and iscrowd."""
    box = {"image_id": 1, "category_id": 7, "bbox": [10, 10, 40, 40]}
    truth = {**data_set(RNG(0), images=1), "annotations": [{**box, "id": 0}]}
    truth["categories"] = truth["categories"][:1]
    metrics = coco_metrics(truth, [{**box, "score": 0.9}], tasks=["boxes"])
    assert metrics["boxes"].ap == pytest.approx(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("count", "noise"), [(17, 2.5), (5, 10), (1, 40)])  # the sigmas of others are wider
def test_keypoints(count: int, noise: float) -> None:
    truth, results = persons(RNG(count), count, noise)
    metrics = coco_metrics(truth, results, tasks=["keypoints"], max_detections=20)["keypoints"]
    assert 0 < metrics.ap < 1
    assert math.isnan(metrics.ap_small)
    assert_equal(metrics, by_pycocotools(truth, results, "keypoints", 20))


def test_keypoints_are_counted_where_the_file_does_not(tmp_path: Path) -> None:
    truth, results = persons(RNG(4), 6, 8)
    expected = coco_metrics(truth, results, tasks=["keypoints"])
    for entry in truth["annotations"]:
        del entry["num_keypoints"]
    assert coco_metrics(written(truth, tmp_path), results, tasks=["keypoints"]) == expected


def perturbed(truth: dict[str, Any], images: list[int], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Most of the objects, their masks shifted by up to two pixels, with scores that are tied now and then."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    results = []
    for entry in truth["annotations"]:
        if entry["image_id"] not in images or rng.random() < 0.2:
            continue
        bitmap = rle_to_bitmap(segmentation_to_rle(entry["segmentation"], *sizes[entry["image_id"]]))
        down, right = (int(pixels) for pixels in rng.integers(-2, 3, 2))
        x, y, width, height = entry["bbox"]
        results.append(
            {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"] if rng.random() < 0.9 else truth["categories"][0]["id"],
                "bbox": [x + right, y + down, width, height],
                "segmentation": bitmap_to_rle(np.roll(bitmap, (down, right), (0, 1))),
                "score": float(rng.integers(1, 50)) / 50,
            }
        )
    return results


@pytest.mark.data
@pytest.mark.parametrize(("name", "limit", "step"), [("nuclei", 400, 8), ("coco", 100, 2)])
def test_real_annotations_score_as_pycocotools_does(name: str, limit: int, step: int, shared_data: Path) -> None:
    path = shared_data / name / "annotations" / "instances_val.json"
    truth = json.loads(path.read_bytes())
    images = [entry["id"] for entry in truth["images"]][::step]  # pycocotools takes its time
    results = perturbed(truth, images, RNG(0))
    metrics = coco_metrics(path, results, max_detections=limit, image_ids=images)
    for task in ("boxes", "masks"):
        assert 0.05 < metrics[task].ap < 0.8
        expected = by_pycocotools(truth, results, task, limit, ids=images)
        assert dataclasses.asdict(metrics[task]) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.data
def test_real_keypoints_score_as_pycocotools_does(shared_data: Path) -> None:
    truth = json.loads((shared_data / "coco" / "annotations" / "person_keypoints_train.json").read_bytes())
    rng = RNG(0)
    results = []
    for entry in truth["annotations"]:
        points = np.array(entry["keypoints"], np.float64).reshape(-1, 3)
        points[:, :2] += rng.normal(0, 3, (len(points), 2))
        fields = {key: entry[key] for key in ("image_id", "category_id")}
        results.append({**fields, "score": float(rng.integers(1, 20)) / 20, "keypoints": points.ravel().tolist()})
    metrics = coco_metrics(truth, results, tasks=["keypoints"], max_detections=20)["keypoints"]
    assert 0.1 < metrics.ap < 0.95
    assert_equal(metrics, by_pycocotools(truth, results, "keypoints", 20))


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = data_set(RNG(0))
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(DependencyMissing, match=r"edgemask\[coco\]"):
        coco_metrics(truth, [], tasks=["boxes"])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    truth = data_set(RNG(0))
    path = written(truth, tmp_path)
    results = guesses(RNG(0), truth)
    with pytest.raises(DatasetError, match="cannot read"):
        coco_metrics(tmp_path / "absent.json", results)
    with pytest.raises(DatasetError, match=r"annotations\.json does not list the images \[99\]"):
        coco_metrics(path, [{**results[0], "image_id": 99}])
    with pytest.raises(DatasetError, match=r"the annotations does not list the images \[98\]"):
        coco_metrics(truth, results, image_ids=[98])
    with pytest.raises(UsageError, match="at least one image"):
        coco_metrics(path, results, image_ids=[])
    with pytest.raises(UsageError, match="task: expected boxes or masks or keypoints, got 'bbox'"):
        coco_metrics(path, results, tasks=["bbox"])
    with pytest.raises(UsageError, match="max_detections: expected a whole number from 1"):
        coco_metrics(path, results, max_detections=0)


POINTS = [5.0, 5.0, 2.0] * 4


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("boxes", {"bbox": None}, "results: expected bbox in each, got one without"),
        ("boxes", {"score": None}, "expected score in each"),
        ("boxes", {"image_id": None}, "expected image_id in each"),
        ("boxes", {"score": math.nan}, "results: score: expected a finite number, got nan"),
        ("boxes", {"score": [0.5]}, "results: score: expected a finite number"),
        ("boxes", {"bbox": [1, 2, 3]}, r"results: bbox: expected 4 finite numbers, got"),
        ("boxes", {"bbox": [1, 2, 3, "a"]}, "expected 4 finite numbers, got something else"),
        ("boxes", {"bbox": [1, 2, math.inf, 4]}, r"got \[1, 2, inf, 4\]"),
        ("masks", {"segmentation": None}, "expected segmentation in each"),
        ("masks", {"segmentation": [[1, 1, 5, 1, 5, 5]]}, "expected compressed run lengths"),
        ("masks", {"segmentation": {"size": [9, SIZE], "counts": "0"}}, r"size .* of image 1: expected \[160, 160\]"),
        ("keypoints", {"keypoints": None}, "expected keypoints in each"),
        ("keypoints", {"keypoints": POINTS[:-3]}, "keypoints: expected 12 finite numbers"),
    ],
)
def test_unsound_results_are_refused(task: str, change: dict[str, Any], message: str) -> None:
    entry = annotated((10, 10, 40, 40), 1, 7, keypoints=POINTS, num_keypoints=4)
    truth = document([entry], [1])
    sound = {**entry, "score": 0.5}
    coco_metrics(truth, [sound, sound], tasks=[task])
    broken = {key: value for key, value in {**sound, **change}.items() if value is not None}
    for results in ([sound, broken], [broken]):
        with pytest.raises(UsageError, match=message):
            coco_metrics(truth, results, tasks=[task])
