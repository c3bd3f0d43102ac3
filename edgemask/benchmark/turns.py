"""Rounds in which contestants take turns, and what can be measured of each of them alone."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from edgemask.benchmark.contestants import Contestant, Picture, Turn
from edgemask.benchmark.records import FirstRuns, Throughput
from edgemask.processors import let_threads_rest
from edgemask.progress import progress

Clock = Callable[[], float]


def take_turns(
    contestants: Sequence[Contestant],
    pixels: Picture,
    *,
    repeats: int,
    warmup: int,
    decode: Callable[[], Picture] | None = None,
) -> list[list[Turn]]:
    """Lets the contestants take turns; gives the timed turns of each, without those of the warm-up.

    Args:
        contestants: in this order.
        pixels: uint8 [H, W, 3] RGB.
        repeats: rounds that are timed.
        warmup: rounds before.
        decode: gives the image from its file, before each turn; None where there is no file.
    """
    paste = any(contestant.pastes_itself for contestant in contestants)
    turns: list[list[Turn]] = [[] for _ in contestants]
    for number in progress(range(warmup + repeats), "bench"):
        for contestant, own in zip(contestants, turns, strict=True):
            let_threads_rest()
            started = time.perf_counter()
            image = pixels if decode is None else decode()
            decoded = 1000 * (time.perf_counter() - started)
            turn = contestant.turn(image, paste=paste)
            if number >= warmup:
                own.append(turn if decode is None else replace(turn, decode=decoded))
    return turns


def first_runs(
    contestant: Contestant, pixels: Picture, other: Picture | None, clock: Clock = time.perf_counter
) -> FirstRuns:
    """Runs a contestant that has just been opened.

    Args:
        contestant: not run before.
        pixels: uint8 [H, W, 3] RGB.
        other: one that makes another shape of the network's input; None: there is none.
        clock: gives seconds.
    """
    first = _milliseconds(contestant, [pixels], clock)
    if other is None or not contestant.any_size:
        return FirstRuns(first)
    return FirstRuns(first, _milliseconds(contestant, [other], clock), _milliseconds(contestant, [other], clock))


def throughputs(
    contestant: Contestant,
    pixels: Picture,
    batches: Sequence[int],
    streams: int,
    *,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> tuple[Throughput, ...]:
    """Measures a contestant with several images a call, and with several threads.

    A file of a fixed batch is measured with that number alone, one that any number fits with all of them.

    Args:
        contestant: warmed up.
        pixels: uint8 [H, W, 3] RGB, every image of a batch.
        batches: images in a call.
        streams: threads; 1: none beside the caller's own.
        repeats: calls of each kind, and of each thread.
        clock: gives seconds.
    """
    fixed = contestant.batch
    wanted = [images for images in dict.fromkeys(batches) if images > 1] if fixed is None else [fixed]
    wanted = [images for images in wanted if images > 1]
    together = streams if contestant.shared else 1
    if not wanted and together == 1:
        return ()
    single = _rate(contestant, [pixels], 1, repeats, clock)
    found = []
    for images, threads in [*((images, 1) for images in wanted), *([(1, together)] if together > 1 else [])]:
        contestant.predict([pixels] * images)  # a batch is a new shape
        milliseconds, rate = _rate(contestant, [pixels] * images, threads, repeats, clock)
        found.append(Throughput(images, contestant.at_a_time, threads, milliseconds, rate, rate / single[1]))
    return tuple(found)


def _rate(
    contestant: Contestant, images: Sequence[Picture], threads: int, repeats: int, clock: Clock
) -> tuple[float, float]:
    """Median milliseconds of a call, and images per second of all threads together."""

    def calls(_: int) -> list[float]:
        return [_milliseconds(contestant, images, clock) for _ in range(repeats)]

    let_threads_rest()
    if threads == 1:
        started = clock()
        taken = calls(0)
        seconds = clock() - started
    else:
        with ThreadPoolExecutor(threads) as pool:
            started = clock()
            taken = [value for own in pool.map(calls, range(threads)) for value in own]
            seconds = clock() - started
    return float(np.median(taken)), threads * repeats * len(images) / seconds


def _milliseconds(contestant: Contestant, images: Sequence[Picture], clock: Clock) -> float:
    started = clock()
    contestant.predict(images)
    return 1000 * (clock() - started)
