"""Opening and closing leaves nothing behind: no memory, no descriptor, no thread."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import enduring
import pytest
from enduring import DEVICES, RUNTIMES, Held, ModelOf, Opening, scenes
from finding import Finding

MIB = 2**20
WAYS = {
    "closed": enduring.closed,
    "forgotten": enduring.forgotten,
    "streamed": enduring.streamed,
    "failing": enduring.failing,
}
Form = tuple[str, int, int]
# Kind of model, times, bytes allowed.
SHORT = ("small", 20, 16 * MIB)
LONG = ("sample", 200, 64 * MIB)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Apart from the one that runs the tests, which holds more than detectors."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process


def left(process: ProcessPoolExecutor, path: Path, device: str, form: Form, opening: Opening) -> Held:
    _, times, _ = form
    shown = scenes(1)[0]
    return process.submit(enduring.left_over, path, device, opening, times=times, shown=shown).result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["20", "200"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left(
    process: ProcessPoolExecutor, model_of: ModelOf, device: str, form: Form, way: str, finding: Finding
) -> None:
    found = left(process, model_of(form[0]), device, form, WAYS[way])
    assert (found.descriptors, found.threads) == (0, 0)
    assert found.memory < form[2]
    finding(f"{found.memory / MIB:+.1f} MiB, 0 descriptors, 0 threads", where=f"{RUNTIMES[device]}, {way}")


def test_what_is_lost_is_seen(process: ProcessPoolExecutor, model_of: ModelOf) -> None:
    path = model_of("small")
    assert left(process, path, "cpu", SHORT, enduring.descriptor_lost).descriptors == SHORT[1]
    assert left(process, path, "cpu", SHORT, enduring.never_closed).threads >= SHORT[1]
    assert left(process, path, "cpu", SHORT, enduring.memory_lost).memory > SHORT[2]
