"""Many threads on one detector get, bit for bit, what a single one gets."""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

import pytest
from enduring import DEVICES, RUNTIMES, ModelOf, Picture, Predictor, result_bytes, scenes
from finding import Finding

import edgemask
from edgemask.detections import Detections
from edgemask.runtimes import Detector

THREADS = 8
PATIENCE = 1800  # seconds for all of them, then they hang
Result = TypeVar("Result")


def differing(
    predictor: Predictor, shown: Sequence[Picture], each: int, *, threads: int = THREADS, patience: float = PATIENCE
) -> int:
    """How many predictions of some threads, so many each, are not what a single thread got before."""
    alone = [predictor.predict(image) for image in shown]
    assert len({found.scores.tobytes() for found in alone}) == len(shown), "no two images look the same to the model"
    expected = [result_bytes(found) for found in alone]

    def work(first: int) -> int:
        numbers = (number % len(shown) for number in range(first, first + each))
        return sum(result_bytes(predictor.predict(shown[number])) != expected[number] for number in numbers)

    return sum(at_once([functools.partial(work, first) for first in range(threads)], patience))


def at_once(tasks: Sequence[Callable[[], Result]], patience: float = PATIENCE) -> list[Result]:
    """What each gives in a thread of its own; an executor would wait for ever for one that hangs."""
    results = [Future[Result]() for _ in tasks]
    for pair in zip(tasks, results, strict=True):
        threading.Thread(target=settle, args=pair, daemon=True).start()
    if hanging := wait(results, timeout=patience).not_done:
        raise TimeoutError(f"{len(hanging)} of {len(tasks)} threads hang")
    return [result.result() for result in results]


def settle(task: Callable[[], Result], result: Future[Result]) -> None:
    try:
        result.set_result(task())
    except BaseException as error:
        result.set_exception(error)


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def small(device: str, model_of: ModelOf) -> Iterator[Detector]:
    with edgemask.load(model_of("small"), device=device) as detector:
        yield detector


@pytest.mark.parametrize(
    ("kind", "each"), [("small", 20), pytest.param("sample", 1000, marks=pytest.mark.soak)], ids=["20", "1000"]
)
def test_threads_get_what_a_single_one_gets(
    model_of: ModelOf, device: str, kind: str, each: int, finding: Finding
) -> None:
    shown = scenes(20)
    with edgemask.load(model_of(kind), device=device) as detector:
        begin = time.perf_counter()
        assert differing(detector, shown, THREADS * each // 10, threads=1) == 0
        alone = (time.perf_counter() - begin) * 10
        begin = time.perf_counter()
        assert differing(detector, shown, each) == 0
        together = time.perf_counter() - begin
    every = f"{THREADS * each:,}"
    finding(f"{every} of {every} bitwise equal, at {alone / together:.2f}x the pace", where=RUNTIMES[device])


def test_streams_and_predictions_do_not_mix(small: Detector) -> None:
    shown = scenes(20)
    expected = [result_bytes(small.predict(image)) for image in shown]

    def stream() -> list[bytes]:
        return [result_bytes(found) for _, found in small.stream(shown) if isinstance(found, Detections)]

    def predict() -> list[bytes]:
        return [result_bytes(small.predict(image)) for image in shown]

    assert at_once((stream, predict) * 2) == [expected] * 4


class SharedBuffer:
    """Keeps the result in one place until it is handed out."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, source: Picture) -> Detections:
        self._result = self._predictor.predict(source)
        time.sleep(0.001)  # another thread comes by
        return self._result


def test_a_shared_buffer_is_seen(small: Detector) -> None:
    assert differing(SharedBuffer(small), scenes(20), 20) > 0


class Deadlock:
    """Waits once for what does not come by itself."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._turns = predictor, itertools.count()
        self.coming = threading.Event()

    def predict(self, source: Picture) -> Detections:
        if next(self._turns) == 30:
            self.coming.wait()
        return self._predictor.predict(source)


def test_a_hanging_thread_is_seen(small: Detector) -> None:
    predictor = Deadlock(small)
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError, match="threads hang"):
        differing(predictor, scenes(20), 2, patience=0.5)
    predictor.coming.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
