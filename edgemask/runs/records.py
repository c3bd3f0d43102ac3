"""One image of a run as arrays and a JSON record, and back; see the package for the format."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from edgemask.checks import Described, is_control, number, optional, pattern, printable, refuse, several, text, whole
from edgemask.detections import Detections
from edgemask.errors import ModelFileError, UsageError
from edgemask.runs.archives import ArrayArchive
from edgemask.runs.entries import SECONDS_LIMIT, STAGE_LIMIT, RunEntry
from edgemask.runs.facts import SHA256
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

FORMAT_VERSION = "1.0"
NAME_LIMIT = 1000  # a path within a data set

_DETECTED = ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores")
_MAPS = ("label_map", "score_map")
_side = whole(1, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is said of an image beside its arrays.

    Attributes:
        name: as the run called the image.
        digest: sha256 of its file.
        seconds: that the prediction took.
        image_size: (H, W), pixels.
        arrays: names of the arrays that there are, known ones alone.
        stages: names of the stage tensors, or None.
    """

    name: str
    digest: str
    seconds: float
    image_size: tuple[int, int]
    arrays: tuple[str, ...]
    stages: tuple[str, ...] | None

    @classmethod
    def of(cls, name: str, digest: str, entry: RunEntry, spec: ModelSpec) -> Self:
        """Describes an entry.

        Raises:
            UsageError: a name or digest that is none, or an entry that a model of this spec does not give.
        """
        _check_entry(entry, spec)
        return cls(
            _image_name("name", name),
            SHA256("digest", digest),
            entry.seconds,
            entry.found.image_size,
            tuple(array for array in arrays_of(entry) if not array.startswith("stages/")),
            None if entry.stages is None else tuple(entry.stages),
        )

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Reads what `to_json` gave.

        Raises:
            UsageError: anything else.
        """
        if not isinstance(value, dict):
            refuse("image", "a JSON object", value)
        arrays = several(text, 0, STAGE_LIMIT)("arrays", value.get("arrays"))
        return cls(
            _image_name("name", value.get("name")),
            SHA256("sha256", value.get("sha256")),
            number(0, SECONDS_LIMIT)("seconds", value.get("seconds")),
            several(_side, 2, 2)("image_size", value.get("image_size")),
            tuple(name for name in (*_DETECTED, *_MAPS, "proposals") if name in arrays),
            optional(several(text, 0, STAGE_LIMIT))("stages", value.get("stages")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "seconds": self.seconds,
            "image_size": self.image_size,
            "arrays": self.arrays,
            "stages": self.stages,
        }

    def read(self, archive: ArrayArchive, spec: ModelSpec, prefix: str = "") -> RunEntry:
        """Reads the arrays and makes the entry of them.

        Raises:
            UsageError: arrays that are missing, broken, or not what a model of this spec gives.
        """
        stages = () if self.stages is None else tuple(f"stages/{index}" for index in range(len(self.stages)))
        arrays = archive.read((*self.arrays, *stages), prefix)
        entry = RunEntry(
            self._found(arrays),
            self.seconds,
            arrays.get("proposals"),
            None if self.stages is None else dict(zip(self.stages, map(arrays.__getitem__, stages), strict=True)),
        )
        _check_entry(entry, spec)
        return entry

    def _found(self, arrays: dict[str, NDArray[Any]]) -> Detections | SemanticMap:
        wanted = _MAPS if "label_map" in self.arrays else _DETECTED[:3]
        if missing := [name for name in wanted if name not in arrays]:
            refuse("arrays", f"{', '.join(wanted)} among them", Described(f"no {missing[0]}"))
        if wanted is not _MAPS:
            given = {name: arrays[name] for name in _DETECTED if name in arrays}
            return Detections(**given, image_size=self.image_size)
        found = SemanticMap(*(arrays[name] for name in _MAPS))
        if found.image_size != self.image_size:
            refuse("label_map", f"{list(self.image_size)} as image_size", Described(str(list(found.image_size))))
        return found


def arrays_of(entry: RunEntry) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an entry by their names in the archive, in the order of the format."""
    if isinstance(entry.found, SemanticMap):
        arrays: dict[str, NDArray[Any] | None] = dict(zip(_MAPS, (entry.found.labels, entry.found.scores), strict=True))
    else:
        arrays = {name: getattr(entry.found, name) for name in _DETECTED}
    arrays["proposals"] = entry.proposals
    arrays |= {f"stages/{index}": array for index, array in enumerate((entry.stages or {}).values())}
    return {name: array for name, array in arrays.items() if array is not None}


def check_format(record: dict[str, Any], name: str) -> None:
    """Checks that a file is of the format named, in a version that is read here.

    Raises:
        UsageError: another format, or a newer major version.
    """
    if record.get("format") != name:
        refuse("format", name, record.get("format"))
    version = pattern(r"[0-9]{1,4}\.[0-9]{1,4}", "major.minor")("format_version", record.get("format_version"))
    if int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0]):
        remedy = "update edgemask here, or store the run with the version that is installed here"
        refuse("format_version", f"{FORMAT_VERSION} or an older major version", version, remedy)


@contextlib.contextmanager
def sound(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Turns what is found wrong inside a file into a ModelFileError that names it.

    Raises:
        ModelFileError: for every UsageError of the block.
    """
    try:
        yield
    except UsageError as error:
        newer = error.remedy if "format_version" in error.problem else None
        raise ModelFileError(f"{printable(os.fspath(path))}: {error.problem}", newer or remedy) from error


def _image_name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LIMIT or any(map(is_control, value)):
        refuse(name, f"text of 1 to {NAME_LIMIT} characters without control characters", value, "rename the image")
    return value


def _check_entry(entry: RunEntry, spec: ModelSpec) -> None:
    """Whether a model of this spec can have given the entry; it may give more than its tasks say."""
    is_map = isinstance(entry.found, SemanticMap)
    if is_map != ("semantic" in spec.tasks):
        refuse("found", f"what a model for {' and '.join(spec.tasks)} gives", Described(repr(entry.found)))
    given = {"masks": getattr(entry.found, "masks", None), "keypoints": getattr(entry.found, "keypoints", None)}
    for task, array in given.items():
        if task in spec.tasks and array is None:
            refuse("found", f"{task}, as the model's tasks say", Described(repr(entry.found)))
    top, count = int(entry.found.labels.max(initial=0)), len(spec.class_names)
    if top > count:
        refuse("labels", f"at most {count}, the number of classes", top)
