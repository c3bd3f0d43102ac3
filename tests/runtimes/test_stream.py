"""`Detector.stream`: order, overlap, bounds, and that everything ends with it. Events decide, not time."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_model import SPEC, busy_proto, write_toy

import edgemask
from edgemask import Detections
from edgemask.errors import BrokenOutput, EdgemaskError, ForkedProcessError, ImageError, UsageError
from edgemask.runtimes import Detector, RuntimeOptions, read_model, write_model
from edgemask.runtimes.stream import Steps, overlapped
from edgemask.scenes import draw_scene
from edgemask.semantic import SemanticMap

LONG = 20  # seconds after which a test that waits for a thread has failed
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]


def grey(level: int, width: int = 64) -> NDArray[np.uint8]:
    return np.full((64, width, 3), level, np.uint8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgemask ")] == []


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "m.onnx")


class Brightest(Detector):
    """Finds one box in each image, as high as the brightest of its pixels; notes what the graph was given."""

    def run(self, images: NDArray[np.float32], sizes: NDArray[np.int64], rois: Any = None) -> dict[str, Any]:
        self.runs = [*getattr(self, "runs", []), len(images)]
        self.rois = rois
        brightest = images.max((1, 2, 3))
        if (brightest == 66).any():
            return {"batch_index": np.zeros(1, np.int64), "boxes": np.full((1, 4), np.nan, np.float32)}
        zero = np.zeros(len(images), np.float32)
        boxes = np.stack([zero, zero, sizes[:, 1].astype(np.float32), brightest], 1)
        labels = np.ones(len(images), np.int64)
        return {"batch_index": np.arange(len(images)), "boxes": boxes, "scores": brightest / 1000, "labels": labels}


@pytest.fixture
def brightest(toy: Path) -> Iterator[Callable[..., Brightest]]:
    """Opens such a detector with a spec of other values."""
    with contextlib.ExitStack() as opened:

        def open_one(**values: Any) -> Brightest:
            detector = opened.enter_context(Brightest(read_model(toy), "cpu"))
            detector.spec = SPEC.replace(tasks=("boxes",), mask_size=None, **values)
            return detector

        yield open_one


def levels(results: Any) -> list[float]:
    return [float(found.boxes[0, 3]) for _, found in results]


def take_all(results: Any, found: list[Any]) -> None:
    for one in results:
        found.append(one)  # noqa: PERF402


class Source:
    """An iterable that can be closed, and knows how often it was read."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.read, self.closed_by = items, 0, ""

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> Any:
        if self.read == len(self.items):
            raise StopIteration
        item = self.items[self.read]
        self.read += 1
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed_by = threading.current_thread().name


def steps(**others: Any) -> Steps[Any, Any, Any, Any]:
    plain: dict[str, Any] = {
        "prepare": lambda item: item,
        "run": list,
        "finish": lambda outputs, index, item: outputs[index],
        "fit": lambda one, other: True,
        "check": lambda: None,
    }
    return Steps(**plain | others)


def stream_of(items: Any, *, least: int = 1, most: int = 1, ahead: int = 2, runs: int = 1, **others: Any) -> Any:
    return overlapped(items, steps(**others), least=least, most=most, ahead=ahead, runs=runs, closing=(items,))


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_and_results_come_in_order_and_are_those_of_predict(tmp_path: Path, device: str) -> None:
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    images = [draw_scene(index, size=48 + 16 * (index % 3)).image for index in range(8)]
    with edgemask.load(tmp_path / "m.onnx", device=device) as detector:
        expected = detector.predict(images)
        for image, one, (pixels, found) in zip(images, expected, detector.stream(images), strict=True):
            assert isinstance(found, Detections)
            assert np.array_equal(pixels, image)
            assert np.array_equal(found.boxes, one.boxes)
            assert np.array_equal(found.scores, one.scores)
            assert np.array_equal(detector.predict(image).scores, one.scores), "others may use it meanwhile"
        assert len({one.scores.tobytes() for one in expected}) == len(images)


def test_three_steps_and_the_consumer_are_at_work_at_once() -> None:
    together = threading.Barrier(3)
    met: dict[str, int] = {}

    def meeting(step: str, number: int) -> None:
        if number == {"finish": 0, "run": 1, "prepare": 2}[step]:
            together.wait(LONG)  # broken, if one of the others does not come while this one is at work
            met[step] = number

    def prepare(item: int) -> int:
        meeting("prepare", item)
        return item

    ran = [threading.Event() for _ in range(6)]

    def run(batch: list[int]) -> list[int]:
        meeting("run", batch[0])
        ran[batch[0]].set()
        return batch

    def finish(outputs: list[int], index: int, item: int) -> int:
        meeting("finish", item)
        return item

    for number in stream_of(range(6), prepare=prepare, run=run, finish=finish):
        if number < 5:
            assert ran[number + 1].wait(LONG), "the graph goes on while the consumer works"
    assert met == {"finish": 0, "run": 1, "prepare": 2}


def test_runs_are_under_way_at_once_and_results_stay_in_order() -> None:
    second = threading.Event()
    under_way, most_under_way = 0, 0
    counting = threading.Lock()

    def run(batch: list[int]) -> list[int]:
        nonlocal under_way, most_under_way
        with counting:
            under_way += 1
            most_under_way = max(most_under_way, under_way)
        if batch == [0]:
            assert second.wait(LONG), "the second run does not wait for the first"
        elif batch == [1]:
            second.set()
        with counting:
            under_way -= 1
        return batch

    assert list(stream_of(range(20), runs=2, run=run)) == list(range(20))
    assert most_under_way == 2


@pytest.mark.parametrize("late", ["the error", "what is behind it"])
def test_an_error_keeps_its_place_among_runs_at_once(late: str) -> None:
    waits = threading.Event()

    def run(batch: list[int]) -> list[int]:
        if batch[0] == (2 if late == "the error" else 3):
            assert waits.wait(LONG)
        elif batch[0] in (2, 3):
            waits.set()
        return [1 // (2 - batch[0])]

    results = stream_of(iter(range(50)), runs=2, run=run)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("device", DEVICES)
def test_streams_give_what_one_gives(tmp_path: Path, device: str) -> None:
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    images = [draw_scene(index, size=48 + 16 * (index % 3)).image for index in range(12)]
    with edgemask.load(tmp_path / "m.onnx", device=device) as one:
        expected = one.predict(images)
    with edgemask.load(tmp_path / "m.onnx", device=device, options=RuntimeOptions(streams=2, threads=2)) as several:
        found = [result for _, result in several.stream(images)]
    for result, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(result.boxes, other.boxes)
        np.testing.assert_array_equal(result.scores, other.scores)


@pytest.mark.parametrize(("most", "ahead", "runs"), [(1, 0, 1), (1, 2, 1), (3, 4, 1), (1, 2, 3)])
def test_an_endless_source_is_read_no_further_than_said(most: int, ahead: int, runs: int) -> None:
    limit, taken, read = ahead + (2 + runs) * most, 0, 0
    changed = threading.Condition()

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            with changed:
                read += 1
                changed.notify()
            yield read

    def beyond() -> int:
        return read - taken

    with contextlib.closing(stream_of(endless(), least=most, most=most, ahead=ahead, runs=runs)) as results:
        for number in results:
            taken += 1
            assert number == taken
            with changed:
                assert changed.wait_for(lambda: beyond() >= limit, LONG), "so far it goes without the consumer"
                assert beyond() == limit
                if taken == 1:
                    assert not changed.wait_for(lambda: beyond() > limit, 0.1)
            if taken == 50:
                break
    assert beyond() == limit


def test_a_run_waits_for_the_least_and_takes_the_most_that_has_been_read() -> None:
    batches: list[list[int]] = []
    prepared = [threading.Event() for _ in range(9)]

    def prepare(item: int) -> int:
        prepared[max(item - 1, 0)].set()  # the one before has been handed on
        return item

    def run(batch: list[int]) -> list[int]:
        batches.append(batch)
        if batch[0] == 0:
            assert prepared[4].wait(LONG)
        return batch

    assert list(stream_of(range(9), most=3, prepare=prepare, run=run)) == list(range(9))
    assert batches[0][0] == 0
    assert len(batches[1]) == 3, "so many were there"
    batches.clear()
    fit = lambda one, other: (one < 5) == (other < 5)  # noqa: E731
    assert list(stream_of(range(9), least=3, most=3, fit=fit, run=run)) == list(range(9))
    assert batches == [[0, 1, 2], [3, 4], [5, 6, 7], [8]]


def test_a_live_image_is_not_kept_waiting_for_the_next_one() -> None:
    seen = threading.Event()

    def camera() -> Iterator[int]:
        yield 0
        assert seen.wait(LONG), "the first result comes before there is a second image"
        yield 1

    for number in stream_of(camera(), most=4):
        assert number in (0, 1)
        seen.set()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_a_fixed_batch_takes_any_number(brightest: Any, batch: int, count: int) -> None:
    detector = brightest(batch=3)
    images = [grey(10 + index, width=64 if index % 3 else 128) for index in range(count)]
    assert levels(detector.stream(images, batch=batch)) == [10 + index for index in range(count)]
    assert set(getattr(detector, "runs", [])) <= {3}


def test_neighbours_of_one_canvas_share_a_run_of_a_dynamic_batch(brightest: Any) -> None:
    detector = brightest(batch=None)
    images = [grey(10 + index, width=128 if index == 5 else 64) for index in range(8)]
    assert levels(detector.stream(images, batch=2)) == [10 + index for index in range(8)]
    assert detector.runs == [2, 2, 1, 1, 2]
    assert levels(detector.stream(images)) == [10 + index for index in range(8)]
    assert detector.runs[5:] == [1] * 8


@pytest.mark.parametrize(
    ("third", "error"),
    [
        (KeyError("the iterable's own"), KeyError),
        (SystemExit(3), SystemExit),
        ("nothing.png", ImageError),
        (np.zeros((64, 64)), UsageError),
        (grey(66), BrokenOutput),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_an_error_has_its_place_in_the_order(
    brightest: Any, third: Any, error: type[BaseException], batch: int
) -> None:
    source = Source([grey(1), grey(2), third, *[grey(4)] * 50])
    found: list[Any] = []
    with pytest.raises(error):
        take_all(brightest(batch=None).stream(source, batch=batch), found)
    assert levels(found) == [1, 2]
    assert source.closed_by == "edgemask read"
    assert source.read < 15


def test_an_error_of_the_graph_comes_behind_what_it_gave() -> None:
    def run(batch: list[int]) -> list[int]:
        return [1 // (3 - one) for one in batch]

    results = stream_of(iter(range(50)), run=run)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [], "the generator is at its end"


def test_it_ends_with_its_consumer(brightest: Any) -> None:
    detector = brightest()

    def consume(source: Source, how: str) -> None:
        for number, _ in enumerate(detector.stream(source)):
            if number == 1 and how == "break":
                break
            if number == 1 and how == "error":
                raise KeyError

    for how in ("break", "error"):
        source = Source([grey(1)] * 1000)
        with contextlib.suppress(KeyError):
            consume(source, how)
        assert source.closed_by == "edgemask read"
        assert source.read < 20
    never = Source([grey(1)])
    detector.stream(never).close()
    assert never.read == 0


def test_one_of_its_own_threads_may_collect_it() -> None:
    gone, collected = threading.Event(), threading.Event()

    def prepare(item: int) -> int:
        if item == 1:
            assert gone.wait(LONG)
            gc.collect()
            collected.set()
        return item

    gc.disable()
    try:
        results = stream_of(iter(range(100)), prepare=prepare)
        assert next(results) == 0
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("edgemask ")]
        held: list[Any] = [results]
        held.append(held)  # a circle that only the collector ends
        del results, held
        gone.set()
        assert collected.wait(LONG)
    finally:
        gc.enable()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)


def test_an_interrupt_ends_it() -> None:
    sent = threading.Event()
    ended = threading.Event()

    def camera() -> Generator[int, None, None]:
        try:
            yield 0
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            sent.set()
            yield from range(1, 100_000)
        finally:
            ended.set()

    def run(batch: list[int]) -> list[int]:
        assert sent.wait(LONG)
        return batch

    with pytest.raises(KeyboardInterrupt):
        for _ in stream_of(camera(), run=run):
            pass
    assert ended.is_set()


def test_an_array_that_is_written_again_does_no_harm(brightest: Any) -> None:
    frame = grey(0)

    def camera() -> Iterator[NDArray[np.uint8]]:
        for level in range(1, 9):
            frame[:] = level
            yield frame

    found = list(brightest().stream(camera(), ahead=4))
    assert levels(found) == list(range(1, 9))
    assert [pixels[0, 0, 0] for pixels, _ in found] == list(range(1, 9))


def test_each_image_has_its_proposals(brightest: Any) -> None:
    detector = brightest(proposals="input")
    boxes = [np.full((index, 4), [1, 2, 30, 40], np.float32) for index in range(1, 5)]
    images = [grey(index) for index in range(1, 5)]
    for (_, found), own in zip(detector.stream(images, ahead=0, proposals=iter(boxes)), boxes, strict=True):
        assert isinstance(found, Detections)
        assert found.boxes[0, 3] == len(own)
    assert len(detector.rois) == 4
    for given, got in ((boxes[:2], "got fewer"), ([*boxes, boxes[0]], "got more")):
        results = detector.stream(images, proposals=Source(given))
        assert levels(next(results) for _ in range(min(4, len(given)))) == [1, 2, 3, 4][: len(given)]
        with pytest.raises(UsageError, match=f"one array for each image, {got}"):
            next(results)


def test_a_semantic_model_gives_maps(brightest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = brightest()
    detector.spec = SPEC.replace(tasks=("semantic",), mask_size=None)

    def run(images: NDArray[np.float32], *_: Any) -> dict[str, Any]:
        labels = np.full((1, *images.shape[2:]), int(images.max()), np.uint8)
        return {"labels": labels, "scores": np.ones(labels.shape, np.float32)}

    monkeypatch.setattr(detector, "run", run)
    for level, (pixels, found) in zip((1, 2), detector.stream([grey(1), grey(2)]), strict=True):
        assert isinstance(found, SemanticMap)
        assert (found.labels == level).all()
        assert pixels.max() == level


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ("a.jpg", {}, "sources: expected an iterable of images, got builtins.str"),
        (grey(1), {}, r"got numpy.ndarray\n.*of an array: list\(images\)"),
        (3, {}, "got builtins.int"),
        ([], {"batch": 0}, "batch: expected a whole number from 1 to 9999, got 0"),
        ([], {"batch": 2.0}, "batch: expected a whole number"),
        ([], {"ahead": -1}, "ahead: expected a whole number from 0"),
        ([], {"proposals": []}, "this model finds its own"),
    ],
)
def test_wrong_use_is_refused_at_once(brightest: Any, sources: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        brightest(batch=None).stream(sources, **options)


def test_more_than_a_fixed_batch_is_refused(brightest: Any) -> None:
    with pytest.raises(UsageError, match="batch: expected a whole number from 1 to 2, got 3"):
        brightest(batch=2).stream([], batch=3)


def test_a_closed_detector_is_refused(toy: Path) -> None:
    with edgemask.load(toy, device="cpu") as detector:
        results = detector.stream([grey(1)] * 50)
        next(results)
    with pytest.raises(UsageError, match="this detector was closed"):
        list(results)
    with pytest.raises(UsageError, match="this detector was closed"):
        detector.stream([grey(1)])


def ask_in_child(detector: Detector, results: Any, answers: Connection) -> None:
    for ask in (lambda: next(results), lambda: detector.stream([grey(1)])):
        try:
            ask()
            answers.send(None)
        except EdgemaskError as error:
            answers.send(error)
    results.close()
    answers.send("closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_and_does_not_hang(toy: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with edgemask.load(toy, device="cpu") as detector:
        results = detector.stream([grey(1)] * 20)
        next(results)
        child = context.Process(target=ask_in_child, args=(detector, results, theirs), daemon=True)
        child.start()
        try:
            for _ in range(2):
                assert ours.poll(LONG), "the child hangs"
                assert isinstance(ours.recv(), ForkedProcessError)
            assert ours.poll(LONG), "the child hangs when it closes the stream"
            assert ours.recv() == "closed"
            child.join(LONG)
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()
        assert len(list(results)) == 19, "the parent's is as good as before"
