"""Parity: whether two sets of results say the same, detection by detection, whatever their order."""

from edgemask.parity.comparison import SCORE_THRESHOLD, ParitySums, compare, least_score
from edgemask.parity.histograms import Histogram
from edgemask.parity.images import KINDS, ImageParity, Kind, Mismatch, compare_image
from edgemask.parity.matching import SAME_OBJECT, box_ious, keypoint_similarity, mask_iou, pair_up
from edgemask.parity.measures import Measure, Verdict, WorstImage, parity_error
from edgemask.parity.reports import TASKS, TOLERANCES, ParityReport, Tolerance
from edgemask.parity.rounding import figures
from edgemask.parity.semantic import SEMANTIC_TOLERANCES, SemanticParity, SemanticTolerance, compare_maps

__all__ = [
    "KINDS",
    "SAME_OBJECT",
    "SCORE_THRESHOLD",
    "SEMANTIC_TOLERANCES",
    "TASKS",
    "TOLERANCES",
    "Histogram",
    "ImageParity",
    "Kind",
    "Measure",
    "Mismatch",
    "ParityReport",
    "ParitySums",
    "SemanticParity",
    "SemanticTolerance",
    "Tolerance",
    "Verdict",
    "WorstImage",
    "box_ious",
    "compare",
    "compare_image",
    "compare_maps",
    "figures",
    "keypoint_similarity",
    "least_score",
    "mask_iou",
    "pair_up",
    "parity_error",
]
