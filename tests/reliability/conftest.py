"""What the checks of this folder share: how each tells the table in the README what it tried and found."""

from typing import Any, Protocol

import pytest


class Finding(Protocol):
    """Writes down what a check has found, for `scripts/reliability_table.py`."""

    def __call__(self, found: str, *, where: str = "", whole: bool = False) -> None:
        """Call it once in a test, at its end.

        Args:
            found: what the table says, the numbers in front: "10,000 of 10,000 identical".
            where: the runtime or command that it holds for, where a row has several.
            whole: this short form is all that there is; otherwise only the test marked `soak` reaches the table.
        """


@pytest.fixture
def finding(record_property: Any, request: pytest.FixtureRequest) -> Finding:
    """Says what a check has found."""

    def write(found: str, *, where: str = "", whole: bool = False) -> None:
        if whole or request.node.get_closest_marker("soak"):
            record_property("found", found)
            record_property("where", where)

    return write
