"""What to measure, and how often."""

from dataclasses import dataclass

from edgemask.checks import refuse
from edgemask.errors import UsageError

SECONDS_NEEDED = 600.0  # of a run by MLPerf's rules


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario of MLPerf Inference: images in each query, and the percentile of the latency that counts."""

    images: int
    percent: int


# For edge devices: mlcommons/inference_policies, inference_rules.adoc; mlcommons/inference, loadgen/mlperf.conf.
SCENARIOS = {"single-stream": Scenario(1, 90), "multi-stream": Scenario(8, 99)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to measure, and how often.

    Attributes:
        repeats: rounds that are timed.
        warmup: rounds before that.
        batches: numbers of images in a call, each measured by itself.
        streams: threads that call one detector at the same time; 1 measures none of that.
        memory: run every contestant once more, in a process of its own, for its peak memory.
        scenario: `single-stream` or `multi-stream` of MLPerf Inference; None: neither.
        duration: seconds of the scenario for each contestant; None: what the rules ask for.

    Raises:
        UsageError: a number below its minimum, no such scenario, or a duration of no scenario.
    """

    repeats: int = 10
    warmup: int = 2
    batches: tuple[int, ...] = ()
    streams: int = 1
    memory: bool = False
    scenario: str | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("warmup", 0), ("streams", 1)):
            if getattr(self, name) < least:
                refuse(name, f"at least {least}", getattr(self, name))
        if any(images < 1 for images in self.batches):
            refuse("batch", "at least 1 image", min(self.batches))
        if self.scenario is not None and self.scenario not in SCENARIOS:
            refuse("scenario", " or ".join(SCENARIOS), self.scenario)
        if self.duration is not None and self.scenario is None:
            raise UsageError("a duration is that of a scenario", f"add --scenario {next(iter(SCENARIOS))}")
        if self.duration is not None and not 0 < self.duration < float("inf"):
            refuse("duration", "seconds above 0", self.duration)
