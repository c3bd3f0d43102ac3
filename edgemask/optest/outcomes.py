"""What the vectors of one op gave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# Runs an op: its inputs in order -> its output.
Run = Callable[[Sequence[NDArray[Any]]], NDArray[Any]]


@dataclass(slots=True)
class Outcome:
    """The count so far.

    Attributes:
        tolerance: what the error may be.
        vectors: how many were tried.
        failed: how many were answered with something else.
        error: the largest.
        example: a sentence on the first failure.
    """

    tolerance: float
    vectors: int = 0
    failed: int = 0
    error: float = 0.0
    example: str = ""

    def fail(self, example: str) -> None:
        """Counts a failure."""
        self.failed += 1
        self.example = self.example or example
