"""How a check of `tests/reliability` tells the table in the README what it found."""

from typing import Protocol


class Finding(Protocol):
    """Writes down what a check has found, for `scripts/reliability_table.py`."""

    def __call__(self, found: str, *, where: str = "", whole: bool = False) -> None:
        """Call it once in a test, at its end.

        Args:
            found: what the table says, the numbers in front: "10,000 of 10,000 identical".
            where: the runtime or command that it holds for, where a row has several.
            whole: this short form is all that there is; otherwise only the test marked `soak` reaches the table.
        """
