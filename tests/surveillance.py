"""Notes what a piece of code does to the world around it: files, processes, libraries, programs in text.

with watching(root, allowed=(root / "tmp",)) as notes:
    ...
assert notes == []
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Audit events by which something is changed; the first words of their arguments are paths.
_CHANGES = {
    "os.chmod": 1,
    "os.chown": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.mkfifo": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.setxattr": 1,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.utime": 1,
}
# Those by which something is run.
_RUNS = (
    "code.__new__",
    "ctypes.dlopen",
    "exec",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "socket.connect",
    "subprocess.Popen",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OWN = tuple(str(Path(place).resolve()) for place in {sys.prefix, sys.base_prefix, Path(__file__).parents[1]})

_watch: "_Watch | None" = None


@dataclass(frozen=True)
class Place:
    """Folders of one case: a file lies in `inside`; nothing in `outside` may be read, written or run."""

    root: Path

    @property
    def inside(self) -> Path:
        return self.root / "inside"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def model(self) -> Path:
        return self.inside / "m.onnx"

    @property
    def marker(self) -> Path:
        """What a payload makes when it is run."""
        return self.outside / "marker"

    @property
    def library(self) -> Path:
        """A library that would really load."""
        return self.outside / "evil.so"

    @property
    def secret(self) -> Path:
        """Bytes that would do as weights."""
        return self.outside / "secret"


class _Watch:
    def __init__(self, root: Path, allowed: tuple[Path, ...]) -> None:
        self.root, self.allowed, self.notes = root, tuple(map(str, allowed)), list[str]()

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            paths = [os.fsdecode(path) for path in arguments[: _CHANGES[event]] if isinstance(path, str | bytes)]
            self.notes += [f"{event} {path}" for path in paths if not self._may_write(_itself(path))]
        elif event == "open" and isinstance(arguments[0], str | bytes):
            self._see_open(os.fsdecode(arguments[0]), arguments[1], arguments[2])
        elif event == "exec" and _is_of_the_package(arguments[0].co_filename):
            pass  # a module that is imported later than others
        elif event in _RUNS:
            self.notes.append(f"{event} {str(arguments)[:200]}")

    def _see_open(self, path: str, mode: str | None, flags: int | None) -> None:
        is_written = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITES)
        real = os.path.realpath(path)
        if is_written and not self._may_write(real):
            self.notes.append(f"open for writing {path}")
        elif real.startswith(str(self.root / "outside")):
            self.notes.append(f"open {path}")

    def _may_write(self, path: str) -> bool:
        return path == os.devnull or path.startswith(self.allowed)


def _itself(path: str) -> str:
    """Where a file lies, be it a link."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_of_the_package(filename: str) -> bool:
    return filename.startswith("<frozen ") or os.path.realpath(filename).startswith(_OWN)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is not None:
        _watch.see(event, arguments)


_hooked = False


@contextmanager
def watching(root: Path, allowed: tuple[Path, ...]) -> Iterator[list[str]]:
    """Gives a list that holds, at the end, a note on each thing that should not have been.

    Args:
        root: what native code does to files in here is noted too; of `root / "outside"`, that Python opens one.
        allowed: folders that may be written to.
    """
    global _watch, _hooked
    if not _hooked:  # a hook stays for good
        sys.addaudithook(_hook)
        _hooked = True
    before, mapped = _listing(root, allowed), _mapped()
    _watch = watch = _Watch(root, allowed)
    try:
        yield watch.notes
    finally:
        _watch = None
        after = _listing(root, allowed)
        watch.notes += [f"changed {path}" for path in sorted(before.items() ^ after.items())]
        watch.notes += [f"loaded {path}" for path in sorted(_mapped() - mapped) if not path.startswith(_LIBRARIES)]


_LIBRARIES = (*_OWN, "/usr/lib", "/lib")


def _listing(root: Path, allowed: tuple[Path, ...]) -> dict[str, tuple[int, ...]]:
    """Every file with mode, size, time of change and number of names."""
    found = {}
    for path in root.rglob("*"):
        if path not in allowed and not set(path.parents) & set(allowed):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink, status.st_ino)
    return found


def _mapped() -> set[str]:
    """Files of which code is mapped into this process."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    return {words[5] for words in lines if len(words) == 6 and "x" in words[1] and words[5].startswith("/")}
