"""What `quantize` did: the record behind the command's answer, and what of it travels inside the file."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemask.environment import Environment
from edgemask.errors import ParityError
from edgemask.quantization.accuracy import Accuracy
from edgemask.quantization.calibration import CalibrationFacts
from edgemask.quantization.latency import SLOWER, clear_ratio
from edgemask.quantization.layers import Layer
from edgemask.quantization.recipes import Recipe
from edgemask.quantization.search_records import Search
from edgemask.spec import ModelSpec

_DIGITS = 4  # of an AP, 0-1: a hundredth of a point


@dataclass(frozen=True, slots=True, kw_only=True)
class StageQuantization:
    """A stage of the model.

    Attributes:
        stage: as the names of its nodes begin.
        layers: with weights.
        quantized: how many of them.
        clipped: share of its activations' values, on the calibration images, that lie outside their ranges: the
            largest of any tensor.
    """

    stage: str
    layers: int
    quantized: int
    clipped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """What `quantize` did.

    Attributes:
        path: the file to write; it was written only where `passed`.
        source: the FP32 file.
        spec: what the file says about itself.
        recipe: how it was quantized.
        calibration: on which images.
        stages: what became of each.
        search: what was measured: sizes, times, accuracy, and what each group of layers costs.
        seconds: that all of it took.
        environment: versions and machine.
    """

    path: str
    source: str
    spec: ModelSpec
    recipe: Recipe
    calibration: CalibrationFacts
    stages: tuple[StageQuantization, ...]
    search: Search
    seconds: float
    environment: Environment

    @property
    def passed(self) -> bool:
        """Whether the file is not slower than FP32 on the devices together, and keeps the budget, if there was one."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Why there is no file, in sentences."""
        if self.search.timed and (times := clear_ratio(self.search.latency)) > SLOWER:
            return (f"INT8 takes {times:.2f} times as long as FP32 here",)
        if self.search.passed is False and self.search.accuracy is not None:
            return self.search.accuracy.failures
        return ("the time was up before any accuracy was measured",) if self.search.passed is False else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known of the calibration images and of the outcome."""
        return (*self.calibration.warnings, *self.search.notes)

    def raise_for_failure(self) -> None:
        """Does nothing where a file was written.

        Raises:
            ParityError: nothing within the budget was found; the best is in the report.
        """
        if self.failures:
            raise ParityError(
                f"nothing was written to {self.path}: {'; '.join(self.failures)}",
                "allow a larger drop, give more calibration images, or another recipe",
            )


def spec_record(
    recipe: Recipe, layers: Sequence[Layer], wanted: Collection[Layer], calibration: CalibrationFacts, found: Search
) -> dict[str, Any]:
    """What `ModelSpec.quantization` says of a file.

    Args:
        recipe: how.
        layers: those that were quantized.
        wanted: those that the recipe names.
        calibration: on which images.
        found: what was measured.
    """
    quantized = {layer.name for layer in layers}
    return {
        "recipe": recipe.to_dict(),
        "layers": len(quantized),
        "left_out": [layer.name for layer in wanted if layer.name not in quantized],
        "calibration": {"images": calibration.images, "sha256": calibration.sha256},
        "accuracy": None if found.accuracy is None else _accuracy(found.accuracy),
    }


def _accuracy(accuracy: Accuracy) -> Mapping[str, float | None]:
    record = {f"FP32 {kept.what}": _rounded(kept.reference) for kept in accuracy.kept}
    return record | {f"{kept.device} {kept.what}": _rounded(kept.own) for kept in accuracy.kept}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, _DIGITS)
