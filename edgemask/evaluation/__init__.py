"""COCO metrics of results, of one side or of a reference and a candidate on the same images."""

from edgemask.evaluation.comparison import ClassComparison, TaskComparison, compare_coco
from edgemask.evaluation.derived import truth_from
from edgemask.evaluation.metrics import IOU_TYPES, CocoMetrics, coco_metrics
from edgemask.evaluation.resampling import Interval
from edgemask.evaluation.truth import check_scorable, read_truth

__all__ = [
    "IOU_TYPES",
    "ClassComparison",
    "CocoMetrics",
    "Interval",
    "TaskComparison",
    "check_scorable",
    "coco_metrics",
    "compare_coco",
    "read_truth",
    "truth_from",
]
