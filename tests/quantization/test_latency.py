"""Two models in turns: what is believed of their times."""

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import pytest
from pictures import smooth, written
from toy_model import SPEC, busy_proto, write_toy

from edgemask.errors import DeviceUnavailable, UsageError
from edgemask.quantization import latency
from edgemask.quantization.latency import (
    ENOUGH_SECONDS,
    MOST_ROUNDS,
    Comparison,
    clear_ratio,
    compare_latency,
    is_enough,
)
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.profiles import NodeRun
from edgemask.runtimes.runtime import Array, Runtime


def comparison(*ratios: float, device: str = "cpu") -> Comparison:
    return Comparison(device=device, first=(10.0,) * len(ratios), second=tuple(10 * ratio for ratio in ratios))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFile, ModelFile]:
    """Nothing to do, and two convolutions of a whole picture."""
    folder = tmp_path_factory.mktemp("models")
    write_model(busy_proto(), SPEC, folder / "busy.onnx")
    return read_model(write_toy(folder / "toy.onnx")), read_model(folder / "busy.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return written(tmp_path_factory.mktemp("pictures") / "all", [smooth(0, (120, 128)), smooth(1, (128, 100))])


def test_rounds_are_compared_in_pairs() -> None:
    """Half of the rounds met a busy machine, which says nothing about the models."""
    compared = Comparison(device="cpu", first=(10, 30, 10, 30), second=(11, 33, 11, 33))
    assert compared.ratio == pytest.approx(1.1)
    assert compared.milliseconds == (20, 22)
    assert compared.turned().ratio == pytest.approx(1 / 1.1)


def test_what_the_rounds_do_not_agree_on_is_no_difference() -> None:
    assert comparison(1.2, 1.2, 1.2, 0.9).clear == pytest.approx(1.2)
    assert comparison(0.8, 0.8, 0.8, 1.1).clear == pytest.approx(0.8)
    assert comparison(1.2, 1.2, 1.2, 0.9, 0.9).clear == 1


def test_devices_count_alike() -> None:
    twice, half = comparison(2, 2, 2, 2), comparison(0.5, 0.5, 0.5, 0.5, device="openvino:CPU")
    assert clear_ratio([twice, half]) == pytest.approx(1)
    assert clear_ratio([twice, comparison(1.3, 0.7, 1.2, 0.6)]) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("ratios", "seconds", "enough"),
    [
        pytest.param([1.5] * 3, 0, False, id="too few"),
        pytest.param([1.5] * 4, 0, True, id="plain"),
        pytest.param([0.5] * 4, 0, True, id="plain, the other way"),
        pytest.param([1.5, 1.5, 1.5, 0.9], 0, False, id="one disagrees"),
        pytest.param([1.02] * 4, 0, False, id="a small difference"),
        pytest.param([1.02] * 6, 0, True, id="a small one that all rounds show"),
        pytest.param([1.02, 0.98] * 3, 0, False, id="none"),
        pytest.param([1.02, 0.98] * 3, ENOUGH_SECONDS, True, id="none, and slow"),
        pytest.param([1.02, 0.98] * (MOST_ROUNDS // 2), 0, True, id="none, however long"),
    ],
)
def test_rounds_end_where_they_say_enough(ratios: list[float], seconds: float, enough: bool) -> None:
    assert is_enough([10.0] * len(ratios), [10 * ratio for ratio in ratios], seconds=seconds) is enough


class Clock:
    """Passes when a runtime says so, and in no other way."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def rest(self) -> None:
        self.now += 1


class Timed(Runtime):
    """Takes as many seconds as its model has nodes; notes each turn."""

    clock = Clock()
    turns: ClassVar[list[int]] = []

    @classmethod
    def unavailable(cls, target: str) -> None:
        return None

    def __init__(self, model: ModelFile, target: str) -> None:
        self.device, self.nodes = target, len(model.proto.graph.node)

    def run(self, inputs: object) -> dict[str, Array]:
        self.clock.now += self.nodes
        self.turns.append(self.nodes)
        return {}

    @property
    def promised(self) -> tuple[str, ...]:
        return ()

    def profile(self, model: ModelFile, inputs: object) -> tuple[NodeRun, ...]:
        return ()

    def close(self) -> None:
        self.turns.append(0)


def test_models_take_turns(
    models: tuple[ModelFile, ModelFile], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "time", Timed.clock)
    monkeypatch.setattr(latency, "let_threads_rest", Timed.clock.rest)
    monkeypatch.setattr(latency, "open_runtime", lambda model, device: (Timed(model, device), ()))
    Timed.turns.clear()
    compared = compare_latency(*models, "cpu", pictures)
    one, other = (len(model.proto.graph.node) for model in models)
    assert compared.device == "cpu"
    assert compared.first == pytest.approx([1000 * one] * 4)
    assert compared.second == pytest.approx([1000 * other] * 4)
    # Once each on either picture, which nobody counts; then in turns, each first in every second round.
    assert Timed.turns == [one, other] * 2 + [other, one, one, other] * 2 + [0, 0]


@pytest.mark.parametrize("device", ["cpu", "openvino:CPU"])
def test_real_models_are_timed(models: tuple[ModelFile, ModelFile], pictures: list[Path], device: str) -> None:
    compared = compare_latency(*models, device, pictures)
    assert compared.device == device
    assert len(compared.first) == len(compared.second) <= MOST_ROUNDS
    assert min(compared.first + compared.second) > 0


def test_bad_input(models: tuple[ModelFile, ModelFile], pictures: list[Path]) -> None:
    with pytest.raises(UsageError, match="at least one to measure time on"):
        compare_latency(*models, "cpu", [])
    with pytest.raises(UsageError, match="there is no device 'tpu'"):
        compare_latency(*models, "tpu", pictures)
    with pytest.raises(DeviceUnavailable):
        compare_latency(*models, "cuda:99", pictures)
    given = dataclasses.replace(models[0], spec=SPEC.replace(proposals="input"))
    with pytest.raises(UsageError, match="takes its proposals from the caller"):
        compare_latency(given, given, "cpu", pictures)


def test_as_a_record() -> None:
    compared = comparison(1.25, 0.5)
    assert Comparison.from_record(compared.to_record()) == compared
    broken = [{}, {"device": "cpu", "first": [], "second": []}, {"device": "cpu", "first": [1], "second": [0]}]
    for record in (*broken, {"device": "cpu", "first": [1.0], "second": [1.0, 2.0]}):
        with pytest.raises((KeyError, ValueError)):
            Comparison.from_record(record)
