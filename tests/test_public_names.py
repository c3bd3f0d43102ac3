"""The public names of each package are those that its `__all__` lists: no more, no fewer."""

import ast
import importlib
import inspect
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
PACKAGES: list[str] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff's RUF022 keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def imported_from_elsewhere(package: ModuleType) -> set[str]:
    """Names that `__init__.py` takes from outside edgemask, such as Path or TYPE_CHECKING."""
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(inspect.getsource(package)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "edgemask"
        for alias in node.names
    }


def test_all_is_sorted_without_repeats(package: ModuleType) -> None:
    assert package.__all__ == sorted(set(package.__all__), key=rank)


def test_all_is_complete(package: ModuleType) -> None:
    bound = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    listed = {
        name
        for name in package.__all__
        if not name.startswith("_") and not inspect.ismodule(getattr(package, name, None))
    }
    assert bound - imported_from_elsewhere(package) == listed


def test_every_listed_name_exists(package: ModuleType) -> None:
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_no_listed_name_hides_a_module(package: ModuleType) -> None:
    """A function `edgemask.export` would shadow the package `edgemask.export`."""
    hidden = [
        name
        for name in package.__all__
        if not inspect.ismodule(getattr(package, name)) and find_spec(f"{package.__name__}.{name}")
    ]
    assert hidden == []
