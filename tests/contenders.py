"""Contestants that take the time they are told, on a clock that only they move; records of what they would come to.

from contenders import Clock, Scripted, record, result, steady
"""

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from toy_model import SPEC

from edgemask.benchmark import BenchPlan, BenchReport, Conditions, ContestantResult, FirstRuns
from edgemask.benchmark.contestants import Contestant, Picture, Turn
from edgemask.benchmark.percentiles import timing
from edgemask.environment import Environment

BLACK = np.zeros((64, 64, 3), np.uint8)
WIDE = np.zeros((64, 128, 3), np.uint8)


class Clock:
    """Seconds that stand still until somebody takes some."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


class Scripted(Contestant):
    """Gives one prepared turn after the other, and writes what it is asked for into a log.

    Args:
        name: its name in the log.
        turns: what it gives.
        log: `NAME`, `NAME pasted` or `NAME xN` for a call with N images; several may share it.
        clock: is moved by each call.
        seconds: how long the calls take, in turn; the last one goes on for ever.
    """

    device = "nowhere"
    load = 5.0
    spec = SPEC

    def __init__(
        self,
        name: str,
        turns: Iterable[Turn] = (),
        log: list[str] | None = None,
        *,
        clock: Clock | None = None,
        seconds: Sequence[float] = (1.0,),
        **attributes: Any,
    ) -> None:
        self.name = name
        self._turns = iter(turns)
        self._log = [] if log is None else log
        self._clock = clock
        self._seconds = list(seconds)
        for attribute, value in attributes.items():
            setattr(self, attribute, value)

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        self._log.append(f"{self.name} pasted" if paste else self.name)
        return next(self._turns)

    def predict(self, images: Sequence[Picture]) -> None:
        self._log.append(f"{self.name} x{len(images)}")
        self.at_a_time = len(images)
        if self._clock is not None:
            self._clock.take(self._seconds[0])
        if len(self._seconds) > 1:
            self._seconds.pop(0)

    def close(self) -> None:
        raise AssertionError("whoever opened it closes it")


def steady(inference: float, *, paste: float | None = None) -> Turn:
    return Turn(preprocess=1.0, inference=inference, postprocess=2.0, paste=paste, detections=3)


def result(name: str = "a.onnx", milliseconds: float = 20.0, **changes: Any) -> ContestantResult:
    """A contestant on the CPU whose turns all took as long, beside a first one of 20 ms."""
    stages = {
        "preprocess": timing([1.0], [1.0]),
        "inference": timing([milliseconds - 3.0], [17.0]),
        "postprocess": timing([2.0], [2.0]),
        "total": timing([milliseconds], [20.0]),
    }
    usual = ContestantResult(
        name=name,
        device="cpu",
        precision="file",
        sha256="a" * 64,
        threads=2,
        canvas=(64, 96),
        batch=1,
        detections=3,
        load=200.0,
        first_runs=FirstRuns(30.0, 25.0, 21.0),
        stages=stages,
        images_per_second=1000 / milliseconds,
        drift=None,
    )
    return dataclasses.replace(usual, **changes)


def record(*results: ContestantResult, **changes: Any) -> BenchReport:
    """A benchmark of these."""
    usual = BenchReport(
        image="a.png",
        image_size=(64, 96),
        plan=BenchPlan(),
        contestants=results,
        refusals=(),
        notes=("<b>one</b>",),
        before=Conditions(0.1, 2600.0, None),
        after=Conditions(1.9, 2600.0, None),
        environment=Environment(
            date="2026-11-23T01:02:03+00:00",
            processor="Any CPU",
            threads=2,
            load=0.35,
            system="Linux x86_64",
            versions={"edgemask": "0.1.0"},
        ),
    )
    return dataclasses.replace(usual, **changes)
