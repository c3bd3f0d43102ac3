"""Memory stays as it is, however many images of however many sizes come by."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from enduring import DEVICES, RUNTIMES, ModelOf, NativeLeak, PythonLeak, growth, plain
from finding import Finding

MIB = 2**20
Form = tuple[str, int, int, int]
# Kind of model, predictions, those after which growth counts, bytes allowed.
SHORT = ("small", 600, 200, 8 * MIB)
LONG = ("sample", 10_000, 1_000, 50 * MIB)


def grown(path: Path, device: str, form: Form, wrap: Any) -> int:
    _, predictions, after, _ = form
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(growth, path, device, predictions=predictions, after=after, wrap=wrap).result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["600", "10000"])
def test_memory_does_not_grow(model_of: ModelOf, device: str, form: Form, finding: Finding) -> None:
    found = grown(model_of(form[0]), device, form, plain)
    assert found < form[3]
    finding(f"{found / MIB:+.1f} MiB after the first {form[2]:,}", where=RUNTIMES[device])


@pytest.mark.parametrize("leak", [PythonLeak, NativeLeak])
def test_a_leak_is_seen(model_of: ModelOf, leak: type) -> None:
    assert grown(model_of("small"), "cpu", SHORT, leak) > SHORT[3]
