"""The same image gives the same bits, again and again and in another process."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from enduring import DEVICES, RUNTIMES, ModelOf, Picture, Predictor, result_bytes, scenes
from finding import Finding

import edgemask
from edgemask.detections import Detections

IMAGES = 10


def different(predictor: Predictor, shown: Sequence[Picture], count: int) -> int:
    """How many of so many repeats of some images are not what the first prediction was."""
    first = [result_bytes(predictor.predict(image)) for image in shown]
    again = (
        result_bytes(predictor.predict(image)) == one
        for _ in range(count)
        for image, one in zip(shown, first, strict=True)
    )
    return sum(not same for same in again)


def elsewhere(path: Path, device: str) -> list[bytes]:
    """What another process gets."""
    with edgemask.load(path, device=device) as detector:
        return [result_bytes(detector.predict(image)) for image in scenes(IMAGES)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kind", "count"), [("small", 20), pytest.param("sample", 100, marks=pytest.mark.soak)], ids=["20", "100"]
)
def test_repeats_are_equal(model_of: ModelOf, device: str, kind: str, count: int, finding: Finding) -> None:
    path = model_of(kind)
    shown = scenes(IMAGES)
    with edgemask.load(path, device=device) as detector:
        assert different(detector, shown, count) == 0
        here = [result_bytes(detector.predict(image)) for image in shown]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        assert process.submit(elsewhere, path, device).result() == here
    finding(f"{count} of {count} equal for {IMAGES} images, in another process too", where=RUNTIMES[device])


class LastBit:
    """Changes the last bit of a score once in a while."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._random = predictor, np.random.default_rng(0)

    def predict(self, source: Picture) -> Detections:
        found = self._predictor.predict(source)
        if self._random.random() < 0.95:
            return found
        scores = found.scores.copy()
        scores[:1] = np.nextafter(scores[:1], np.float32(0))
        return Detections(**{name: getattr(found, name) for name in found.__slots__} | {"scores": scores})


def test_a_changing_bit_is_seen(model_of: ModelOf) -> None:
    path = model_of("small")
    with edgemask.load(path, device="cpu") as detector:
        assert different(LastBit(detector), scenes(IMAGES), 20) > 0
