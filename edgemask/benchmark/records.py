"""What a benchmark found, and on which machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgemask.environment import Environment


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
