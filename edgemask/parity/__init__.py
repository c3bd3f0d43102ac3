"""Parity: whether two sets of results say the same, detection by detection, whatever their order."""

from edgemask.parity.comparison import SCORE_THRESHOLD, compare
from edgemask.parity.matching import SAME_OBJECT, box_ious, mask_iou, pair_up
from edgemask.parity.reports import TOLERANCES, Measure, ParityReport, Tolerance, WorstImage

__all__ = [
    "SAME_OBJECT",
    "SCORE_THRESHOLD",
    "TOLERANCES",
    "Measure",
    "ParityReport",
    "Tolerance",
    "WorstImage",
    "box_ious",
    "compare",
    "mask_iou",
    "pair_up",
]
