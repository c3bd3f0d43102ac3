"""COCO metrics of results, of one side or of a reference and a candidate on the same images."""

from edgemask.evaluation.comparison import ClassComparison, TaskComparison, compare_coco
from edgemask.evaluation.derived import truth_from
from edgemask.evaluation.metrics import (
    COCO_METRICS,
    IOU_TYPES,
    TASK_WORDS,
    CocoMetrics,
    coco_metrics,
    metric_name,
)
from edgemask.evaluation.resampling import Interval
from edgemask.evaluation.truth import check_scorable, read_truth

__all__ = [
    "COCO_METRICS",
    "IOU_TYPES",
    "TASK_WORDS",
    "ClassComparison",
    "CocoMetrics",
    "Interval",
    "TaskComparison",
    "check_scorable",
    "coco_metrics",
    "compare_coco",
    "metric_name",
    "read_truth",
    "truth_from",
]
