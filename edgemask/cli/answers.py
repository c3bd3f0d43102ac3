"""What a command says: its answer on standard output, everything else on standard error."""

import contextlib
import ctypes
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console
from rich.text import Text

from edgemask.checks import printable
from edgemask.cli.process import BROKEN_PIPE, silence_stdout
from edgemask.errors import DependencyMissing
from edgemask.report import to_json


def note(text: str) -> None:
    """Prints a line to standard error."""
    print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def working(command: str, extra: str) -> Iterator[None]:
    """Around a command's work: keeps standard output clean and says which extra is missing.

    What libraries print inside the block, from Python or from native code, goes to standard error.

    Args:
        command: the command's name.
        extra: the extra of this package that brings what the command imports.

    Raises:
        DependencyMissing: a package is not installed, or cannot be loaded.
    """
    try:
        with _stdout_on_stderr():
            yield
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "edgemask":
            raise
        what = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded: {error}"
        raise DependencyMissing(
            f"edgemask {command} needs {error.name.split('.')[0]}, which {what}", f"pip install 'edgemask[{extra}]'"
        ) from error


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C code printed may still wait in its own buffer
        os.dup2(kept, 1)
        os.close(kept)


def answer(
    record: object,
    *,
    as_json: bool,
    show: Callable[[Console], None],
    following: Sequence[Sequence[object]] = (),
    passed: bool = True,
) -> None:
    """Prints a command's result and ends it.

    Args:
        record: what the command found out, printed with `--json`.
        as_json: print the record as one JSON object instead of what `show` prints.
        show: prints the record for people.
        following: commands to try next, as words.
        passed: False ends the command with exit code 1.

    Raises:
        Exit: if not passed, or if nobody reads standard output any more.
    """
    try:
        if as_json:
            print(to_json(record))
        else:
            console = Console(highlight=False, markup=False, emoji=False)
            show(console)
            for words in following:
                line = Text.assemble(("next: ", "dim"), shlex.join(str(word) for word in words))
                console.print(line, soft_wrap=True)
        sys.stdout.flush()
    except BrokenPipeError as error:
        silence_stdout()
        raise typer.Exit(BROKEN_PIPE) from error
    if not passed:
        raise typer.Exit(1)


def facts(console: Console, **lines: object) -> None:
    """Prints aligned lines `name  value`; a value of None leaves its line out."""
    shown = {name.replace("_", " "): value for name, value in lines.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        console.print(Text.assemble((f"{name:{width}}  ", "dim"), printable(str(value))), soft_wrap=True)
