"""Validation: whether a model file does what its reference does, on the images of the user."""

from edgemask.validation.baseline import Baseline, read_baseline
from edgemask.validation.comparing import Plan, compare_sides
from edgemask.validation.images import (
    IMAGE_SUFFIXES,
    CheckedImages,
    ChosenImage,
    UsableImage,
    check_categories,
    check_images,
    choose_images,
)
from edgemask.validation.judging import CocoComparison
from edgemask.validation.limits import Limit, limits_of, read_gate
from edgemask.validation.reports import GalleryEntry, Validation, ValidationReport
from edgemask.validation.running import validate
from edgemask.validation.sides import Side, open_reference

__all__ = [
    "IMAGE_SUFFIXES",
    "Baseline",
    "CheckedImages",
    "ChosenImage",
    "CocoComparison",
    "GalleryEntry",
    "Limit",
    "Plan",
    "Side",
    "UsableImage",
    "Validation",
    "ValidationReport",
    "check_categories",
    "check_images",
    "choose_images",
    "compare_sides",
    "limits_of",
    "open_reference",
    "read_baseline",
    "read_gate",
    "validate",
]
