"""Validation: whether a model file does what its reference does, on the images of the user."""

from edgemask.validation.reports import ValidationReport
from edgemask.validation.running import compare_detectors, compare_segmenters, validate
from edgemask.validation.sources import (
    IMAGE_SUFFIXES,
    ChosenImage,
    Predictor,
    Reference,
    Segmenter,
    check_categories,
    choose_images,
    open_reference,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "ChosenImage",
    "Predictor",
    "Reference",
    "Segmenter",
    "ValidationReport",
    "check_categories",
    "choose_images",
    "compare_detectors",
    "compare_segmenters",
    "open_reference",
    "validate",
]
