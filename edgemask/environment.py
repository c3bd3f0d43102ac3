"""The machine and the versions that figures were taken with."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import edgemask

_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "torchvision")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and when figures were taken.

    Attributes:
        date: UTC, ISO 8601.
        processor: name of the CPU.
        threads: processors that this process may use.
        load: processes that ran or waited in the minute before, on average; None where the system does not tell.
        system: operating system and machine type.
        versions: of Python and of the packages that matter, as far as they are installed.
    """

    date: str
    processor: str
    threads: int
    load: float | None
    system: str
    versions: Mapping[str, str]


def environment(threads: int) -> Environment:
    """What to write beside figures that were taken now with a number of threads."""
    versions = {"edgemask": edgemask.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        threads=threads,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.machine()}",
        versions=versions,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
