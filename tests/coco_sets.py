"""Small COCO-format data sets with results, and what pycocotools makes of them."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.evaluation import IOU_TYPES
from edgemask.masks import bitmap_to_rle

SIZE = 160
CATEGORIES = (7, 11, 90)  # sparse, as COCO's
SCORED = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}
Box = tuple[int, int, int, int]


def rectangle(box: Box) -> NDArray[np.bool_]:
    x, y, width, height = box
    bitmap = np.zeros((SIZE, SIZE), np.bool_)
    bitmap[y : y + height, x : x + width] = True
    return bitmap


def annotated(box: Box, image: int, category: int, **more: Any) -> dict[str, Any]:
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


def random_box(rng: np.random.Generator) -> Box:
    width, height = (int(side) for side in rng.integers(4, 120, 2))
    return int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height)), width, height


def document(objects: list[dict[str, Any]], images: list[int]) -> dict[str, Any]:
    return {
        "images": [{"id": image, "file_name": f"{image}.png", "height": SIZE, "width": SIZE} for image in images],
        "categories": [{"id": category, "name": f"name {category}"} for category in CATEGORIES],
        "annotations": [{**entry, "id": number} for number, entry in enumerate(objects, 1)],
    }


def data_set(rng: np.random.Generator, images: int = 6, crowded: int = 0) -> dict[str, Any]:
    """Sparse categories, a crowd region in each image, an image without objects, if asked one with very many."""
    objects = []
    for image in range(1, images):
        count = int(rng.integers(2, 9))
        objects += [annotated(random_box(rng), image, int(rng.choice(CATEGORIES[:2]))) for _ in range(count)]
        objects.append(annotated(random_box(rng), image, CATEGORIES[0], iscrowd=1))
    grid: list[Box] = [(index % 15 * 10, index // 15 * 10, 8, 8) for index in range(crowded)]
    objects += [annotated(box, 1, CATEGORIES[2]) for box in grid]
    return document(objects, list(range(1, images + 1)))


def guesses(rng: np.random.Generator, truth: dict[str, Any], *, tied: bool = True) -> list[dict[str, Any]]:
    """Shifted copies of most objects and some inventions; with tied scores among them, or none."""
    found = []
    for entry in truth["annotations"]:
        if rng.random() < 0.85:
            x, y, width, height = (int(side) for side in entry["bbox"])
            moved = (max(0, x + int(rng.integers(-3, 4))), max(0, y + int(rng.integers(-3, 4))), width, height)
            found.append(annotated(moved, entry["image_id"], entry["category_id"]))
        if rng.random() < 0.3:
            found.append(annotated(random_box(rng), entry["image_id"], int(rng.choice(CATEGORIES))))
    wanted = ("image_id", "category_id", "bbox", "segmentation")
    scores = rng.integers(1, 40, len(found)) / 40 if tied else rng.permutation(len(found)) / len(found)
    return [
        {**{key: entry[key] for key in wanted}, "score": score}
        for entry, score in zip(found, scores.tolist(), strict=True)
    ]


def persons(rng: np.random.Generator, count: int, noise: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of `count` keypoints on five images, a crowd and one without visible points among them; and results."""
    objects, results = [], []
    for index in range(20):
        box = random_box(rng)
        x, y, width, height = box
        visible = rng.integers(0, 3, count)
        visible[0] = 2
        if index in (3, 8):
            visible[:] = 0
        points = np.stack([rng.uniform(x, x + width, count), rng.uniform(y, y + height, count), visible], 1)
        image, seen = index % 4 + 1, int((visible > 0).sum())
        crowd = int(index == 8)
        objects.append(annotated(box, image, 7, keypoints=points.ravel().tolist(), num_keypoints=seen, iscrowd=crowd))
        noisy = points + rng.normal(0, noise, points.shape) * [1, 1, 0]
        score = float(rng.integers(1, 10)) / 10
        results.append({"image_id": image, "category_id": 7, "score": score, "keypoints": noisy.ravel().tolist()})
    return document(objects, [1, 2, 3, 4, 5]), results


def written(truth: dict[str, Any], folder: Path) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(truth), encoding="utf-8")
    return path


def by_pycocotools(
    truth: dict[str, Any], results: list[dict[str, Any]], task: str, limit: int, ids: list[int] | None = None
) -> dict[str, float]:
    """Every field of CocoMetrics, from pycocotools' precision and recall."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    ground, found = coco.COCO(), coco.COCO()
    ground.dataset = copy.deepcopy(truth)
    ground.createIndex()
    if results:
        names = ("image_id", "category_id", "score", SCORED[task])
        found = ground.loadRes([copy.deepcopy({name: result[name] for name in names}) for result in results])
    else:  # its loadRes looks at the first one
        found.dataset = {**ground.dataset, "annotations": []}
        found.createIndex()
    evaluation = cocoeval.COCOeval(ground, found, IOU_TYPES[task])
    if task == "keypoints" and (count := len(truth["annotations"][0]["keypoints"]) // 3) != 17:
        evaluation.params.kpt_oks_sigmas = np.full(count, 1 / count)
    evaluation.params.maxDets = [1, min(10, limit), limit]
    if ids is not None:
        evaluation.params.imgIds = ids
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 2], evaluation.eval["recall"][..., 2]
    areas = evaluation.params.areaRngLbl

    def mean(values: Any) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else math.nan

    by_area = {
        f"{metric}_{area}": mean(values[..., areas.index(area)]) if area in areas else math.nan
        for metric, values in (("ap", precision), ("ar", recall))
        for area in ("small", "medium", "large")
    }
    rest = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0], "ar": recall[..., 0]}
    return by_area | {name: mean(values) for name, values in rest.items()}
