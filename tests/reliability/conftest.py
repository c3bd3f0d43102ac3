"""What the checks of this folder share: how each says what it found, and models that are made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from enduring import MODELS
from finding import Finding


@pytest.fixture
def finding(record_property: Any, request: pytest.FixtureRequest) -> Finding:
    """Writes down what a check has found."""

    def write(found: str, *, where: str = "", whole: bool = False) -> None:
        if whole or request.node.get_closest_marker("soak"):
            record_property("found", found)
            record_property("where", where)

    return write


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a model of `enduring.MODELS`, by its name."""
    made: dict[str, Path] = {}

    def path_of(kind: str) -> Path:
        if kind not in made:
            made[kind] = MODELS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return path_of
