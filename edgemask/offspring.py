"""Processes that a library has started for this one, and that would go on without it for a while."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_watched: set[int] = set()


@contextlib.contextmanager
def watched() -> Iterator[set[int]]:
    """Watches what is started within the block; gives the set that it fills, for `forget`."""
    before, started = set(_children().get(os.getpid(), [])), set[int]()
    try:
        yield started
    finally:
        started |= set(_children().get(os.getpid(), [])) - before
        _watched.update(started)


def forget(started: set[int]) -> None:
    """Watches processes no longer: they have ended, and others may get their numbers."""
    _watched.difference_update(started)


def kill_watched() -> None:
    """Kills what is watched, and all that it has started: for a process about to end at once."""
    children = _children()
    found = list(_watched)
    for one in found:  # grows
        found += children.get(one, [])
    for one in found:
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)


def _children() -> dict[int, list[int]]:
    """The processes that each process has started; none where the system has no `/proc`."""
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended in the meantime
            # Number, name in brackets, state, parent; a name may hold spaces and brackets.
            parent = int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    return children
