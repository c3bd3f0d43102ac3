"""What turns come to."""

from collections.abc import Sequence

from edgemask.benchmark.contestants import Contestant, Turn
from edgemask.benchmark.percentiles import drift, timing
from edgemask.benchmark.records import ContestantResult, FirstRuns, Timing

STAGES = ("decode", "preprocess", "inference", "postprocess", "total", "end_to_end", "pasted")


def result_of(
    contestant: Contestant, turns: Sequence[Turn], first: Sequence[Turn], firsts: FirstRuns, threads: int
) -> ContestantResult:
    """The figures of a contestant.

    Args:
        contestant: whose.
        turns: its own.
        first: those of the first contestant, the measure of all.
        firsts: how its first runs went.
        threads: processors that it was told to use.
    """
    stages = _timings(turns, first)
    return ContestantResult(
        name=contestant.name,
        device=contestant.device,
        precision=contestant.precision,
        sha256=contestant.sha256,
        threads=threads,
        canvas=contestant.canvas,
        batch=contestant.batch,
        detections=turns[-1].detections,
        load=contestant.load,
        first_runs=firsts,
        stages=stages,
        images_per_second=1000 / stages["total"].median,
        drift=drift([turn.total for turn in turns]),
    )


def _timings(turns: Sequence[Turn], first: Sequence[Turn]) -> dict[str, Timing]:
    """Timings by stage, of those stages that were measured."""
    timings = {}
    for stage in STAGES:
        milliseconds = [getattr(turn, stage) for turn in turns]
        if None not in milliseconds:
            timings[stage] = timing(milliseconds, [getattr(turn, stage) for turn in first])
    return timings
