"""An earlier report, to compare with."""

import json
import os
from collections.abc import Mapping
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


def read_baseline(path: str | os.PathLike[str], device: str) -> Baseline:
    """Reads the report of an earlier validation.

    Args:
        path: a `report.json`.
        device: on which the model runs now: of a report with several devices, this one's figures are taken; the only
            one's, where there is one.

    Raises:
        UsageError: no such file, none of our reports, a newer format, or one without the device.
    """
    try:
        document: Any = json.loads(Path(path).read_bytes())
        version = str(document["format_version"])
        if int(version.split(".")[0]) > 1:
            raise UsageError(f"{path} has the format {version}, this edgemask reads 1", "update edgemask")
        reports = {str(report["model"]["device"]): report for report in document["reports"]}
        chosen = reports.get(device) or (next(iter(reports.values())) if len(reports) == 1 else None)
        if chosen is None:
            known = ", ".join(reports) or "no device"
            raise UsageError(f"{path} has figures for {known}, not for {device}", "give another baseline")
        values = {
            str(entry["key"]): float(entry["value"])
            for entry in chosen["values"]
            if entry["key"] and entry["value"] is not None
        }
        return Baseline(
            path=os.fspath(path),
            date=str(chosen["environment"]["date"]),
            device=str(chosen["model"]["device"]),
            images=int(chosen["images"]["compared"]),
            values=values,
        )
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}", "check the path") from error
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no report of edgemask validate", "give the report.json of an earlier validation"
        ) from error
