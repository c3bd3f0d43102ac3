"""How a command ends: its exit code, its one message, and its answer to Ctrl-C and to a polite kill."""

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from edgemask.checks import printable
from edgemask.errors import DependencyMissing, EdgemaskError, OutOfMemory, OutputError, UsageError
from edgemask.files import FULL, remove_unfinished
from edgemask.offspring import kill_watched

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}  # exit codes 130 and 143, as shells have it
BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended
TRACEBACK = "EDGEMASK_TRACEBACK"
_STACK = 16 * 2**20  # bytes; a worker thread gets as little as 128 KiB on some systems, a main thread 8 MiB
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it
_QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
_WRONG_PATH = {
    errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def run(body: Callable[[], object], *, last: bool = False) -> int:
    """Runs `body` in a thread of its own and gives the exit code.

    A native call does not see a signal before it returns, which may take minutes; the main thread does.

    Args:
        body: what to do.
        last: the process ends with it, and signals are answered in the same way while Python takes itself down.
    """
    codes: list[int] = []
    with _answered_signals(last):
        default = threading.stack_size(_STACK)
        worker = threading.Thread(target=lambda: codes.append(_guarded(body)), name="command", daemon=True)
        worker.start()
        threading.stack_size(default)
        while worker.is_alive():
            worker.join(0.2)
        return _flushed(codes[0])


@contextlib.contextmanager
def _answered_signals(last: bool) -> Iterator[None]:
    """Signals end the process at once in here; one that the caller ignores, as `nohup` does, stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _expect_interrupts()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    answered = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    try:
        for number in answered:
            signal.signal(number, _leave)
        yield
    finally:
        for number in answered if not last else ():
            signal.signal(number, before[number])


def _expect_interrupts() -> None:
    """Python's resource tracker frees the semaphores of an interrupted training, and would call them leaked."""
    filters = os.environ.get("PYTHONWARNINGS", "")
    if _QUIET_TRACKER not in filters:
        os.environ["PYTHONWARNINGS"] = f"{filters},{_QUIET_TRACKER}".lstrip(",")


def typed(error: BaseException) -> EdgemaskError:
    """The error of ours that says what any exception means to the user; exit code 70 if it is our fault."""
    if isinstance(error, EdgemaskError):
        return error
    first_line = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in first_line:
        return OutOfMemory("there is too little memory for this", "use smaller images or a smaller batch")
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("edgemask"):
        return DependencyMissing(f"the Python package {error.name} is not installed", "pip install 'edgemask[all]'")
    if isinstance(error, OSError) and error.errno in FULL:
        where = "" if error.filename is None else f" {error.filename}"
        return OutputError(f"cannot write{where}: {error.strerror}", "free some space or name another place with -o")
    if isinstance(error, OSError) and error.errno in _WRONG_PATH and error.filename is not None:
        return UsageError(f"cannot use {error.filename}: {error.strerror}", "check the path and its permissions")
    return EdgemaskError(
        f"fault in edgemask: {type(error).__name__}: {first_line}; please report it",
        f"{TRACEBACK}=1 before the command shows where it came from",
    )


def _guarded(body: Callable[[], object]) -> int:
    try:
        body()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        meant = typed(error)
        with contextlib.suppress(OSError):
            _print_error(meant, ours=isinstance(error, EdgemaskError) or meant.exit_code != EdgemaskError.exit_code)
        return meant.exit_code
    return 0


def _print_error(error: EdgemaskError, *, ours: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    # File names, class names and libraries' messages go to the terminal: no control characters of theirs.
    problem = "\n".join(printable(line) for line in error.problem.splitlines())
    message = Text.assemble(("error: ", "bold red"), problem) if ours else Text(problem, "red")
    if error.remedy is not None:
        message.append("\n" + "\n".join(printable(line) for line in error.remedy.splitlines()))
    Console(stderr=True, highlight=False).print(message, soft_wrap=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process while its worker thread still runs: nothing that could wait for that thread is called."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    for child in multiprocessing.active_children():  # those that load images for training
        child.kill()
    kill_watched()
    with contextlib.suppress(OSError):
        os.write(2, ((_SHOW_CURSOR if os.isatty(2) else "") + f"{SIGNALS[signal.Signals(number)]}\n").encode())
    for _ in range(2):  # what was about to be opened for writing is made anew
        remove_unfinished()
    os._exit(128 + number)


def _flushed(code: int) -> int:
    """Flushes standard output, so that a reader that has gone (`| head`) makes no noise when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return BROKEN_PIPE
    return code


def silence_stdout() -> None:
    """Sends what is still to be written to standard output nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
