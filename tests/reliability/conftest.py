"""The fixture by which the checks of this folder say what they found."""

from typing import Any

import pytest
from finding import Finding


@pytest.fixture
def finding(record_property: Any, request: pytest.FixtureRequest) -> Finding:
    """Writes down what a check has found."""

    def write(found: str, *, where: str = "", whole: bool = False) -> None:
        if whole or request.node.get_closest_marker("soak"):
            record_property("found", found)
            record_property("where", where)

    return write
