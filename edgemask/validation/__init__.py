"""Validation: whether a model file does what its reference does, on the images of the user."""

from edgemask.validation.limits import Limit, read_gate
from edgemask.validation.reports import GalleryEntry, Validation, ValidationReport
from edgemask.validation.running import validate

__all__ = ["GalleryEntry", "Limit", "Validation", "ValidationReport", "read_gate", "validate"]
