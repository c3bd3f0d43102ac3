"""Many threads on one detector get, bit for bit, what a single one gets."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from enduring import DEVICES, RUNTIMES, ModelOf, Picture, Predictor, result_bytes, scenes
from finding import Finding

import edgemask
from edgemask.detections import Detections
from edgemask.runtimes import Detector

THREADS = 8
PATIENCE = 1800  # seconds for all of them, then they hang


def differing(predictor: Predictor, shown: Sequence[Picture], each: int) -> int:
    """How many predictions of 8 threads, so many each, are not what a single thread got before."""
    expected = [result_bytes(predictor.predict(image)) for image in shown]
    assert len(set(expected)) == len(shown), "no two images look the same to the model"

    def work(first: int) -> int:
        numbers = (number % len(shown) for number in range(first, first + each))
        return sum(result_bytes(predictor.predict(shown[number])) != expected[number] for number in numbers)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(work, range(THREADS), timeout=PATIENCE))


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
        for number in range(THREADS * each // 10):
            detector.predict(shown[number % len(shown)])
        alone = (time.perf_counter() - begin) * 10
        begin = time.perf_counter()
        found = differing(detector, shown, each)
        together = time.perf_counter() - begin
    assert found == 0
    same = THREADS * each - found
    finding(
        f"{same:,} of {THREADS * each:,} bitwise equal, at {alone / together:.2f}x the pace", where=RUNTIMES[device]
    )


def test_streams_and_predictions_do_not_mix(small: Detector) -> None:
    shown = scenes(20)
    expected = [result_bytes(small.predict(image)) for image in shown]

    def stream(_: int) -> list[bytes]:
        return [result_bytes(found) for _, found in small.stream(shown) if isinstance(found, Detections)]

    def predict(_: int) -> list[bytes]:
        return [result_bytes(small.predict(image)) for image in shown]

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work, number) for number, work in enumerate((stream, predict) * 2)]
        assert [job.result(timeout=PATIENCE) for job in jobs] == [expected] * 4


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
