"""What finds something on an image, and how long it takes."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgemask.validation import sides


class Clock:
    """Time that passes by resting and by working alone, in place of `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def rest(self) -> None:
        self.now += 1
        self.events.append("rest")

    def predict(self, pixels: Any, proposals: Any) -> str:
        self.now += 1
        self.events.append("predict")
        return "found"


@pytest.mark.parametrize(("timed", "events"), [(True, ["rest", "predict"]), (False, ["predict"])])
def test_a_side_is_timed_alone_once_the_threads_of_the_one_before_rest(
    monkeypatch: pytest.MonkeyPatch, timed: bool, events: list[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(sides, "time", clock)
    monkeypatch.setattr(sides, "let_threads_rest", clock.rest)
    monkeypatch.setattr(sides, "RunEntry", lambda found, seconds, *_: (found, seconds))
    side: Any = SimpleNamespace(spec=SimpleNamespace(tasks=("boxes",)), detector=clock, timed=timed)
    entry: Any = sides.LiveSide.look(side, cast("Any", None), np.zeros((1, 1, 3), np.uint8), None)
    assert clock.events == events
    assert entry == ("found", pytest.approx(1))
