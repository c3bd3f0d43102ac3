"""The two scenarios of MLPerf Inference for edge devices, as far as one image and one process can follow them."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from edgemask.benchmark.contestants import Contestant, Picture
from edgemask.benchmark.percentiles import drift, early_stop
from edgemask.benchmark.plan import SCENARIOS, SECONDS_NEEDED
from edgemask.benchmark.records import ScenarioResult
from edgemask.progress import progress


def run_scenario(
    name: str,
    contestant: Contestant,
    pixels: Picture,
    *,
    duration: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ScenarioResult:
    """Sends queries, each when the last one was answered, and estimates the latency that the rules ask for.

    It ends by the clock alone: where queries are too few for an estimate by then, there is none.

    Args:
        name: of `SCENARIOS`.
        contestant: answers; it was warmed up.
        pixels: uint8 [H, W, 3] RGB, the image of every query; the rules would draw from a data set.
        duration: seconds from the start of the first query to that of the last; None: what the rules ask for.
        clock: gives seconds.
    """
    scenario, seconds = SCENARIOS[name], SECONDS_NEEDED if duration is None else duration
    images = [pixels] * scenario.images
    issued: list[float] = []
    milliseconds: list[float] = []

    def in_time() -> Iterator[None]:
        while not issued or issued[-1] - issued[0] < seconds:
            yield

    for _ in progress(in_time(), name):
        issued.append(clock())
        contestant.predict(images)
        milliseconds.append(1000 * (clock() - issued[-1]))
    stop = early_stop(milliseconds, scenario.percent)
    return ScenarioResult(
        name=name,
        images=scenario.images,
        queries=len(milliseconds),
        queries_needed=stop.needed,
        seconds=issued[-1] - issued[0],
        seconds_needed=SECONDS_NEEDED,
        percent=scenario.percent,
        estimate=stop.estimate,
        dropped=stop.dropped,
        median=float(np.median(milliseconds)),
        drift=drift(milliseconds),
    )
