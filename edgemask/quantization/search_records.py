"""What a search for layers to quantize found, and what it asks of whoever measures."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edgemask.quantization.accuracy import Accuracy
from edgemask.quantization.latency import Comparison
from edgemask.quantization.layers import Layer

Layers = frozenset[Layer]


class Laboratory(Protocol):
    """Measures a model with some layers quantized; with none it is the FP32 model. Nothing is measured twice.

    Attributes:
        judges: whether it can measure accuracy.
    """

    judges: bool

    def size(self, layers: Layers) -> int:
        """Bytes of the file."""

    def compare(self, layers: Layers, others: Layers) -> tuple[Comparison, ...]:
        """Latency of the first model and of the second, on each device."""

    def accuracy(self, layers: Layers) -> Accuracy:
        """What it keeps of FP32's accuracy."""

    def disturbance(self, layers: Layers) -> float:
        """How far layers of one stage move what the stage gives: a share of its magnitude, cheap, to rank layers by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFinding:
    """What it means to quantize a group of layers that are tried together.

    Attributes:
        name: of the group, see `Layer.group`.
        layers: how many it has.
        quantized: how many of them are quantized in the end.
        weights: share of the weights of all layers that were tried.
        bytes_saved: what the file gains by quantizing it.
        latency: on each device: quantized first, in FP32 second; all else quantized, or where that loses too much
            accuracy all else in FP32.
        alone: what the model keeps with this group quantized alone; None where that was not measured.
        reason: why some or all of it stayed in FP32; empty where nothing did.
    """

    name: str
    layers: int
    quantized: int
    weights: float
    bytes_saved: int
    latency: tuple[Comparison, ...]
    alone: Accuracy | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A choice of layers whose accuracy was measured.

    Attributes:
        about: which choice, in words.
        layers: names of the quantized ones, in the graph's order.
        bytes: of the file.
        accuracy: what it keeps.
    """

    about: str
    layers: tuple[str, ...]
    bytes: int
    accuracy: Accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The outcome of a search.

    Attributes:
        layers: to quantize, in the graph's order.
        passed: whether the budget holds; None where no accuracy was measured.
        accuracy: of the result.
        latency: FP32 first, the result second, on each device.
        bytes: of the result.
        fp32_bytes: of the FP32 model.
        groups: what each group costs and gives.
        trials: in the order in which they were measured.
        stopped: why it ended.
        timed: whether times decided anything.
        notes: what else should be known.
    """

    layers: tuple[Layer, ...]
    passed: bool | None
    accuracy: Accuracy | None
    latency: tuple[Comparison, ...]
    bytes: int
    fp32_bytes: int
    groups: tuple[GroupFinding, ...]
    trials: tuple[Trial, ...]
    stopped: str
    timed: bool
    notes: tuple[str, ...]


def grouped(layers: Iterable[Layer]) -> dict[str, Layers]:
    """Layers by the name of their group, in the graph's order."""
    groups: dict[str, set[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.group, set()).add(layer)
    return {name: frozenset(members) for name, members in groups.items()}


def shared(layers: Iterable[Layer]) -> list[Layers]:
    """Layers that share their weights, together: rounding them rounds all; in the graph's order."""
    parts: dict[str, set[Layer]] = {}
    for layer in layers:
        parts.setdefault(layer.weight, set()).add(layer)
    return [frozenset(part) for part in parts.values()]


def share_of_weights(layers: Iterable[Layer], whole: Iterable[Layer]) -> float:
    """The share of the numbers of all weights that some layers have; shared ones count once."""
    own, every = ({layer.weight: layer.weights for layer in some} for some in (layers, whole))
    return sum(own.values()) / sum(every.values())
