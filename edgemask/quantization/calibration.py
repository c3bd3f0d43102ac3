"""Calibration: which values the tensors of a model take on images, counted image by image.

A stored calibration, format 1.0, is a zip archive of arrays as `edgemask.runs` describes it, of

    calibration  ASCII JSON as uint8: format "edgemask.calibration", format_version, facts, and the names of the tensors
    bounds       float64 [T, 3]: of each tensor the least value, the greatest, and the outermost edge of its histogram
    counts       int64 [T, 2 * BINS]: its histogram
"""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgemask.canvas import Placement
from edgemask.checks import NAME_LIMIT, Check, Described, printable, refuse, several, text, whole
from edgemask.detections import Detections
from edgemask.errors import CalibrationError
from edgemask.files import creating
from edgemask.images import load_image
from edgemask.progress import progress
from edgemask.quantization.coverage import SIZES, Coverage, image_warnings, look_at
from edgemask.quantization.ranges import BINS, Histogram
from edgemask.quantization.sampling import statistics_of, with_statistics
from edgemask.runs.archives import ArrayArchive, write_arrays, write_json
from edgemask.runs.facts import SHA256
from edgemask.runs.records import FORMAT_VERSION, check_format, sound
from edgemask.runtimes import ModelFile
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import inputs_of
from edgemask.runtimes.results import detections_of, map_of
from edgemask.runtimes.runtime import Array
from edgemask.semantic import SemanticMap
from edgemask.spec import CLASS_LIMIT, ModelSpec

TENSOR_LIMIT = 10_000
_FORMAT = "edgemask.calibration"
_INDEX = "calibration"
_COUNT_LIMIT = 2**53
_SENTENCE_LIMIT = 20 * NAME_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFacts:
    """What a calibration was made on, frozen and checked.

    Args:
        images: how many.
        sha256: over the sorted sha256 of the image files, as hexadecimal lines: the same images in another order, or
            under other names, have the same.
        objects: found with a score of 0.5 or more; 0 for a semantic model.
        by_class: how many of each class, by its name; pixels, for a semantic model.
        by_size: how many are `small`, `medium` and `large` as COCO has it; empty for a semantic model.
        warnings: sentences on what the images lack.

    Raises:
        UsageError: a value that cannot be meant.
    """

    images: int
    sha256: str
    objects: int
    by_class: Mapping[str, int]
    by_size: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def to_record(self) -> dict[str, Any]:
        """Returns the facts as JSON values."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return record | {"warnings": list(self.warnings)}

    @classmethod
    def from_record(cls, value: Any) -> Self:
        """Reads what `to_record` gave; keys that a newer minor format brought are left out.

        Raises:
            UsageError: anything else.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(value, dict) or not value.keys() >= set(names):
            refuse("facts", f"an object of {', '.join(names)}", value)
        return cls(**{name: value[name] for name in names})


@dataclass(frozen=True, slots=True)
class Calibration:
    """Which values the tensors of a model take.

    Attributes:
        histograms: of each tensor, by its name; one that had no values on any image counts none.
        facts: on which images.
    """

    histograms: Mapping[str, Histogram]
    facts: CalibrationFacts

    def refuse_empty(self, model: ModelFile) -> None:
        """Does nothing where every tensor had values.

        Raises:
            CalibrationError: some had none on any image: rows of detections, where nothing was found.
        """
        empty = {name for name, histogram in self.histograms.items() if histogram.total == 0}
        stages = {node.name.partition("/")[0] for node in model.proto.graph.node if not empty.isdisjoint(node.output)}
        if empty:
            raise CalibrationError(
                f"no image brought any value to {', '.join(sorted(stages))}: its ranges are unknown",
                "give images that hold objects",
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the calibration to one .npz file, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        arrays = [histogram.to_arrays() for histogram in self.histograms.values()]
        index = {
            "format": _FORMAT,
            "format_version": FORMAT_VERSION,
            "facts": self.facts.to_record(),
            "tensors": list(self.histograms),
        }
        stacked = {
            "bounds": np.array([entry["bounds"] for entry in arrays]).reshape(-1, 3),
            "counts": np.array([entry["counts"] for entry in arrays], np.int64).reshape(-1, 2 * BINS),
        }
        with creating(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            write_json(archive, _INDEX, index)
            write_arrays(archive, stacked)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Raises:
            ModelFileError: there is no such file, it is no sound calibration, or of a newer major format.
        """
        with sound(path, "calibrate again"), ArrayArchive(path) as archive:
            index = archive.read_json(_INDEX)
            check_format(index, _FORMAT)
            facts = CalibrationFacts.from_record(index.get("facts"))
            tensors = several(text, 0, TENSOR_LIMIT)("tensors", index.get("tensors"))
            if len(set(tensors)) != len(tensors):
                refuse("tensors", "each name once", Described("one more than once"))
            arrays = archive.read(["bounds", "counts"])
            bounds, counts = arrays["bounds"], arrays["counts"]
            if bounds.shape[:1] != (len(tensors),) or counts.shape[:1] != (len(tensors),):
                got = Described(f"{list(bounds.shape)} and {list(counts.shape)}")
                refuse("bounds and counts", f"{len(tensors)} rows, one for each tensor", got)
            rows = zip(tensors, bounds, counts, strict=True)
            return cls({name: Histogram.from_arrays(bound, count) for name, bound, count in rows}, facts)


def calibrate(model: ModelFile, tensors: Sequence[str], images: Sequence[Path], *, device: str = "cpu") -> Calibration:
    """Runs a model over images, one by one, and counts the values of some tensors.

    Minimum and maximum of each tensor are exact, the histogram is of a sample; neither the tensors nor what was found
    on earlier images stay in memory.

    Args:
        model: in FP32, what `read_model` gave.
        tensors: their names.
        images: paths of images of any size, such as the model will see.
        device: where it runs, as `edgemask.load` takes it.

    Raises:
        CalibrationError: there is no image, some cannot be read, they are noise, or the model finds nothing on them; or
            it takes its proposals from the caller.
        ModelFileError: the model has no such tensor.
        BrokenOutput: it gave something that is no result, or a tensor holds values that are not numbers.
        DeviceUnavailable: the device cannot run the model here.
        OutOfMemory: too large for it.
    """
    spec, tensors = model.spec, list(dict.fromkeys(tensors))
    if spec.proposals == "input":
        raise CalibrationError(
            "this model takes its proposals from the caller, and images alone do not bring any",
            'quantize the model as exported with proposals="rpn"',
        )
    images = [Path(path) for path in images]
    digests = look_at(images)
    histograms = {tensor: Histogram() for tensor in tensors}
    coverage = Coverage(spec)
    runtime, _ = open_runtime(with_statistics(model, tensors), device)
    try:
        for path in progress(images, "calibrate"):
            inputs, placement = inputs_of(load_image(path), spec)
            outputs = runtime.run(inputs)
            for tensor, sample, low, high in statistics_of(outputs, tensors, printable(path.name)):
                histograms[tensor].add(sample, low, high)
            coverage.add(_found(outputs, placement, spec, runtime.device))
    finally:
        runtime.close()
    coverage.check()
    facts = CalibrationFacts(
        images=len(images),
        sha256=hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest(),
        objects=coverage.objects,
        by_class=coverage.by_class,
        by_size=coverage.by_size,
        warnings=(*image_warnings(digests), *coverage.warnings()),
    )
    return Calibration(histograms, facts)


def _found(
    outputs: Mapping[str, Array], placement: Placement, spec: ModelSpec, device: str
) -> Detections | SemanticMap:
    result_of = map_of if "semantic" in spec.tasks else detections_of
    return result_of(outputs, 0, placement, spec, device)


def _counts(limit: int, *names: str) -> Check:
    """Checks for a mapping from names, out of some or any, to whole numbers."""

    def check(name: str, value: Any) -> dict[str, int]:
        if not isinstance(value, Mapping) or len(value) > limit or (names and not set(value) <= set(names)):
            refuse(name, f"a mapping of {' and '.join(names) or f'at most {limit} names'} to numbers", value)
        return {text(name, key): _count(f"{name}[{key!a}]", count) for key, count in value.items()}

    return check


def _sentence(name: str, value: Any) -> str:
    if not isinstance(value, str) or printable(value) != value or not 1 <= len(value) <= _SENTENCE_LIMIT:
        refuse(name, f"a sentence of at most {_SENTENCE_LIMIT} characters", value)
    return value


_count = whole(0, _COUNT_LIMIT)
_CHECKS: dict[str, Check] = {
    "images": whole(1, _COUNT_LIMIT),
    "sha256": SHA256,
    "objects": _count,
    "by_class": _counts(CLASS_LIMIT),
    "by_size": _counts(len(SIZES), *SIZES),
    "warnings": several(_sentence, 0, 100),
}
