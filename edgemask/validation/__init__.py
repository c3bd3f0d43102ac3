"""Validation: whether a model file does what its reference does, on the images of the user."""

from edgemask.validation.reports import ValidationReport
from edgemask.validation.running import compare_detectors, validate
from edgemask.validation.sources import (
    IMAGE_SUFFIXES,
    ChosenImage,
    Predictor,
    Reference,
    check_categories,
    choose_images,
    open_reference,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "ChosenImage",
    "Predictor",
    "Reference",
    "ValidationReport",
    "check_categories",
    "choose_images",
    "compare_detectors",
    "open_reference",
    "validate",
]
