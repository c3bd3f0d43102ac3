"""The scenarios of MLPerf on a made-up contestant and clock."""

import pytest
from contenders import BLACK, Clock, Scripted

from edgemask.benchmark.scenarios import run_scenario


def test_queries_follow_one_another_until_the_time_is_over() -> None:
    """The first takes half a second, the others a quarter: the one that starts at 10 s is the 40th and last."""
    clock, log = Clock(), list[str]()
    contestant = Scripted("a", log=log, clock=clock, seconds=(0.5, 0.25))
    found = run_scenario("single-stream", contestant, BLACK, duration=10, clock=clock)
    assert found.queries == len(log) == 40
    assert set(log) == {"a x1"}
    assert found.seconds == 10.0
    assert (found.median, found.percent, found.images) == (250, 90, 1)
    assert (found.queries_needed, found.estimate, found.dropped) == (64, None, None)
    assert not found.long_enough


@pytest.mark.parametrize(("slow", "estimate"), [(38, 1000), (39, 2000)])
def test_estimate_of_a_run_as_long_as_the_rules_ask_for(slow: int, estimate: float) -> None:
    """Of about 562 queries the 38 longest are dropped: binom.cdf(39, 562, 0.1) is below 0.01, that of 40 above."""
    clock = Clock()
    contestant = Scripted("a", clock=clock, seconds=[2.0] * slow + [1.0])
    found = run_scenario("single-stream", contestant, BLACK, clock=clock)
    assert found.long_enough
    assert (found.seconds, found.queries) == (600, 601 - slow)
    assert (found.dropped, found.estimate) == (38, estimate)
    assert found.drift == pytest.approx(0.5)


def test_multi_stream_asks_for_eight_images_and_the_99th_percentile() -> None:
    clock, log = Clock(), list[str]()
    contestant = Scripted("a", log=log, clock=clock, seconds=[0.5, *[0.25] * 3])
    found = run_scenario("multi-stream", contestant, BLACK, duration=170, clock=clock)
    assert set(log) == {"a x8"}
    assert (found.images, found.percent, found.queries_needed) == (8, 99, 662)
    assert (found.queries, found.dropped, found.estimate) == (680, 0, 500)
    assert not found.long_enough
