"""What a benchmark found, and on which machine."""

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
class Timing:
    """One stage of one contestant over all rounds.

    Attributes:
        median: milliseconds.
        p90: milliseconds; nine of ten rounds were at most as long.
        ratio: median as a multiple of the first contestant's, so that 1.6 means that the first one is 1.6 times as
            fast; None where the first one has nothing to compare with.
    """

    median: float
    p90: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class ContestantResult:
    """How one contestant did.

    Attributes:
        name: the model file, or what it is measured against.
        device: where it ran.
        threads: processors that it was told to use.
        canvas: (H, W) of the network input in pixels; None where the graph makes it itself.
        detections: what it found on the image.
        load: milliseconds from file to ready, the libraries' imports left out.
        stages: by name, `preprocess`, `inference` and `postprocess`; `total`, their sum; and `pasted`, that sum with
            every mask pasted into a bitmap of the image, which is measured where a contestant pastes in its graph.
    """

    name: str
    device: str
    threads: int
    canvas: tuple[int, int] | None
    detections: int
    load: float
    stages: Mapping[str, Timing]


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


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A benchmark: all contestants on one image, in one process, taking turns.

    Attributes:
        image: the image file, or what was drawn.
        image_size: (H, W), pixels.
        warmup: rounds before times were taken.
        repeats: rounds that were timed.
        contestants: in the order of their turns; the first one is the measure of the others.
        notes: what a reader of the figures must know.
        environment: where and when.
    """

    image: str
    image_size: tuple[int, int]
    warmup: int
    repeats: int
    contestants: tuple[ContestantResult, ...]
    notes: tuple[str, ...]
    environment: Environment


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
