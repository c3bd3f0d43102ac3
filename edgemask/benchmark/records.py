"""What a benchmark found, and on which machine: the one record behind every table and file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemask.benchmark.plan import BenchPlan
from edgemask.environment import Environment


@dataclass(frozen=True, slots=True)
class Timing:
    """One stage of one contestant over all rounds, in milliseconds.

    Attributes:
        median: half of the rounds took no longer.
        p90: nine of ten rounds took no longer; None for fewer than 10 rounds.
        p99: the same of 99 in 100; None for fewer than 100 rounds.
        ratio: median as a multiple of the first contestant's, so that 1.6 means that the first one is 1.6 times as
            fast; None where the first one has nothing to compare with.
    """

    median: float
    p90: float | None
    p99: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class FirstRuns:
    """What happens once: milliseconds of a whole prediction.

    Attributes:
        first: the first one after opening; whatever compiles itself then is in it.
        new_shape: the first one of an image of another size, after that; None where the network's input is always of
            one size, or nothing else fits.
        new_shape_again: the second one of that size.
    """

    first: float
    new_shape: float | None = None
    new_shape_again: float | None = None


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one way of calling a contestant comes to.

    Attributes:
        images: in each call.
        at_a_time: images that went through the network together; None where that is not known.
        streams: threads that called at the same time.
        milliseconds: median of a call.
        images_per_second: by the clock of the wall.
        ratio: images per second as a multiple of those with one image a call and one thread, measured alongside.
    """

    images: int
    at_a_time: int | None
    streams: int
    milliseconds: float
    images_per_second: float
    ratio: float


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """A contestant under the timing rules of MLPerf Inference for edge devices; never a submission.

    Attributes:
        name: `single-stream` or `multi-stream`.
        images: in each query; the next one starts when the last has ended.
        queries: how many were answered.
        queries_needed: the fewest from which the estimate can be taken.
        seconds: from the start of the first query to the start of the last, which is what the rules ask for.
        seconds_needed: what the rules ask for.
        percent: of which percentile the estimate is.
        estimate: milliseconds of a query, at or above the true percentile with a confidence of 0.99: the longest one
            after some were dropped; None where there were too few queries.
        dropped: how many of the longest ones were dropped.
        median: milliseconds of a query.
        drift: see `ContestantResult.drift`.
    """

    name: str
    images: int
    queries: int
    queries_needed: int
    seconds: float
    seconds_needed: float
    percent: int
    estimate: float | None
    dropped: int | None
    median: float
    drift: float | None

    @property
    def long_enough(self) -> bool:
        """Whether it lasted as long as the rules ask for."""
        return self.seconds >= self.seconds_needed


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process of its own took that opened a contestant and ran it, in MiB.

    Attributes:
        peak: its largest resident set; None where the system does not tell.
        before: the same before the contestant was opened: Python and the libraries.
        gpu: of the GPU's memory after the last run; None where no GPU was used, or nothing is there to ask.
    """

    peak: float | None
    before: float | None
    gpu: float | None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What a validation found out about a contestant.

    Attributes:
        report: the file that says so.
        images: how many were compared.
        values: by metric, in 0-1.
    """

    report: str
    images: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestantResult:
    """How one contestant did.

    Attributes:
        name: the model file, or what it is measured against.
        device: where it ran.
        precision: the arithmetic asked for beside what the file says: `file`, `tf32`, `bf16` or `fp16`; of a PyTorch
            model, its own.
        sha256: of the model file, or of the PyTorch weights.
        threads: processors that it was told to use.
        canvas: (H, W) of the network input in pixels; None where the graph makes it itself.
        batch: images that the file takes at a time; None: any number.
        detections: what it found on the image.
        load: milliseconds from file to ready, the libraries' imports left out.
        first_runs: what happened once, behind that.
        stages: by name, `decode`, reading and decoding the image file; `preprocess`, `inference` and `postprocess`;
            `total`, the sum of these three, for an image in memory; `end_to_end`, with `decode`; and `pasted`, the
            total with every mask pasted into a bitmap of the image, which is measured where a contestant pastes in
            its graph. `decode` and `end_to_end` are there where the image is a file.
        images_per_second: one after another, by the median of `total`.
        drift: median of the last tenth of the totals as a multiple of that of the first tenth; None for fewer than 20.
        throughput: other ways of calling it.
        scenario: under the rules of MLPerf.
        memory: None where it was not measured.
        accuracy: None where no report has it.
    """

    name: str
    device: str
    precision: str
    sha256: str | None
    threads: int
    canvas: tuple[int, int] | None
    batch: int | None
    detections: int
    load: float
    first_runs: FirstRuns
    stages: Mapping[str, Timing]
    images_per_second: float
    drift: float | None
    throughput: tuple[Throughput, ...] = ()
    scenario: ScenarioResult | None = None
    memory: Memory | None = None
    accuracy: Accuracy | None = None

    @property
    def title(self) -> str:
        """What tables call it."""
        return title_of(self.name, self.device, self.precision)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A contestant that could not be measured here.

    Attributes:
        name: see `ContestantResult`.
        device: as it was asked for.
        precision: see `ContestantResult`.
        reason: in words.
    """

    name: str
    device: str
    precision: str
    reason: str

    @property
    def title(self) -> str:
        """What tables call it."""
        return title_of(self.name, self.device, self.precision)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine at one moment; None: it does not tell.

    Attributes:
        load: processes that ran or waited in the minute before, on average.
        megahertz: clock of the processors, on average.
        celsius: the hottest of its sensors.
    """

    load: float | None
    megahertz: float | None
    celsius: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """A benchmark: all contestants on one image, in one process, taking turns.

    Attributes:
        image: the image file, or what was drawn.
        image_size: (H, W), pixels.
        plan: what was measured.
        contestants: in the order of their turns; the first one is the measure of the others.
        refusals: who could not be measured.
        notes: what a reader of the figures must know.
        before: the machine before the first contestant was opened.
        after: the machine after the last turn.
        environment: where and when.
    """

    image: str
    image_size: tuple[int, int]
    plan: BenchPlan
    contestants: tuple[ContestantResult, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    before: Conditions
    after: Conditions
    environment: Environment


def title_of(name: str, device: str, precision: str) -> str:
    """What tables and notes call a contestant."""
    words = f"{Path(name).name} on {device}"
    return words if precision in ("file", "fp32") else f"{words}, {precision}"
