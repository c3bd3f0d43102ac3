"""Packages with known holes are refused where they would read a file, in words that say what to do."""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import onnx
import PIL
import pytest
import torch

from edgemask.dependencies import FLOORS, require
from edgemask.errors import DependencyMissing
from edgemask.images import load_image
from edgemask.runtimes import read_model
from edgemask.weight_files import read_state

MODULES = {"PIL": PIL, "onnx": onnx, "torch": torch}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image": ("PIL", load_image),
    "model": ("onnx", read_model),
    "state dict": ("torch", read_state),
}


def test_the_floors_are_those_that_pip_sees_to(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {requirement for group in groups for requirement in group}
    for package, floor in FLOORS.values():
        found = {requirement for requirement in declared if re.match(rf"{package}\b[^-]", requirement)}
        assert found == {f"{package}>={floor}"}


@pytest.mark.parametrize("module", FLOORS)
def test_what_is_installed_is_new_enough(module: str) -> None:
    assert MODULES[module] is sys.modules[module]
    require(module)


@pytest.mark.parametrize(
    ("version", "sound"),
    [("12.3.0", False), ("12.99", False), ("13.0.0", True), ("13.0.0.dev1", True), ("13.1+local", True), ("9", False)],
)
def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch, version: str, sound: bool) -> None:
    monkeypatch.setattr(PIL, "__version__", version)
    if sound:
        require("PIL")
        return
    with pytest.raises(DependencyMissing, match=rf"pillow {version} has known security holes .* 13\.0 or newer") as old:
        require("PIL")
    assert old.value.remedy == "pip install --upgrade 'pillow>=13.0'"


@pytest.mark.parametrize("reader", READERS)
def test_the_file_is_not_even_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str) -> None:
    module, read = READERS[reader]
    monkeypatch.setattr(MODULES[module], "__version__", "0.9")
    with pytest.raises(DependencyMissing, match="has known security holes"):
        read(tmp_path / "missing.pth")
