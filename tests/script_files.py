"""Scripts, which are no part of the package, as modules."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def script_module(path: str) -> Iterator[ModuleType]:
    """The module of a script, by its path in the repository; for as long as it is used."""
    file = REPOSITORY / path
    place = importlib.util.spec_from_file_location(file.stem, file)
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    sys.modules[module.__name__] = module  # its dataclasses look themselves up there
    place.loader.exec_module(module)
    yield module
    del sys.modules[module.__name__]
