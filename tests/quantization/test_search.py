"""The search, with a laboratory that computes what another would measure."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pytest

from edgemask.errors import UsageError
from edgemask.quantization.accuracy import Accuracy, Kept
from edgemask.quantization.latency import Comparison
from edgemask.quantization.layers import Layer
from edgemask.quantization.search import search
from edgemask.quantization.search_records import Layers, Search, grouped

FP32 = frozenset[Layer]()
BASE = 100.0  # milliseconds of the FP32 model


def layer(name: str, *, weights: int = 1000, depthwise: bool = False, weight: str | None = None) -> Layer:
    stage = name.partition("/")[0]
    return Layer(name=name, stage=stage, operator="Conv", weight=weight or name, weights=weights, depthwise=depthwise)


LAYERS = tuple(
    [layer(f"backbone/{number}") for number in range(6)]
    + [layer(f"backbone/depthwise/{number}", depthwise=True, weights=10) for number in range(2)]
    + [layer(f"fpn/{number}") for number in range(2)]
    + [layer(f"rpn/{number}", weight="shared", weights=500) for number in range(3)]
    + [layer("box_head/0", weights=5000), layer("mask_head/0"), layer("mask_head/1")]
)
NAMES = [one.name for one in LAYERS]


@dataclass
class Fake:
    """Layers win milliseconds each, by device, and lose shares of AP each; `extra` adds what only pairs do."""

    won: Mapping[str, float] = field(default_factory=dict)  # by the beginning of a layer's name; 1 where none fits
    lost: Mapping[str, float] = field(default_factory=dict)  # in the same way; 0
    extra: Callable[[Layers], float] = lambda layers: 0.0  # milliseconds
    by_device: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    judges: bool = True
    measured: list[str] = field(default_factory=list)
    began: Callable[[], None] = lambda: None

    def milliseconds(self, layers: Layers, factor: float = 1.0) -> float:
        return BASE - factor * math.fsum(_of(self.won, one, 1.0) for one in layers) + self.extra(layers)

    def loss(self, layers: Layers) -> float:
        return math.fsum(_of(self.lost, one, 0.0) for one in layers)  # in whatever order a set has them

    def size(self, layers: Layers) -> int:
        return 100_000 - 3 * sum({one.weight: one.weights for one in layers}.values())

    def compare(self, layers: Layers, others: Layers) -> tuple[Comparison, ...]:
        self._note("compare")
        return tuple(
            Comparison(
                device=device,
                first=(self.milliseconds(layers, factor),) * 4,
                second=(self.milliseconds(others, factor),) * 4,
            )
            for device, factor in self.by_device.items()
        )

    def accuracy(self, layers: Layers) -> Accuracy:
        self._note("accuracy")
        loss = self.loss(layers)
        kept = Kept(device="cpu", what="mask AP", reference=0.5, own=0.5 * (1 - loss), allowed=0.01)
        return Accuracy(kept=(kept,), failures=() if loss <= 0.01 else ("mask AP drop",))

    def disturbance(self, layers: Layers) -> float:
        self._note("disturbance")
        return self.loss(layers)

    def _note(self, what: str) -> None:
        self.measured.append(what)
        self.began()


def _of(values: Mapping[str, float], one: Layer, otherwise: float) -> float:
    return next((value for name, value in values.items() if one.name.startswith(name)), otherwise)


def names(found: Search) -> list[str]:
    return [one.name for one in found.layers]


def without(*beginnings: str) -> list[str]:
    return [name for name in NAMES if not name.startswith(beginnings)]


def test_where_nothing_is_lost_one_measurement_of_accuracy_will_do() -> None:
    fake = Fake()
    found = search(LAYERS, fake)
    assert names(found) == NAMES
    assert (found.passed, found.stopped, found.notes) == (True, "done", ())
    assert fake.measured.count("accuracy") == 1
    assert [trial.about for trial in found.trials] == ["all layers"]
    assert found.trials[0].accuracy == found.accuracy
    assert (found.fp32_bytes, found.bytes) == (fake.size(FP32), fake.size(frozenset(LAYERS)))
    assert found.latency[0].milliseconds == (BASE, BASE - len(LAYERS))
    assert [group.reason for group in found.groups] == [""] * 6


def test_groups_say_what_they_cost_and_give() -> None:
    found = search(LAYERS, Fake())
    assert [(group.name, group.layers, group.quantized) for group in found.groups] == [
        ("backbone", 6, 6),
        ("backbone, depthwise", 2, 2),
        ("fpn", 2, 2),
        ("rpn", 3, 3),
        ("box_head", 1, 1),
        ("mask_head", 2, 2),
    ]
    rpn = found.groups[3]
    assert rpn.weights == pytest.approx(500 / 15520)  # three layers, and one weight
    assert rpn.bytes_saved == 3 * 500
    quantized, exact = rpn.latency[0].milliseconds
    assert exact - quantized == pytest.approx(3)


def test_without_images_to_validate_on_only_speed_is_looked_at() -> None:
    fake = Fake(judges=False, lost={"": 1.0}, won={"backbone/depthwise": -3})
    found = search(LAYERS, fake)
    assert names(found) == without("backbone/depthwise")
    assert (found.passed, found.accuracy, found.trials) == (None, None, ())
    assert "accuracy" not in fake.measured


def test_a_group_that_is_slower_stays_in_fp32() -> None:
    found = search(LAYERS, Fake(won={"backbone/depthwise": -4}))
    assert names(found) == without("backbone/depthwise")
    slow = found.groups[1]
    assert (slow.quantized, slow.reason) == (0, "slower in INT8")
    assert slow.latency[0].ratio < 1
    assert [trial.about for trial in found.trials] == ["all layers that are not slower"]


def test_what_is_hardly_slower_is_quantized() -> None:
    assert names(search(LAYERS, Fake(won={"backbone/depthwise": -1}))) == NAMES


def test_the_devices_decide_together() -> None:
    """3 ms a layer slower on one device and as much faster on the other is no reason; twice as fast is none either."""
    won = {"backbone/depthwise": -4}
    assert names(search(LAYERS, Fake(won=won, by_device={"cpu": 1.0, "other": -1.0}))) == NAMES
    assert names(search(LAYERS, Fake(won=won, by_device={"cpu": 1.0, "other": 0.5}))) == without("backbone/depthwise")


def test_a_stage_may_be_slower_though_none_of_its_groups_is() -> None:
    """Depthwise layers in eight bits cost 20 ms, and so does it to pass between them and the others."""

    def extra(layers: Layers) -> float:
        inside = [one.depthwise for one in layers if one.stage == "backbone"]
        return 20.0 if any(inside) else 21.0 if inside else 0.0

    found = search(LAYERS, Fake(extra=extra))
    assert names(found) == without("backbone")
    assert found.groups[0].reason == "slower in INT8 together with all of backbone"


def test_something_is_quantized_even_where_all_of_it_is_slower() -> None:
    found = search(LAYERS, Fake(won={"": -5}))
    assert names(found) == ["box_head/0"]
    assert found.passed
    assert found.notes == ("INT8 is slower than FP32 on cpu: 1.05 times as long",)
    assert {group.reason for group in found.groups if not group.quantized} >= {"slower in INT8"}


def test_several_stages_may_be_slower() -> None:
    found = search(LAYERS, Fake(won={"backbone/depthwise": -4, "mask_head": -3}))
    assert names(found) == without("backbone/depthwise", "mask_head")


def test_a_group_that_loses_too_much_stays_in_fp32() -> None:
    found = search(LAYERS, Fake(lost={"mask_head": 0.3, "fpn": 0.001}))
    assert names(found) == without("mask_head")
    assert found.passed
    assert found.accuracy is not None
    assert found.accuracy.lost == pytest.approx(0.002)
    head, pyramid = found.groups[5], found.groups[2]
    assert head.alone is not None
    assert pyramid.alone is not None
    assert head.alone.damage == pytest.approx(60)
    assert pyramid.alone.damage == pytest.approx(0.2)
    assert (head.reason, pyramid.reason) == ("it loses too much accuracy even alone", "")


def test_groups_that_lose_too_much_only_together() -> None:
    """Of two that have the same loss the one that wins less time is left out."""
    found = search(LAYERS, Fake(lost={"box_head": 0.006, "rpn": 0.002}, won={"box_head": 20}))
    assert names(found) == without("rpn/")
    assert found.groups[3].reason == "it loses too much accuracy together with other layers"


@pytest.mark.parametrize("seed", range(12))
def test_no_choice_of_groups_within_the_budget_is_faster(seed: int) -> None:
    generator = np.random.default_rng(seed)
    stages = sorted({one.stage for one in LAYERS})
    fake = Fake(
        won=dict(zip(stages, generator.uniform(0.2, 4, len(stages)), strict=True)),
        lost=dict(zip(stages, generator.choice([0, 0.0004, 0.001, 0.003, 0.02], len(stages)), strict=True)),
    )
    found = search(LAYERS, fake)
    groups = list(grouped(LAYERS).values())
    within = [
        choice
        for count in range(1, len(groups) + 1)
        for parts in combinations(groups, count)
        if fake.loss(choice := FP32.union(*parts)) <= 0.01
    ]
    assert found.passed == (fake.loss(frozenset(found.layers)) <= 0.01)
    if within:
        fastest = min(map(fake.milliseconds, within))
        # What groups win is added up as ratios, so that two that come out alike may be taken for one another.
        assert fake.milliseconds(frozenset(found.layers)) <= fastest + 0.5


def test_single_layers_of_a_group_are_found() -> None:
    fake = Fake(lost={"backbone/3": 0.2, "backbone/d": 0.001})
    found = search(LAYERS, fake)
    assert names(found) == without("backbone/3")
    backbone = found.groups[0]
    assert (backbone.layers, backbone.quantized, backbone.reason) == (6, 5, "the rest of it loses too much accuracy")
    # All of them, six groups alone, all but the backbone's, and a bisection of six.
    assert fake.measured.count("accuracy") == 1 + 6 + 1 + 3


def test_layers_that_share_their_weights_stay_together() -> None:
    found = search(LAYERS, Fake(lost={"rpn/1": 0.2}))
    assert names(found) == without("rpn/")


def test_layers_are_not_won_back_where_that_costs_time() -> None:
    """Where only a part of the backbone is quantized, passing between the two takes 10 ms."""

    def extra(layers: Layers) -> float:
        return 10.0 if 0 < sum(one.stage == "backbone" for one in layers) < 8 else 0.0

    found = search(LAYERS, Fake(lost={"backbone/3": 0.2, "backbone/d": 0.2}, extra=extra))
    assert names(found) == without("backbone")
    assert found.passed
    assert found.groups[0].reason == "parts of it lose too much accuracy, and without them it is slower in INT8"


def test_where_no_group_is_within_the_budget_single_layers_may_be() -> None:
    pairs = [layer(f"{stage}/{number}") for stage in ("fpn", "box_head") for number in range(4)]
    found = search(pairs, Fake(lost={"fpn/0": 0.5, "box_head/2": 0.5}))
    assert names(found) == [one.name for one in pairs if one.name not in ("fpn/0", "box_head/2")]
    assert found.passed


def test_nothing_within_the_budget() -> None:
    found = search(LAYERS, Fake(lost={"fpn": 0.3, "": 0.5}))
    assert found.passed is False
    assert names(found) == ["fpn/0"]  # the least damage that was seen
    assert found.stopped == "done"


def test_what_cannot_be_measured_is_not_within_the_budget() -> None:
    found = search(LAYERS, Fake(lost={"": math.nan}))
    assert found.passed is False


def test_a_deadline_in_the_past() -> None:
    fake = Fake()
    found = search(LAYERS, fake, deadline=time.monotonic() - 1)
    assert names(found) == NAMES
    assert (found.passed, found.accuracy, found.stopped) == (False, None, "the time limit")
    assert found.notes == ("accuracy was not measured: the time was up before",)
    assert fake.measured == ["compare"]  # with FP32, at the end


def test_a_deadline_ends_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measurement takes a second; the more there is time for, the faster the model."""
    fastest = []
    for limit in range(4, 60):
        clock = [0.0]
        monkeypatch.setattr("edgemask.quantization.search.time.monotonic", lambda now=clock: now[0])

        def tick(now: list[float] = clock) -> None:
            now[0] += 1

        fake = Fake(lost={"backbone/3": 0.2, "mask_head": 0.3, "box_head": 0.5}, began=tick)
        found = search(LAYERS, fake, deadline=float(limit))
        assert clock[0] <= limit + 1
        if found.passed:
            fastest.append(fake.milliseconds(frozenset(found.layers)))
        if found.stopped == "done":
            break
    assert found.stopped == "done"
    assert len(fastest) > 5
    assert fastest == sorted(fastest, reverse=True)
    assert names(found) == without("backbone/3", "mask_head", "box_head")


def test_no_layers() -> None:
    with pytest.raises(UsageError, match="no layer to quantize"):
        search([], Fake())
