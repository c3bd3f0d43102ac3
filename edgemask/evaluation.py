"""COCO metrics of a set of results, by the library faster-coco-eval (the arithmetic of pycocotools in C++)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import DatasetError, DependencyMissing, UsageError

IOU_TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}  # by task of the spec
_RESULTS = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}  # what is scored of a result
_AREAS = ("all", "small", "medium", "large")
_COCO_KEYPOINTS = 17  # the only number that COCO gives sigmas for


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """Average precision and recall over IoU 0.50:0.95, in 0-1; NaN where no object of that kind exists."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float


def coco_metrics(
    annotations: str | Path,
    results: Sequence[dict[str, Any]],
    *,
    tasks: Sequence[str] = ("boxes", "masks"),
    max_detections: int = 100,
    image_ids: Sequence[int] | None = None,
) -> dict[str, CocoMetrics]:
    """Scores results against COCO-format annotations.

    Masks and keypoints have areas of their own; that of the box in the same result plays no part. Other numbers of
    keypoints than COCO's 17 are scored with a sigma of 1 / K each.

    Args:
        annotations: path of the annotation file.
        results: COCO result dictionaries, as `Detections.to_coco` gives them, at any score. Categories that the
            annotations do not list are left out.
        tasks: what to score: "boxes", "masks", "keypoints".
        max_detections: detections counted per image; COCO's own summary is fixed at 100, this one is not.
        image_ids: images to score; None takes all of the file. An image without a result counts as empty.

    Returns:
        The metrics of each task.

    Raises:
        DatasetError: the annotations cannot be read, or results or ids belong to images that are not in them.
        UsageError: no image to score, or results without what a task scores.
        DependencyMissing: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO
    except ImportError as error:
        problem = "COCO metrics need the package faster_coco_eval, which is not installed"
        raise DependencyMissing(problem, "pip install 'edgemask[coco]'") from error
    truth = COCO(read_truth(annotations))
    ids = sorted(truth.imgs) if image_ids is None else sorted(set(image_ids))
    foreign = {result["image_id"] for result in results}.union(ids) - set(truth.imgs)
    if foreign:
        raise DatasetError(
            f"{annotations} does not list the images {sorted(foreign)[:5]}", "give the annotations of these images"
        )
    if not ids:
        raise UsageError("image_ids: expected at least one image, got none", "leave image_ids=None to score all")
    for task in tasks:
        if any(_RESULTS[task] not in result for result in results):
            raise UsageError(f"results: expected {_RESULTS[task]} in each, got one without", f"leave out {task}")
    try:
        return {task: _score(truth, results, task, ids, max_detections) for task in tasks}
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise DatasetError(
            f"{annotations} cannot be scored for {' and '.join(tasks)}: {type(error).__name__} {error}",
            "images need height and width; objects need the segmentation or keypoints that are scored",
        ) from error


def read_truth(annotations: str | Path) -> dict[str, Any]:
    """Reads a COCO-format annotation file without PyTorch.

    Returns:
        The JSON object with the lists `images`, `categories` and `annotations`; objects are numbered anew from 1
        (COCO's code takes number 0 for "no match") and have `area` and `iscrowd`.

    Raises:
        DatasetError: no such file, not COCO format, or an object of an unlisted image or category.
    """
    try:
        document: dict[str, Any] = json.loads(Path(annotations).read_bytes())
        images = [int(entry["id"]) for entry in document["images"]]
        categories = [int(entry["id"]) for entry in document["categories"]]
        document["annotations"] = [
            _completed(entry, number) for number, entry in enumerate(document["annotations"], start=1)
        ]
    except OSError as error:
        raise DatasetError(f"cannot read annotations {annotations}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{annotations} is no COCO annotation file: {type(error).__name__} {error}",
            "expected a JSON object with the lists images, annotations and categories",
        ) from error
    for name, listed in (("image", images), ("category", categories)):
        if not listed or len(set(listed)) != len(listed):
            what = "lists none" if not listed else "lists one twice"
            raise DatasetError(f"{annotations}: {what} under {name} ids", "expected distinct ids")
        foreign = {entry[f"{name}_id"] for entry in document["annotations"]} - set(listed)
        if foreign:
            raise DatasetError(
                f"{annotations} has objects of {name} {sorted(foreign)[:5]}, which it does not list", "mend the file"
            )
    return document


def _completed(entry: dict[str, Any], number: int) -> dict[str, Any]:
    _, _, width, height = (float(value) for value in entry["bbox"])
    ids = {"id": number, "image_id": int(entry["image_id"]), "category_id": int(entry["category_id"])}
    return {"iscrowd": 0, "area": width * height, **entry, **ids}


def _score(truth: Any, results: Sequence[dict[str, Any]], task: str, ids: list[int], limit: int) -> CocoMetrics:
    from faster_coco_eval import COCOeval_faster

    wanted = ("image_id", "category_id", "score", _RESULTS[task])
    found = truth.loadRes([{key: result[key] for key in wanted} for result in results])
    evaluation = COCOeval_faster(
        truth, found, IOU_TYPES[task], print_function=_say_nothing, kpt_oks_sigmas=_sigmas(truth, task)
    )
    evaluation.params.imgIds = ids
    evaluation.params.maxDets = [limit]
    evaluation.evaluate()
    evaluation.accumulate()
    areas = list(evaluation.params.areaRngLbl)
    ious = np.asarray(evaluation.params.iouThrs)
    precision = np.asarray(evaluation.eval["precision"])[..., 0]  # [iou, recall, category, area]
    recall = np.asarray(evaluation.eval["recall"])[..., 0]  # [iou, category, area]
    by_area = {area: _mean(precision[..., areas.index(area)]) if area in areas else float("nan") for area in _AREAS}
    return CocoMetrics(
        ap=by_area["all"],
        ap50=_mean(precision[np.isclose(ious, 0.5), ..., 0]),
        ap75=_mean(precision[np.isclose(ious, 0.75), ..., 0]),
        ap_small=by_area["small"],
        ap_medium=by_area["medium"],
        ap_large=by_area["large"],
        ar=_mean(recall[..., 0]),
    )


def _sigmas(truth: Any, task: str) -> list[float] | None:
    """How far each keypoint may be off; None: as COCO has it."""
    if task != "keypoints" or not truth.anns:
        return None
    count = len(next(iter(truth.anns.values()))["keypoints"]) // 3
    return None if count == _COCO_KEYPOINTS else [1 / count] * count


def _say_nothing(*_: object) -> None:
    """Standard output belongs to the caller."""


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the entries that exist; COCO marks the others with -1."""
    present = values[values > -1]
    return float(present.mean()) if present.size else float("nan")
