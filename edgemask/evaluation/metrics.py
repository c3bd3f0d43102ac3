"""COCO metrics of a set of results, by the library faster-coco-eval (the arithmetic of pycocotools in C++)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import whole
from edgemask.errors import DatasetError, DependencyMissing, UsageError
from edgemask.evaluation.results import SCORED, check_results
from edgemask.evaluation.truth import check_scorable, checked_truth, read_truth

IOU_TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}  # by task of the spec
AREAS = ("all", "small", "medium", "large")
_COCO_KEYPOINTS = 17  # the only number that COCO gives sigmas for
_DETECTIONS_LIMIT = 2**31 - 1
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """Average precision and recall over IoU 0.50:0.95, in 0-1; NaN where no object of that kind exists.

    COCO's areas: small below 32 x 32 pixels, large from 96 x 96 on. Of keypoints it scores no small objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    ar_small: float = _NAN
    ar_medium: float = _NAN
    ar_large: float = _NAN


COCO_METRICS = tuple(entry.name for entry in fields(CocoMetrics))
TASK_WORDS = {"boxes": "box", "masks": "mask", "keypoints": "keypoint"}


def metric_name(task: str, metric: str) -> str:
    """A metric of a task for people: `box AP50`, `mask AP small`."""
    short, _, size = metric.partition("_")
    return f"{TASK_WORDS[task]} {short.upper()} {size}".rstrip()


@dataclass(frozen=True, slots=True)
class Scene:
    """Checked annotations and the images of them that are scored.

    Attributes:
        document: as `read_truth` gives it.
        image_ids: ascending.
        name: how messages call the document.
    """

    document: dict[str, Any]
    image_ids: tuple[int, ...]
    name: str


def coco_metrics(
    annotations: str | Path | Mapping[str, Any],
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
        annotations: path of the annotation file, or the document itself.
        results: COCO result dictionaries, as `Detections.to_coco` gives them, at any score. Categories that the
            annotations do not list are left out.
        tasks: what to score: "boxes", "masks", "keypoints".
        max_detections: detections counted per image and category; COCO's own summary is fixed at 100, this one is not.
        image_ids: images to score; None takes all of the file. An image without a result counts as empty.

    Returns:
        The metrics of each task.

    Raises:
        DatasetError: the annotations cannot be read or scored, or results or ids belong to images that are not in them.
        UsageError: no image to score, or results without what a task scores.
        DependencyMissing: faster-coco-eval is not installed.
    """
    scene = prepare(annotations, tasks, image_ids)
    return {task: summary(evaluate(scene, results, task, max_detections)) for task in tasks}


def prepare(
    annotations: str | Path | Mapping[str, Any], tasks: Sequence[str], image_ids: Sequence[int] | None
) -> Scene:
    """Reads the annotations if they are a file, and checks that these images of them can be scored for the tasks.

    Raises:
        DatasetError: as `coco_metrics`.
        UsageError: no image to score, or an unknown task.
    """
    if isinstance(annotations, Mapping):
        name = "the annotations"
        document = checked_truth(annotations, name=name)
    else:
        name = str(annotations)
        document = read_truth(annotations)
    check_scorable(document, tasks, name=name)
    listed = {entry["id"] for entry in document["images"]}
    ids = listed if image_ids is None else set(image_ids)
    if foreign := ids - listed:
        raise DatasetError(
            f"{name} does not list the images {sorted(foreign)[:5]}", "give the annotations of these images"
        )
    if not ids:
        raise UsageError("image_ids: expected at least one image, got none", "leave image_ids=None to score all")
    return Scene(document, tuple(sorted(ids)), name)


def evaluate(scene: Scene, results: Sequence[dict[str, Any]], task: str, max_detections: int) -> Any:
    """Runs the library: its evaluation holds `eval` (precision, recall), `ious` by image and category, and `params`.

    Raises:
        DatasetError: results of images that the annotations do not list.
        UsageError: results without what the task scores.
        DependencyMissing: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        problem = "COCO metrics need the package faster_coco_eval, which is not installed"
        raise DependencyMissing(problem, "pip install 'edgemask[coco]'") from error
    whole(1, _DETECTIONS_LIMIT)("max_detections", max_detections)
    check_results(results, task, scene.document, name=scene.name)
    # The library writes into the entries that it is given.
    own = {**scene.document, "annotations": [dict(entry) for entry in scene.document["annotations"]]}
    truth = COCO(own)
    wanted = ("image_id", "category_id", "score", SCORED[task])
    kept = [{key: result[key] for key in wanted} for result in results]
    found = truth.loadRes(kept)
    sigmas = _sigmas(scene.document) if task == "keypoints" else None
    evaluation = COCOeval_faster(truth, found, IOU_TYPES[task], print_function=_say_nothing, kpt_oks_sigmas=sigmas)
    evaluation.params.imgIds = list(scene.image_ids)
    # Its last entry limits; the precision and recall at 1 and 10 detections, as COCO has them before it, go unused.
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _sigmas(document: Mapping[str, Any]) -> list[float] | None:
    """How far each keypoint may be off; None: as COCO has it."""
    objects = document["annotations"]
    count = len(objects[0]["keypoints"]) // 3 if objects else _COCO_KEYPOINTS
    return None if count == _COCO_KEYPOINTS else [1 / count] * count


def _say_nothing(*_: object) -> None:
    """Standard output belongs to the caller."""


def summary(evaluation: Any) -> CocoMetrics:
    """Summarises the precision and recall of a library's evaluation."""
    ious = np.asarray(evaluation.params.iouThrs)
    precision = np.asarray(evaluation.eval["precision"])[..., -1]  # [iou, recall, category, area]
    recall = np.asarray(evaluation.eval["recall"])[..., -1]  # [iou, category, area]
    labels = list(evaluation.params.areaRngLbl)
    ap, ar = (
        {area: mean_of_present(values[..., labels.index(area)]) if area in labels else _NAN for area in AREAS}
        for values in (precision, recall)
    )
    return CocoMetrics(
        ap=ap["all"],
        ap50=mean_of_present(precision[np.isclose(ious, 0.5), ..., 0]),
        ap75=mean_of_present(precision[np.isclose(ious, 0.75), ..., 0]),
        ap_small=ap["small"],
        ap_medium=ap["medium"],
        ap_large=ap["large"],
        ar=ar["all"],
        ar_small=ar["small"],
        ar_medium=ar["medium"],
        ar_large=ar["large"],
    )


def class_precision(evaluation: Any) -> dict[int, float]:
    """AP of each category over IoU 0.50:0.95, in 0-1; NaN where it has no object."""
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    ids = evaluation.params.catIds
    return {int(category): mean_of_present(precision[:, :, row]) for row, category in enumerate(ids)}


def mean_of_present(values: NDArray[np.float64]) -> float:
    """Mean of the entries that exist; COCO marks the others with -1."""
    present = values[values > -1]
    return float(present.mean()) if present.size else _NAN
