"""The search for the fastest model within a budget of accuracy: which layers to quantize.

First speed, of which nothing but an image or two is needed: a group of layers that makes the model slower stays in
FP32. Then accuracy, where there are images to validate on: if the model loses too much, each group is quantized alone,
and the choices of groups are measured from the fastest on until one keeps enough. What is left out then gives back
those of its layers that do no harm.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from edgemask.errors import UsageError
from edgemask.progress import progress
from edgemask.quantization.accuracy import Accuracy
from edgemask.quantization.latency import SLOWER, Comparison, clear_ratio
from edgemask.quantization.layers import Layer
from edgemask.quantization.search_records import (
    GroupFinding,
    Laboratory,
    Layers,
    Search,
    Trial,
    grouped,
    share_of_weights,
    shared,
)

DONE = "done"  # why a search ends that no time limit ends
# Losses of groups add up, if not exactly: a choice whose groups lose more than this many times the budget one by one
# is not measured.
HOPELESS = 2.0


class _TimeUp(Exception):
    """The deadline is reached."""


def search(
    layers: Sequence[Layer], laboratory: Laboratory, *, deadline: float | None = None, timed: bool = True
) -> Search:
    """Finds which layers to quantize.

    Args:
        layers: all that the recipe quantizes, in the graph's order.
        laboratory: measures.
        deadline: of `time.monotonic`; it is looked at before each measurement, and one that has begun is finished. Then
            the best so far is the result. The last comparison with FP32 is made in any case.
        timed: whether times on the laboratory's devices decide anything.

    Raises:
        UsageError: there are no layers.
        DatasetError: the laboratory's images cannot be judged on.
    """
    if not layers:
        raise UsageError("there is no layer to quantize", "choose a recipe with other stages")
    work = _Work(tuple(layers), laboratory, deadline)
    try:
        if timed:
            work.leave_out_slow()
        if laboratory.judges:
            work.keep_the_budget()
        stopped = DONE
    except _TimeUp:
        stopped = "the time limit"
    return work.outcome(stopped, timed=timed)


@dataclass(slots=True)
class _Work:
    """A search in progress.

    Attributes:
        layers: all of them.
        current: those that are not known to be slower.
        latency: by group, or by stage where all its groups were tried together: quantized, and in FP32.
        saved: bytes of the file, by group.
        slow: why groups are in FP32, where speed has to do with it.
        trials: by what is quantized.
        rejected: trials that turned out slower than smaller ones.
    """

    layers: tuple[Layer, ...]
    laboratory: Laboratory
    deadline: float | None
    current: Layers = frozenset()
    groups: dict[str, Layers] = field(default_factory=dict)
    latency: dict[str, tuple[Comparison, ...]] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    trials: dict[Layers, Trial] = field(default_factory=dict)
    rejected: set[Layers] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.current, self.groups = frozenset(self.layers), grouped(self.layers)

    def leave_out_slow(self) -> None:
        """Takes out of `current` what makes it slower; always the worst first, since its neighbours depend on it."""
        fresh = self._units()
        while True:
            for name, members in progress(list(fresh.items()), "time groups"):
                self._check_time()
                self.latency[name] = self.laboratory.compare(self.current, self.current - members)
                self.saved[name] = self.laboratory.size(self.current - members) - self.laboratory.size(self.current)
            units = {name: members for name, members in self._units().items() if members < self.current}
            worst = min(units, key=lambda name: clear_ratio(self.latency[name]), default=None)
            if worst is None or clear_ratio(self.latency[worst]) * SLOWER > 1:
                return
            self.current -= units[worst]
            for name, members in self.groups.items():
                if members <= units[worst]:
                    self.slow[name] = "slower in INT8" if name == worst else f"slower in INT8 together with {worst}"
            stages = {layer.stage for layer in units[worst]}
            fresh = {
                name: members for name, members in self._units().items() if stages & {layer.stage for layer in members}
            }

    def keep_the_budget(self) -> None:
        """Measures choices of layers, the fastest first, until one is within the budget, and then widens it."""
        if self._passes(self.current, "all layers" if not self.slow else "all layers that are not slower"):
            return
        groups = {name: members for name, members in self.groups.items() if members <= self.current}
        for name, members in groups.items():
            if self._passes(members, f"{name} alone"):
                # Where a model finds too little its heads have less to do: what was measured with it says little.
                self._check_time()
                self.latency[name] = self.laboratory.compare(members, frozenset())
        for choice in self._choices(groups):
            if self._passes(choice, f"without {self._absent(choice, groups)}"):
                break
        self._win_back(groups)

    def outcome(self, stopped: str, *, timed: bool) -> Search:
        """The record of all that was found."""
        best = self._best()
        chosen = self.current if best is None else best
        trial = None if best is None else self.trials[best]
        latency = self.laboratory.compare(frozenset(), chosen)
        notes = [
            f"INT8 is slower than FP32 on {compared.device}: {compared.clear:.2f} times as long"
            for compared in latency
            if timed and compared.clear > SLOWER
        ]
        if self.laboratory.judges and trial is None:
            notes.append("accuracy was not measured: the time was up before")
        return Search(
            layers=self._ordered(chosen),
            passed=(trial is not None and trial.accuracy.passed) if self.laboratory.judges else None,
            accuracy=None if trial is None else trial.accuracy,
            latency=latency,
            bytes=self.laboratory.size(chosen),
            fp32_bytes=self.laboratory.size(frozenset()),
            groups=tuple(self._finding(name, members, chosen) for name, members in self.groups.items()),
            trials=tuple(self.trials.values()),
            stopped=stopped,
            timed=timed,
            notes=tuple(notes),
        )

    def _units(self) -> dict[str, Layers]:
        """What is left out at a time: groups, and stages of several, which may be fast together or not at all."""
        units = {name: members for name, members in self.groups.items() if members <= self.current}
        stages: dict[str, list[Layers]] = {}
        for members in units.values():
            stages.setdefault(next(iter(members)).stage, []).append(members)
        whole = {f"all of {stage}": frozenset[Layer]().union(*parts) for stage, parts in stages.items() if parts[1:]}
        return units | whole

    def _choices(self, groups: dict[str, Layers]) -> Iterator[Layers]:
        """Choices of groups, the fastest first; none of which a part has failed, or that cannot be hoped for."""
        choices = [
            frozenset[Layer]().union(*parts)
            for count in range(1, len(groups))
            for parts in combinations(groups.values(), count)
        ]
        for choice in sorted(choices, key=self._cost):
            alone = (self.trials[part].accuracy for part in groups.values() if part <= choice)
            failed = any(part <= choice and not trial.accuracy.passed for part, trial in self.trials.items())
            if not failed and sum(max(0.0, accuracy.damage) for accuracy in alone) <= HOPELESS:
                yield choice

    def _win_back(self, groups: dict[str, Layers]) -> None:
        """Quantizes as many layers of each group that was left out as the budget allows."""
        base = self._passing() or frozenset()
        for name in sorted(groups, key=lambda name: self._cost(self.current - groups[name]), reverse=True):
            if groups[name] <= base:
                continue
            parts = self._ranked(shared(layer for layer in self.layers if layer in groups[name] - base))
            low, high = 0, len(parts)
            while high - low > 1:
                middle = (low + high) // 2
                wider = base.union(*parts[:middle])
                passed = self._passes(wider, f"{middle} of {len(parts)} parts of {name} too")
                low, high = (middle, high) if passed else (low, middle)
            if not low:
                continue
            wider = base.union(*parts[:low])
            if base:
                self._check_time()
                if clear_ratio(self.laboratory.compare(base, wider)) > SLOWER:
                    self.slow[name] = "parts of it lose too much accuracy, and without them it is slower in INT8"
                    self.rejected |= {known for known in self.trials if base < known}
                    continue
            base = wider

    def _ranked(self, parts: Sequence[Layers]) -> list[Layers]:
        """Layers by how little they disturb their stage."""
        disturbances = []
        for part in parts:
            self._check_time()
            disturbances.append(self.laboratory.disturbance(part))
        order = sorted(range(len(parts)), key=disturbances.__getitem__)
        return [parts[index] for index in order]

    def _passes(self, layers: Layers, about: str) -> bool:
        if layers not in self.trials:
            self._check_time()
            accuracy = self.laboratory.accuracy(layers)
            names = tuple(layer.name for layer in self._ordered(layers))
            size = self.laboratory.size(layers)
            self.trials[layers] = Trial(about=about, layers=names, bytes=size, accuracy=accuracy)
        return self.trials[layers].accuracy.passed

    def _best(self) -> Layers | None:
        """What was measured and is best: the fastest within the budget, else what does least damage."""
        least = min(self.trials, key=lambda known: self.trials[known].accuracy.damage, default=None)
        return self._passing() or least

    def _passing(self) -> Layers | None:
        """The fastest choice within the budget."""
        passing = [known for known, trial in self.trials.items() if trial.accuracy.passed]
        return min((known for known in passing if known not in self.rejected), key=self._cost, default=None)

    def _cost(self, layers: Layers) -> tuple[float, float]:
        """What a choice is expected to lose of speed, as a logarithm, and of weights; groups in part count in part."""
        slower = sum(
            self._won(name) * len(members - layers) / len(members)
            for name, members in self.groups.items()
            if members <= self.current
        )
        return round(slower, 4), share_of_weights(self.current - layers, self.layers)

    def _won(self, name: str) -> float:
        return max(0.0, math.log(clear_ratio(self.latency[name]))) if name in self.latency else 0.0

    def _finding(self, name: str, members: Layers, chosen: Layers) -> GroupFinding:
        alone = self.trials[members].accuracy if members in self.trials else None
        return GroupFinding(
            name=name,
            layers=len(members),
            quantized=len(members & chosen),
            weights=share_of_weights(members, self.layers),
            bytes_saved=self.saved.get(name, 0),
            latency=self.latency.get(name, ()),
            alone=alone,
            reason="" if members <= chosen else self.slow.get(name) or _too_costly(alone, bool(members & chosen)),
        )

    def _absent(self, choice: Layers, groups: dict[str, Layers]) -> str:
        return " and ".join(name for name, members in groups.items() if not members <= choice)

    def _ordered(self, layers: Layers) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer in layers)

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise _TimeUp


def _too_costly(alone: Accuracy | None, in_part: bool) -> str:
    which = "the rest of it" if in_part else "it"
    if alone is None or alone.passed:
        return f"{which} loses too much accuracy together with other layers"
    return f"{which} loses too much accuracy" if in_part else "it loses too much accuracy even alone"
