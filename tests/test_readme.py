"""The README names only what exists; its ```sh blocks are executed as written by .ci/run."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from edgemask.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"edgemask ([a-z]+)((?: --[a-z-]+| [^\s`|]+)*)", README)))
PATHS = sorted(set(re.findall(r"`((?:edgemask|export|runtimes|samples|tests)/[\w/.]*)`", README)))


def test_something_is_found() -> None:
    assert len(COMMANDS) >= 6
    assert len(PATHS) >= 5


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_commands_and_options_exist(name: str, words: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert name in commands
    known = {option for parameter in commands[name].params for option in parameter.opts + parameter.secondary_opts}
    assert set(re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", words)) <= known


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path: str) -> None:
    assert (REPOSITORY / path).exists()


def test_figures_are_filled_in() -> None:
    assert "\nFIGURES\n" not in README
