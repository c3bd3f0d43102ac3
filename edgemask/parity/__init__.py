"""Parity: whether two sets of results say the same, detection by detection, whatever their order."""

from edgemask.parity.comparison import SCORE_THRESHOLD, compare
from edgemask.parity.matching import SAME_OBJECT, box_ious, mask_iou, pair_up
from edgemask.parity.reports import TOLERANCES, Measure, ParityReport, Tolerance, WorstImage
from edgemask.parity.semantic import SEMANTIC_TOLERANCES, SemanticParity, SemanticTolerance, compare_maps

__all__ = [
    "SAME_OBJECT",
    "SCORE_THRESHOLD",
    "SEMANTIC_TOLERANCES",
    "TOLERANCES",
    "Measure",
    "ParityReport",
    "SemanticParity",
    "SemanticTolerance",
    "Tolerance",
    "WorstImage",
    "box_ious",
    "compare",
    "compare_maps",
    "mask_iou",
    "pair_up",
]
