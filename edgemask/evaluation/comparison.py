"""COCO metrics of a reference and a candidate on the same images, and how sure their difference is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.checks import number, whole
from edgemask.evaluation.matches import matches_of, objects_of
from edgemask.evaluation.metrics import CocoMetrics, class_precision, evaluate, prepare, summary
from edgemask.evaluation.resampling import Interval, paired_intervals

_RESAMPLES_LIMIT = 1_000_000
_SEED_LIMIT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """One category on both sides.

    Attributes:
        category_id: COCO's.
        name: the annotations', `category_<id>` where they give none.
        objects: how many there are to be found on the images scored; crowd regions are not.
        reference: AP over IoU 0.50:0.95, in 0-1; NaN without objects.
        candidate: the same.
    """

    category_id: int
    name: str
    objects: int
    reference: float
    candidate: float


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """What a task scores on both sides.

    Attributes:
        reference: its metrics.
        candidate: its metrics.
        intervals: of the candidate's metric minus the reference's, for "ap", "ap50", "ap75" and "ar", in -1 to 1.
        images: how many were scored, and resampled.
        classes: all categories of the annotations, ordered by id.
    """

    reference: CocoMetrics
    candidate: CocoMetrics
    intervals: dict[str, Interval]
    images: int
    classes: tuple[ClassComparison, ...]


def compare_coco(
    annotations: str | Path | Mapping[str, Any],
    reference_results: Sequence[dict[str, Any]],
    candidate_results: Sequence[dict[str, Any]],
    *,
    tasks: Sequence[str] = ("boxes", "masks"),
    max_detections: int = 100,
    image_ids: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, TaskComparison]:
    """Scores two sets of results against the same annotations.

    The intervals come from a paired bootstrap over images: both sides are scored on the same resampled sets, so that
    what is hard for both does not widen them. Percentiles; sets without an object play no part. Two equal sides give
    [0, 0]. Of a single image there is nothing to learn about others: its intervals are NaN.

    Args:
        annotations: path of the annotation file, or the document: what `read_truth` or `truth_from` gave. Where it was
            made from the reference, its own results still are the `reference_results`.
        reference_results: COCO result dictionaries, at any score.
        candidate_results: the same.
        tasks: what to score: "boxes", "masks", "keypoints".
        max_detections: detections counted per image and category.
        image_ids: images to score; None takes all of the annotations. An image without a result counts as empty.
        resamples: sets of images drawn.
        seed: of the draws; the same one gives the same intervals.
        confidence: share of the resampled differences inside the interval.

    Returns:
        The comparison of each task.

    Raises:
        DatasetError: as `coco_metrics`.
        UsageError: as `coco_metrics`; or numbers that cannot be meant.
        DependencyMissing: faster-coco-eval is not installed.
    """
    whole(1, _RESAMPLES_LIMIT)("resamples", resamples)
    whole(0, _SEED_LIMIT)("seed", seed)
    number(0, 1)("confidence", confidence)
    scene = prepare(annotations, tasks, image_ids)
    names = {entry["id"]: entry.get("name", f"category_{entry['id']}") for entry in scene.document["categories"]}
    compared = {}
    for task in tasks:
        sides = [evaluate(scene, results, task, max_detections) for results in (reference_results, candidate_results)]
        compared[task] = TaskComparison(
            summary(sides[0]),
            summary(sides[1]),
            intervals=paired_intervals(
                [matches_of(side) for side in sides],
                objects_of(sides[0]),
                resamples=resamples,
                seed=seed,
                confidence=confidence,
            ),
            images=len(scene.image_ids),
            classes=_classes(names, sides),
        )
    return compared


def _classes(names: Mapping[int, str], sides: Sequence[Any]) -> tuple[ClassComparison, ...]:
    objects = objects_of(sides[0])
    reference, candidate = (class_precision(side) for side in sides)
    nan = float("nan")
    return tuple(
        ClassComparison(
            category,
            names[category],
            int(objects[category].sum()) if category in objects else 0,
            reference.get(category, nan),
            candidate.get(category, nan),
        )
        for category in sorted(names)
    )
