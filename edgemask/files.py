"""Files appear whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.checks import did_you_mean
from edgemask.errors import OutputError

JPEG_QUALITY = 95
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PART, _SCRATCH = ".part", ".edgemask-scratch."  # no name that a user would choose
_MOST_SIBLINGS = 1000  # to look at: a folder of images may have a million files
_unfinished: set[Path] = set()


def remedy_for_path(path: Path) -> str:
    """What to do about a path that cannot be read: where nothing is there, the file beside it of a similar name."""
    names: list[str] = []
    if not os.path.lexists(path):
        with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_SIBLINGS)]
    return did_you_mean(path.name, names, "check the path")


@contextlib.contextmanager
def creating(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which replaces `path` when the block ends well.

    A reader sees the old file or the new one, never a part; after an exception the old file is as it was. Of a link,
    the file that it leads to is replaced. What a process left that was killed on the same `path` is removed. Within a
    block, one for its temporary path gives that path again.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or `path` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    if target in _unfinished:  # a file of its own would take the place of the one that is locked
        yield target
        return
    with contextlib.ExitStack() as stack:
        try:
            if target.exists() and not target.is_file():
                raise OutputError(
                    f"cannot write {path}: it is there already, and is no file", "name another place with -o"
                )
            temporary = stack.enter_context(_temporary(target))
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        except OSError as error:
            raise _unwritten(path, target, error) from error


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Gives an empty folder for files that nobody keeps, and removes it, and those of processes that were killed.

    Raises:
        OutputError: the folder for temporary files cannot be written to.
    """
    folder, handle = make_scratch()
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)
        os.close(handle)


def make_scratch() -> tuple[Path, int]:
    """As `scratch`, for those who remove the folder themselves; it counts as in use until the descriptor is closed."""
    root = Path(tempfile.gettempdir())
    _remove_abandoned(root.glob(f"{_SCRATCH}*"))
    try:
        return _locked(lambda: Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=root)))
    except OSError as error:
        raise _unwritten(root, root, error) from error


@contextlib.contextmanager
def creating_folder(path: str | Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`, which takes that name when the block ends well; nothing is replaced.

    Folders on the way are made. After an exception nothing is there. What a process left that was killed on the same
    `path` is removed.

    Raises:
        OutputError: there is something at `path`, or its folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    prefix = f".{target.name}."
    with contextlib.ExitStack() as stack:
        try:
            if target.exists():
                raise OutputError(f"cannot write {path}: it is there already", "remove it, or name another place")
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target.parent.glob(f"{glob.escape(prefix)}{'?' * 8}{_PART}"))
            temporary, handle = _locked(lambda: Path(tempfile.mkdtemp(prefix=prefix, suffix=_PART, dir=target.parent)))
            stack.callback(os.close, handle)
            stack.callback(_unfinished.discard, temporary)
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            _unfinished.add(temporary)
            yield temporary
            for file in (one for one in temporary.rglob("*") if one.is_file()):
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(target)
        except OSError as error:
            raise _unwritten(path, target, error) from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An empty file beside the target, removed in the end unless it has taken the target's place."""
    prefix = f".{target.name}."
    _remove_abandoned(target.parent.glob(f"{glob.escape(prefix)}{'?' * 8}{_PART}"))

    def make() -> Path:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_PART, dir=target.parent)
        os.close(handle)
        return Path(name)

    temporary, handle = _locked(make)
    _unfinished.add(temporary)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)
        os.close(handle)


def _locked(make: Callable[[], Path]) -> tuple[Path, int]:
    """A new file or folder, and a lock on it that says to others that its writer lives."""
    while True:
        path = make()
        # Another process may have taken it for abandoned before it was locked: then it has no name any more.
        with contextlib.suppress(FileNotFoundError):
            handle = _open(path)
            with contextlib.suppress(OSError):  # of a file system that knows no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists():
                return path, handle
            os.close(handle)


def _open(path: Path) -> int:
    # Neither a link nor a pipe that somebody put there leads or keeps us anywhere.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _remove_abandoned(paths: Iterable[Path]) -> None:
    """Removes this user's files and folders whose writers have gone; what is being written stays."""
    for path in paths:
        # Locked by its writer, somebody else's, removed in the meantime, or of a file system that knows no locks.
        with contextlib.suppress(OSError):
            handle = _open(path)
            try:
                if os.fstat(handle).st_uid == os.geteuid():
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def _unwritten(path: str | Path, target: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        with contextlib.suppress(OSError):
            reason += f" ({shutil.disk_usage(target.parent).free:,} bytes are free there)"
    return OutputError(f"cannot write {path}: {reason}", "free some space or name another place with -o")


def write_image(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Writes a picture, whole or not at all: as JPEG where the path ends in .jpg or .jpeg, else as PNG.

    Args:
        path: where to.
        pixels: uint8 [H, W, 3] RGB.

    Raises:
        OutputError: the file cannot be written.
    """
    is_jpeg = Path(path).suffix.lower() in {".jpg", ".jpeg"}
    with creating(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG" if is_jpeg else "PNG", quality=JPEG_QUALITY)


def remove_unfinished() -> None:
    """Removes what every `creating` and `scratch` block keeps that still runs: for a process about to end at once."""
    for temporary in tuple(_unfinished):
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
