"""Rounds, first runs, batches and streams, on made-up contestants."""

import threading
from collections.abc import Sequence

import pytest
from contenders import BLACK, WIDE, Clock, Scripted, steady

from edgemask.benchmark.contestants import Picture, Turn
from edgemask.benchmark.turns import first_runs, take_turns, throughputs


def test_contestants_take_turns_and_warm_up_rounds_are_not_counted() -> None:
    log: list[str] = []
    first = Scripted("a", [steady(value) for value in (90, 10, 20)], log)
    second = Scripted("b", [steady(value) for value in (80, 30, 40)], log)
    turns = take_turns([first, second], BLACK, repeats=2, warmup=1)
    assert log == ["a", "b"] * 3
    assert [[turn.inference for turn in own] for own in turns] == [[10, 20], [30, 40]]
    assert {turn.decode for own in turns for turn in own} == {None}


def test_everybody_pastes_where_one_cannot_do_without() -> None:
    log: list[str] = []
    own = Scripted("a", [steady(10, paste=5)], log)
    other = Scripted("b", [steady(36, paste=0)], log, pastes_itself=True)
    turns = take_turns([own, other], BLACK, repeats=1, warmup=0)
    assert log == ["a pasted", "b pasted"]
    assert [own[0].pasted for own in turns] == [18, 39]


def test_the_file_is_decoded_before_each_turn() -> None:
    seen: list[Picture] = []

    class Watching(Scripted):
        def turn(self, pixels: Picture, *, paste: bool) -> Turn:
            seen.append(pixels)
            return super().turn(pixels, paste=paste)

    decoded: list[Picture] = []

    def decode() -> Picture:
        decoded.append(BLACK.copy())
        return decoded[-1]

    contestants = [Watching("a", [steady(10)] * 3), Watching("b", [steady(20)] * 3)]
    turns = take_turns(contestants, BLACK, repeats=2, warmup=1, decode=decode)
    assert [id(pixels) for pixels in seen] == [id(pixels) for pixels in decoded]
    assert len(decoded) == 6
    for turn in (turn for own in turns for turn in own):
        assert turn.decode is not None
        assert turn.decode >= 0
        assert turn.end_to_end == turn.decode + turn.total


def test_first_runs() -> None:
    clock = Clock()
    log: list[str] = []
    seconds = (5.0, 3.0, 2.0)
    found = first_runs(Scripted("a", log=log, clock=clock, seconds=seconds, any_size=True), BLACK, WIDE, clock)
    assert (found.first, found.new_shape, found.new_shape_again) == (5000, 3000, 2000)
    assert log == ["a x1"] * 3


@pytest.mark.parametrize(("any_size", "other"), [(False, WIDE), (True, None)])
def test_no_new_shape_where_there_is_none(any_size: bool, other: Picture | None) -> None:
    clock, log = Clock(), list[str]()
    found = first_runs(Scripted("a", log=log, clock=clock, any_size=any_size), BLACK, other, clock)
    assert (found.first, found.new_shape, found.new_shape_again) == (1000, None, None)
    assert log == ["a x1"]


def test_batches() -> None:
    """One image takes 1 s; a first batch of 4 takes 9 s once, then 2 s: twice as many images a second."""
    clock, log = Clock(), list[str]()
    contestant = Scripted("a", log=log, clock=clock, seconds=(1, 1, 9, 2, 2, 0.5))
    (found,) = throughputs(contestant, BLACK, (4, 1, 4), 1, repeats=2, clock=clock)
    assert log == ["a x1"] * 2 + ["a x4"] * 3
    assert (found.images, found.at_a_time, found.streams) == (4, 4, 1)
    assert (found.milliseconds, found.images_per_second, found.ratio) == (2000, 2, 2)


def test_a_file_of_a_fixed_batch_is_measured_with_its_own() -> None:
    clock, log = Clock(), list[str]()
    (found,) = throughputs(Scripted("a", log=log, clock=clock, batch=3), BLACK, (2, 8), 1, repeats=1, clock=clock)
    assert (found.images, found.ratio) == (3, 3)
    assert log == ["a x1", "a x3", "a x3"]
    assert throughputs(Scripted("a", batch=1), BLACK, (2, 8), 1, repeats=1) == ()


def test_nothing_else_is_run_where_nothing_else_is_asked_for() -> None:
    log: list[str] = []
    assert throughputs(Scripted("a", log=log, shared=True), BLACK, (), 1, repeats=3) == ()
    assert throughputs(Scripted("a", log=log), BLACK, (1,), 4, repeats=3) == ()
    assert log == []


def test_streams_call_at_the_same_time() -> None:
    """Each call of the three threads waits for the two others: with fewer at a time the barrier would break."""
    barrier = threading.Barrier(3, timeout=20)
    clock = Clock()

    class Meeting(Scripted):
        def predict(self, images: Sequence[Picture]) -> None:
            if (
                threading.current_thread() is not threading.main_thread() and barrier.wait() == 0
            ) or threading.current_thread() is threading.main_thread():
                super().predict(images)

    contestant = Meeting("a", clock=clock, shared=True)
    (found,) = throughputs(contestant, BLACK, (), 3, repeats=2, clock=clock)
    # Two calls of each of three threads in 2 s: three times the one a second of a single thread.
    assert (found.images, found.streams, found.images_per_second, found.ratio) == (1, 3, 3, 3)
