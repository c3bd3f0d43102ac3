"""RunEntry: what a run keeps of one image, frozen and checked; and which image that was."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, number, printable, refuse, text
from edgemask.detections import Detections
from edgemask.errors import ImageError
from edgemask.semantic import SemanticMap

SECONDS_LIMIT = 1e9
STAGE_LIMIT = 256
DIMENSION_LIMIT = 16


@dataclass(frozen=True, slots=True, eq=False)
class RunEntry:
    """What a detector found on one image.

    The arrays are held as read-only views: nothing is copied or cast.

    Args:
        found: what the model gave.
        seconds: that the prediction took.
        proposals: float32 [P, 4] xyxy, pixels of the ORIGINAL image, finite: the boxes that the model was given, or
            None where it makes its own.
        stages: stage tensors by name, of whole numbers, floats or bools, or None where they were not kept.

    Raises:
        UsageError: a value that cannot be meant, as `expected ..., got ...`.
    """

    found: Detections | SemanticMap
    seconds: float
    proposals: NDArray[np.float32] | None = None
    stages: Mapping[str, NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.found, Detections | SemanticMap):
            refuse("found", "Detections or a SemanticMap", Described(type(self.found).__name__))
        object.__setattr__(self, "seconds", number(0, SECONDS_LIMIT)("seconds", self.seconds))
        if self.proposals is not None:
            object.__setattr__(self, "proposals", _checked_proposals(self.proposals))
        if self.stages is not None:
            object.__setattr__(self, "stages", _checked_stages(self.stages))


def file_digest(path: str | os.PathLike[str]) -> str:
    """Returns the sha256 of an image file's bytes as 64 lower-case hexadecimal digits; reads it piece by piece.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        if not Path(path).is_file():  # a pipe or a device would be read for ever
            raise ImageError(f"{printable(os.fspath(path))}: is no file", "check the path")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise ImageError(f"{printable(os.fspath(path))}: cannot be read: {reason}", "check the path") from error


def is_storable(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this type are kept: whole numbers, floats and bools of up to 8 bytes, little-endian."""
    return dtype.kind in "iufb" and dtype.itemsize <= 8 and dtype.newbyteorder("<") == dtype


def _checked_proposals(value: Any) -> NDArray[np.float32]:
    if not isinstance(value, np.ndarray):
        refuse("proposals", "float32 [P, 4] array", Described(type(value).__name__))
    if value.dtype != np.float32 or value.ndim != 2 or value.shape[1] != 4:
        refuse("proposals", "float32 [P, 4]", Described(f"{value.dtype} {list(value.shape)}"))
    if not np.isfinite(value).all():
        refuse("proposals", "finite numbers", value[~np.isfinite(value).all(axis=1)][0].tolist())
    return _read_only(value)


def _checked_stages(value: Any) -> Mapping[str, NDArray[Any]]:
    if not isinstance(value, Mapping) or len(value) > STAGE_LIMIT:
        refuse("stages", f"a mapping of at most {STAGE_LIMIT} arrays", Described(type(value).__name__))
    stages = {}
    for name, array in value.items():
        text("stages", name)
        is_array = isinstance(array, np.ndarray)
        if not is_array or not is_storable(array.dtype) or array.ndim > DIMENSION_LIMIT:
            got = f"{array.dtype} [{array.ndim} dimensions]" if is_array else type(array).__name__
            refuse(f"stages[{name!a}]", "an array of whole numbers, floats or bools", Described(got))
        stages[name] = _read_only(array)
    return MappingProxyType(stages)


def _read_only(value: NDArray[Any]) -> NDArray[Any]:
    view = value.view()
    view.flags.writeable = False
    return view
