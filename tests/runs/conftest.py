"""A run that the tests of stored runs read and copy."""

from pathlib import Path

import pytest
from runs.examples import ENTRIES, packed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("made"), ENTRIES)
