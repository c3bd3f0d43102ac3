"""The record of a validation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgemask.errors import ParityError
from edgemask.evaluation import CocoMetrics
from edgemask.parity import Measure, ParityReport, SemanticParity

_TASK_WORDS = {"boxes": "box", "masks": "mask", "keypoints": "keypoint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """How a model file compares with its reference.

    Attributes:
        model: path of the model file.
        reference: what it was compared with.
        device: where the model ran.
        reference_device: where the reference ran.
        precision: of the model; it chose the tolerance where none was given.
        parity: what was found, compared.
        coco: COCO metrics by task of "reference" and "candidate"; None without annotations.
        milliseconds: median time per image of the model, from decoded pixels to detections.
        reference_milliseconds: the same of the reference.
        excluded: images left out because the model's canvas is too small for them: they are scaled down further than
            the PyTorch model would.
        notes: what else should be known.
    """

    model: str
    reference: str
    device: str
    reference_device: str
    precision: str
    parity: ParityReport | SemanticParity
    coco: dict[str, dict[str, CocoMetrics]] | None
    milliseconds: float
    reference_milliseconds: float
    excluded: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All values with what is asked of them."""
        return (*self.parity.measures, *self._precisions())

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong."""
        return (*self.parity.failures, *(m.failure for m in self._precisions() if m.failure is not None))

    @property
    def passed(self) -> bool:
        """Whether the model does what the reference does."""
        return not self.failures

    def raise_for_failure(self) -> None:
        """Does nothing where all is well.

        Raises:
            ParityError: otherwise.
        """
        self.parity.raise_for_failure()
        if not self.passed:
            raise ParityError("the model differs from its reference: " + "; ".join(self.failures))

    def _precisions(self) -> Iterator[Measure]:
        if self.coco is None or isinstance(self.parity, SemanticParity):
            return
        asked = self.parity.tolerance
        for task, expected in self.coco["reference"].items():
            got, word = self.coco["candidate"][task].ap, _TASK_WORDS[task]
            if asked.ap_difference is not None:
                yield Measure(f"{word} AP difference", abs(got - expected.ap), asked.ap_difference, "most", "points")
            if asked.ap_share is not None:
                share = got / expected.ap if expected.ap else math.nan
                yield Measure(f"{word} AP, share of the reference's", share, asked.ap_share, unit="%")
