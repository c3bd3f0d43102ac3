"""Measured values, what is asked of them, and the verdict that they add up to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from edgemask.errors import ParityError
from edgemask.parity.rounding import figures


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured value and what is asked of it.

    Attributes:
        name: what was measured.
        value: in 0-1 for shares; NaN where it could not be measured.
        limit: what is asked; None: nothing.
        side: whether the limit is the least or the most that is allowed.
        unit: `%` for shares, `points` for differences of COCO AP (0.001 is 0.1 points), `px`, `MB`, `x` for ratios, or
            nothing.
        key: the name by which a gate asks for it.
        note: what else is known about the value, such as its interval.
    """

    name: str
    value: float
    limit: float | None = None
    side: Literal["least", "most"] = "least"
    unit: Literal["%", "points", "px", "MB", "x", ""] = ""
    key: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is as asked; one that could not be measured is not."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.side == "least" else self.value <= self.limit

    @property
    def failure(self) -> str | None:
        """A sentence that says what is wrong; None where nothing is."""
        if self.passed or self.limit is None:
            return None
        value, limit = figures(self.value, self.limit, self.unit)
        if math.isnan(self.value):
            return f"{self.name} could not be measured, {limit} is asked"
        word = "below" if self.side == "least" else "above"
        return f"{self.name} {value} is {word} {limit}"

    def show(self, value: float) -> str:
        """Returns a value with the measure's unit, as `figures` writes it."""
        return figures(value, None, self.unit)[0]


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image on which the candidate differs from the reference, and how."""

    name: str
    reason: str


class Asking(Protocol):
    """A tolerance, of which only what it asks matters here."""

    def limits(self) -> Mapping[str, float]:
        """What is asked, by the key of the measure."""


class Verdict(ABC):
    """What the record of every comparison can say: whether it held, and why not.

    Attributes:
        worst: the worst images first, at most 10; empty where all is well.
        tolerance: what was asked.
    """

    __slots__ = ()
    worst: tuple[WorstImage, ...]
    tolerance: "Asking"

    @property
    @abstractmethod
    def values(self) -> tuple[Measure, ...]:
        """Everything measured."""

    @property
    @abstractmethod
    def obstacles(self) -> tuple[str, ...]:
        """What kept things from being compared, whatever is asked."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The values with what the tolerance asks of them."""
        return tuple(replace(value, limit=self.tolerance.limits().get(value.key)) for value in self.values)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong."""
        missed = tuple(measure.failure for measure in self.measures if measure.failure is not None)
        return self.obstacles if self.is_empty else (*self.obstacles, *missed)

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there was nothing to compare."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """A sentence that says what was compared."""

    @property
    def passed(self) -> bool:
        """Whether the candidate does what the reference does."""
        return not self.failures

    def raise_for_failure(self) -> None:
        """Does nothing where all is well.

        Raises:
            ParityError: otherwise; names the worst images.
        """
        if not self.passed:
            raise parity_error("", self.failures, self.worst)


def parity_error(where: str, failures: Sequence[str], worst: Sequence[WorstImage]) -> ParityError:
    """The error that says what is wrong.

    Args:
        where: words behind "the model differs from its reference".
        failures: one sentence for each thing.
        worst: the worst images, of which three are named.
    """
    named = "; ".join(f"{image.name} ({image.reason})" for image in worst[:3])
    remedy = f"look at the worst images: {named}" if named else "give images with objects that the model finds"
    return ParityError(f"the model differs from its reference{where}: {'; '.join(failures)}", remedy)
