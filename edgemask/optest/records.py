"""What the op self-test says of one custom op."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTest:
    """A custom op of a file on adversarial input, compared with `edgemask.ops`.

    Attributes:
        name: of the node.
        stage: that it belongs to, the first part of the name.
        op: its type.
        attributes: its attributes in the file; where its body is inlined, those that the exporter recorded.
        vectors: how many inputs were tried.
        failed: vectors that it answered with something else, and attributes that are not those of the spec.
        error: pooling: the largest difference, infinite for another shape; NMS: vectors with another selection.
        tolerance: what `error` may be.
        example: a sentence on the first failure; empty where there is none.
    """

    name: str
    stage: str
    op: str
    attributes: Mapping[str, Any]
    vectors: int
    failed: int
    error: float
    tolerance: float
    example: str

    @property
    def passed(self) -> bool:
        """Whether the op does what is specified."""
        return self.failed == 0
