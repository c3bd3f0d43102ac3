"""COCO metrics: the arithmetic of pycocotools, whatever the data set looks like."""

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask.errors import DatasetError, DependencyMissing, UsageError
from edgemask.evaluation import IOU_TYPES, coco_metrics, read_truth
from edgemask.masks import bitmap_to_rle

SIZE = 160
CATEGORIES = (7, 11, 90)  # sparse, as COCO's
RNG = np.random.default_rng


def rectangle(box: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    x, y, width, height = box
    bitmap = np.zeros((SIZE, SIZE), np.bool_)
    bitmap[y : y + height, x : x + width] = True
    return bitmap


def annotated(box: tuple[int, int, int, int], image: int, category: int, **more: Any) -> dict[str, Any]:
    bitmap = rectangle(box)
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": int(bitmap.sum()),
        "iscrowd": 0,
        "segmentation": bitmap_to_rle(bitmap),
        **more,
    }


def random_box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    width, height = (int(side) for side in rng.integers(4, 120, 2))
    return int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height)), width, height


def data_set(rng: np.random.Generator, images: int = 6, crowded: int = 0) -> dict[str, Any]:
    """Sparse categories, a crowd region in each image, an image without objects, if asked one with very many."""
    objects = []
    for image in range(1, images):
        count = int(rng.integers(2, 9))
        objects += [annotated(random_box(rng), image, int(rng.choice(CATEGORIES[:2]))) for _ in range(count)]
        objects.append(annotated(random_box(rng), image, CATEGORIES[0], iscrowd=1))
    grid = [(index % 15 * 10, index // 15 * 10, 8, 8) for index in range(crowded)]
    objects += [annotated(box, 1, CATEGORIES[2]) for box in grid]
    return {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": SIZE, "width": SIZE} for image in range(1, images + 1)
        ],
        "categories": [{"id": category, "name": f"name {category}"} for category in CATEGORIES],
        "annotations": [{**entry, "id": number} for number, entry in enumerate(objects, 1)],
    }


def guesses(rng: np.random.Generator, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Shifted copies of most objects and some inventions, with tied scores among them."""
    found = []
    for entry in truth["annotations"]:
        if rng.random() < 0.85:
            x, y, width, height = (int(side) for side in entry["bbox"])
            moved = (max(0, x + int(rng.integers(-3, 4))), max(0, y + int(rng.integers(-3, 4))), width, height)
            found.append(annotated(moved, entry["image_id"], entry["category_id"]))
        if rng.random() < 0.3:
            found.append(annotated(random_box(rng), entry["image_id"], int(rng.choice(CATEGORIES))))
    wanted = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: entry[key] for key in wanted}, "score": float(rng.integers(1, 40)) / 40} for entry in found]


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def by_pycocotools(
    truth: dict[str, Any], results: list[dict[str, Any]], task: str, limit: int, ids: list[int] | None = None
) -> dict[str, float]:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    ground = coco.COCO()
    ground.dataset = copy.deepcopy(truth)
    ground.createIndex()
    key = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}[task]
    kept = [{name: result[name] for name in ("image_id", "category_id", "score", key)} for result in results]
    evaluation = cocoeval.COCOeval(ground, ground.loadRes(kept), IOU_TYPES[task])
    evaluation.params.maxDets = [limit]
    if ids is not None:
        evaluation.params.imgIds = ids
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    areas = evaluation.params.areaRngLbl

    def mean(values: Any) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else math.nan

    by_area = {
        f"ap_{name}": mean(precision[..., areas.index(name)]) if name in areas else math.nan
        for name in ("small", "medium", "large")
    }
    rest = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0], "ar": recall[..., 0]}
    return by_area | {name: mean(values) for name, values in rest.items()}


@pytest.mark.parametrize("task", ["boxes", "masks"])
@pytest.mark.parametrize(("crowded", "limit"), [(0, 100), (150, 100), (150, 200), (0, 3)])
def test_equals_pycocotools(task: str, crowded: int, limit: int, tmp_path: Path) -> None:
    rng = RNG(crowded + limit)
    truth = data_set(rng, crowded=crowded)
    results = guesses(rng, truth)
    metrics = coco_metrics(written(truth, tmp_path), results, tasks=[task], max_detections=limit)[task]
    expected = by_pycocotools(truth, results, task, limit)
    assert {name: getattr(metrics, name) for name in expected} == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 0.05 < metrics.ap < 0.95


def test_more_than_a_hundred_objects_count_where_the_model_gives_them(tmp_path: Path) -> None:
    truth = data_set(RNG(0), images=2, crowded=150)
    perfect = [{**entry, "score": 1.0} for entry in truth["annotations"] if entry["category_id"] == CATEGORIES[2]]
    path = written(truth | {"categories": truth["categories"]}, tmp_path)
    recalls = [coco_metrics(path, perfect, tasks=["boxes"], max_detections=d)["boxes"].ar for d in (100, 150)]
    assert recalls[1] > recalls[0]


def test_some_images_only(tmp_path: Path) -> None:
    rng = RNG(3)
    truth = data_set(rng)
    results = guesses(rng, truth)
    metrics = coco_metrics(written(truth, tmp_path), results, tasks=["masks"], image_ids=[2, 4])["masks"]
    expected = by_pycocotools(truth, results, "masks", 100, ids=[2, 4])
    assert metrics.ap == pytest.approx(expected["ap"], abs=1e-9)
    assert metrics.ap != coco_metrics(tmp_path / "annotations.json", results, tasks=["masks"])["masks"].ap


def test_no_result_scores_zero_and_no_object_scores_nothing(tmp_path: Path) -> None:
    truth = data_set(RNG(1))
    path = written(truth, tmp_path)
    metrics = coco_metrics(path, [])
    assert (metrics["boxes"].ap, metrics["masks"].ap, metrics["masks"].ar) == (0, 0, 0)
    assert math.isnan(coco_metrics(path, [], image_ids=[len(truth["images"])])["boxes"].ap)


def test_categories_that_are_not_annotated_play_no_part(tmp_path: Path) -> None:
    truth = data_set(RNG(2))
    results = guesses(RNG(2), truth)
    path = written(truth, tmp_path)
    foreign = [{**result, "category_id": 5, "score": 1.0} for result in results]
    assert coco_metrics(path, results + foreign) == coco_metrics(path, results)


def test_numbers_of_objects_play_no_part_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COCO's code takes annotation 0 for "no match" and loses it; a minimal file need not say area and iscrowd."""
    box = {"image_id": 1, "category_id": 7, "bbox": [10, 10, 40, 40]}
    truth = {**data_set(RNG(0), images=1), "annotations": [{**box, "id": 0}]}
    truth["categories"] = truth["categories"][:1]
    metrics = coco_metrics(written(truth, tmp_path), [{**box, "score": 0.9}], tasks=["boxes"])
    assert metrics["boxes"].ap == pytest.approx(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("count", "noise"), [(17, 2.5), (5, 10)])  # the sigmas for 5 are wider
def test_keypoints(count: int, noise: float, tmp_path: Path) -> None:
    rng = RNG(count)
    boxes = [(5 + 50 * index, 5, 40, 60) for index in range(3)]
    entries, results = [], []
    for box in boxes:
        x, y, width, height = box
        points = np.stack([rng.uniform(x, x + width, count), rng.uniform(y, y + height, count), np.full(count, 2)], 1)
        entries.append(annotated(box, 1, 7, keypoints=points.ravel().tolist(), num_keypoints=count))
        noisy = points + rng.normal(0, noise, points.shape) * [1, 1, 0]
        results.append({"image_id": 1, "category_id": 7, "score": 0.9, "keypoints": noisy.ravel().tolist()})
    truth = data_set(rng, images=1)
    truth["annotations"] = [{**entry, "id": number} for number, entry in enumerate(entries, 1)]
    metrics = coco_metrics(written(truth, tmp_path), results, tasks=["keypoints"], max_detections=20)["keypoints"]
    assert 0 < metrics.ap < 1
    assert math.isnan(metrics.ap_small)
    if count == 17:
        assert metrics.ap == pytest.approx(by_pycocotools(truth, results, "keypoints", 20)["ap"], abs=1e-9)


@pytest.mark.data
def test_real_annotations_score_themselves_as_pycocotools_does(shared_data: Path) -> None:
    path = shared_data / "coco" / "annotations" / "instances_val.json"
    truth = json.loads(path.read_bytes())
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": (i % 97) / 97}
        for i, a in enumerate(truth["annotations"])
        if i % 4
    ]
    metrics = coco_metrics(path, results, tasks=["boxes"])["boxes"]
    expected = by_pycocotools(truth, results, "boxes", 100)
    assert {name: getattr(metrics, name) for name in expected} == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "is no COCO annotation file"),
        ('{"images": []}', "is no COCO annotation file"),
        ("[]", "is no COCO annotation file"),
        ('{"images": [], "categories": [], "annotations": []}', "lists none under image ids"),
        ('{"images": [{"id": 1}, {"id": 1}], "categories": [{"id": 1}], "annotations": []}', "lists one twice"),
        (
            '{"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": '
            '[{"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}]}',
            "objects of image [2]",
        ),
        (
            '{"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": '
            '[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1]}]}',
            "is no COCO annotation file",
        ),
    ],
)
def test_no_annotation_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_truth(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(data_set(RNG(0)), tmp_path)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(DependencyMissing, match=r"edgemask\[coco\]"):
        coco_metrics(path, [])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    truth = data_set(RNG(0))
    path = written(truth, tmp_path)
    results = guesses(RNG(0), truth)
    with pytest.raises(DatasetError, match="cannot read"):
        coco_metrics(tmp_path / "absent.json", results)
    with pytest.raises(DatasetError, match=r"does not list the images \[99\]"):
        coco_metrics(path, [{**results[0], "image_id": 99}])
    with pytest.raises(DatasetError, match=r"does not list the images \[98\]"):
        coco_metrics(path, results, image_ids=[98])
    with pytest.raises(UsageError, match="at least one image"):
        coco_metrics(path, results, image_ids=[])
    with pytest.raises(UsageError, match="expected keypoints in each"):
        coco_metrics(path, results, tasks=["keypoints"])
    for image in truth["images"]:
        del image["height"]
    with pytest.raises(DatasetError, match="height"):
        coco_metrics(written(truth, tmp_path), results, tasks=["masks"])
