"""An earlier report, to compare with."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.errors import UsageError


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an earlier validation measured.

    Attributes:
        path: of its report.
        date: when it was measured, ISO 8601.
        device: where the model ran.
        images: how many were compared.
        values: by key.
    """

    path: str
    date: str
    device: str
    images: int
    values: Mapping[str, float]


def read_baselines(path: str | os.PathLike[str]) -> tuple[Baseline, ...]:
    """Reads the report of an earlier validation: one baseline for each device that it was run on.

    Args:
        path: a `report.json`.

    Raises:
        UsageError: no such file, none of our reports, or a newer format.
    """
    try:
        document: Any = json.loads(Path(path).read_bytes())
        version = str(document["format_version"])
        if int(version.split(".")[0]) > 1:
            raise UsageError(f"{path} has the format {version}, this edgemask reads 1", "update edgemask")
        found = tuple(_baseline(os.fspath(path), report) for report in document["reports"])
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}", "check the path") from error
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no report of edgemask validate", "give the report.json of an earlier validation"
        ) from error
    if not found:
        raise UsageError(f"{path} has no figures", "give the report.json of an earlier validation")
    return found


def _baseline(path: str, report: Any) -> Baseline:
    return Baseline(
        path=path,
        date=str(report["environment"]["date"]),
        device=str(report["model"]["device"]),
        images=int(report["images"]["compared"]),
        values={
            str(entry["key"]): float(entry["value"])
            for entry in report["values"]
            if entry["key"] and entry["value"] is not None
        },
    )


def baseline_for(device: str, baselines: Sequence[Baseline]) -> Baseline | None:
    """The figures of the device where the model runs now, or the only ones; None: there are only others' figures."""
    if len(baselines) == 1:
        return baselines[0]
    return next((baseline for baseline in baselines if baseline.device == device), None)
