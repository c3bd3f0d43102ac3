"""The laboratory of a search: makes candidates in memory and measures them on this machine."""

import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgemask.images import load_image
from edgemask.quantization.accuracy import Accuracy, Judge
from edgemask.quantization.latency import Comparison, compare_latency
from edgemask.quantization.layers import Layer
from edgemask.quantization.search_journal import SearchJournal, key_of
from edgemask.quantization.search_records import Layers
from edgemask.runtimes import ModelFile
from edgemask.runtimes.cuts import cut, produced
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import inputs_of
from edgemask.runtimes.runtime import Array

TIMED_IMAGES = 2
_READY = 3  # candidates kept in memory: what one measurement needs is needed by the next
# What leaves a stage, as `edgemask.stage_record` names it.
_BORDERS = {
    "backbone": ("backbone.",),
    "fpn": ("fpn.",),
    "rpn": ("rpn.scores.", "rpn.boxes."),
    "box_head": ("box_head",),
    "mask_head": ("mask_head",),
    "keypoint_head": ("keypoint_heatmaps",),
    "head": ("head",),
}
_SPOILT = 1e9  # what a stage gives cannot be compared at all
Value = TypeVar("Value")


class ModelLaboratory:
    """Measures candidates of a model; what the journal holds is not measured again.

    Args:
        model: in FP32.
        make: gives the model with just these layers quantized.
        devices: names of devices, not `auto`.
        images: such as the model will see; the first ones are used for times.
        judge: measures accuracy; None: nobody does.
        journal: keeps what was measured, on disk.
    """

    def __init__(
        self,
        model: ModelFile,
        make: Callable[[Collection[Layer]], ModelFile],
        *,
        devices: Sequence[str],
        images: Sequence[Path],
        judge: Judge | None = None,
        journal: SearchJournal | None = None,
    ) -> None:
        self.judges = judge is not None
        self._model, self._make, self._judge, self._journal = model, make, judge, journal
        self._devices, self._images = tuple(devices), list(images[:TIMED_IMAGES])
        self._ready: dict[Layers, ModelFile] = {}
        self._known: dict[str, Any] = {}
        self._borders: dict[str, list[dict[str, Array]]] = {}

    def size(self, layers: Layers) -> int:
        """See `Laboratory.size`."""
        return self._once(f"size {key_of(layers)}", int, int, lambda: len(self._candidate(layers).data))

    def compare(self, layers: Layers, others: Layers) -> tuple[Comparison, ...]:
        """See `Laboratory.compare`."""
        return tuple(self._compare_on(device, layers, others) for device in self._devices)

    def accuracy(self, layers: Layers) -> Accuracy:
        """See `Laboratory.accuracy`."""
        judge = self._judge
        if judge is None:
            raise ValueError("this laboratory does not judge")
        return self._once(
            f"accuracy {key_of(layers)}",
            Accuracy.from_record,
            Accuracy.to_record,
            lambda: judge.measure(self._candidate(layers)),
        )

    def disturbance(self, layers: Layers) -> float:
        """See `Laboratory.disturbance`."""
        return self._once(f"disturbance {key_of(layers)}", float, float, lambda: self._disturbance(layers))

    def _compare_on(self, device: str, layers: Layers, others: Layers) -> Comparison:
        keys = key_of(layers), key_of(others)
        if keys[0] > keys[1]:  # one measurement serves both ways round
            return self._compare_on(device, others, layers).turned()
        return self._once(
            f"latency {device} {keys[0]} {keys[1]}",
            Comparison.from_record,
            Comparison.to_record,
            lambda: compare_latency(self._candidate(layers), self._candidate(others), device, self._images),
        )

    def _once(
        self, key: str, read: Callable[[Any], Value], write: Callable[[Value], Any], measure: Callable[[], Value]
    ) -> Value:
        """What was measured before, here or in the journal; else it is measured now."""
        kept = self._known.get(key) if self._journal is None else self._journal.get(key)
        if kept is not None:
            with contextlib.suppress(TypeError, ValueError, KeyError):  # written by hand: it is measured again
                return read(kept)
        value = measure()
        if self._journal is None:
            self._known[key] = write(value)
        else:
            self._journal.put(key, write(value))
        return value

    def _candidate(self, layers: Layers) -> ModelFile:
        if not layers:
            return self._model
        made = self._ready.pop(layers, None) or self._make(layers)
        self._ready[layers] = made  # the last one used goes last
        while len(self._ready) > _READY:
            del self._ready[next(iter(self._ready))]
        return made

    def _disturbance(self, layers: Layers) -> float:
        (stage,) = {layer.stage for layer in layers}
        if stage not in self._borders:
            self._borders[stage] = self._given(self._model, stage)
        made = self._given(self._make(layers), stage)
        moved = [
            _relative(entry[name], expected)
            for entry, before in zip(made, self._borders[stage], strict=True)
            for name, expected in before.items()
            if expected.size
        ]
        return max(moved, default=0.0)

    def _given(self, model: ModelFile, stage: str) -> list[dict[str, Array]]:
        """What a stage of a model gives on each image; nothing where the graph does not name it."""
        names = [name for name in sorted(produced(model)) if name.startswith(_BORDERS[stage]) and "/" not in name]
        if not names:
            return []
        part = cut(model, names, ())
        inputs = {value.name for value in part.proto.graph.input}
        runtime, _ = open_runtime(part, self._devices[0])
        try:
            given = [inputs_of(load_image(path), model.spec)[0] for path in self._images]
            return [runtime.run({name: values[name] for name in inputs}) for values in given]
        finally:
            runtime.close()


def _relative(own: Array, expected: Array) -> float:
    """Root mean square of what differs, as a share of that of what is expected."""
    if own.shape != expected.shape or not np.isfinite(own).all():
        return _SPOILT
    magnitude = float(np.mean(np.square(expected, dtype=np.float64)))
    return math.sqrt(float(np.mean(np.square(own - expected, dtype=np.float64))) / max(magnitude, 1e-30))
