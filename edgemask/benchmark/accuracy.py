"""Accuracy of contestants, as reports of `edgemask validate` have it."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.benchmark.records import Accuracy, ContestantResult
from edgemask.errors import UsageError

# What may stand on the plot, the most telling first: the name, and how it is written.
METRICS = {
    "mask_ap": "mask AP",
    "keypoint_ap": "keypoint AP",
    "box_ap": "box AP",
    "matched_share": "matched share",
}
_TASKS = {"mask_ap": "masks", "keypoint_ap": "keypoints", "box_ap": "boxes"}


@dataclass(frozen=True, slots=True)
class Validated:
    """One side of a validation.

    Attributes:
        sha256: of the file, or of the PyTorch weights.
        device: where it ran.
        accuracy: what was found.
    """

    sha256: str
    device: str
    accuracy: Accuracy


def read_accuracies(paths: Sequence[str | os.PathLike[str]]) -> list[Validated]:
    """Reads what validations found: of the model files, and with annotations of the PyTorch models too.

    Args:
        paths: each a `report.json`.

    Raises:
        UsageError: no such file, none of our reports, or a newer format.
    """
    return [validated for path in paths for validated in _read(os.fspath(path))]


def accuracy_of(result: ContestantResult, known: Sequence[Validated]) -> Accuracy | None:
    """What is known about a contestant: of the same file or weights on the same device, in the file's own arithmetic.

    What PyTorch compiles or rounds was not validated; where there are several reports, the last one counts.
    """
    if result.precision not in ("file", "fp32") or result.name == "compile":
        return None
    found = [one.accuracy for one in known if one.sha256 == result.sha256 and one.device == result.device]
    return found[-1] if found else None


def common_metric(accuracies: Sequence[Accuracy]) -> str | None:
    """The most telling metric that the most of them have; None where there is none at all."""
    counts = {metric: sum(metric in one.values for one in accuracies) for metric in METRICS}
    best = max(counts.values())
    return next(metric for metric, count in counts.items() if count == best) if best else None


def _read(path: str) -> list[Validated]:
    try:
        document: Any = json.loads(Path(path).read_bytes())
        version = str(document["format_version"])
        if int(version.split(".")[0]) > 1:
            raise UsageError(f"{path} has the format {version}, this edgemask reads 1", "update edgemask")
        return [side for report in document["reports"] for side in _sides(path, report)]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no report of edgemask validate", "give the report.json that edgemask validate --report writes"
        ) from error


def _sides(path: str, report: Any) -> Iterator[Validated]:
    images, model, reference, coco = (report[key] for key in ("images", "model", "reference", "coco"))
    annotated = coco is not None and coco["truth"] == "annotations"
    values = {entry["key"]: entry["value"] for entry in report["values"] if entry["value"] is not None}
    # Without annotations the reference's own detections are the truth: such an AP is another figure.
    metrics = [metric for metric in METRICS if annotated or metric not in _TASKS]
    own = {metric: float(values[metric]) for metric in metrics if metric in values}
    if model["sha256"] is not None and own:
        yield Validated(model["sha256"], model["device"], Accuracy(path, int(images["compared"]), own))
    if annotated and reference["kind"] == "pytorch" and reference["sha256"] is not None:
        aps = {metric: coco["tasks"].get(task, {}).get("reference", {}).get("ap") for metric, task in _TASKS.items()}
        found = {metric: float(ap) for metric, ap in aps.items() if ap is not None}
        if found:
            # The reference ran on the processor, as an eager contestant calls it.
            yield Validated(reference["sha256"], "torch:cpu", Accuracy(path, int(images["compared"]), found))
