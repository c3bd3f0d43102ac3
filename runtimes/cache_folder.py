"""The folder in which compiled models are kept: private, bounded, shared by processes that do not know each other."""

import contextlib
import errno
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgemask.checks import printable
from edgemask.errors import OutputError

LARGEST_CACHE = 4 * 2**30  # bytes of all that is kept; a compiled model is 0.1 to 0.5 GiB
_PATIENCE = 10.0  # seconds to wait for another process, which needs the folder for a hash of 0.5 s at most
_WORK = "work-"  # what a process is at work on, or left behind
_KEY_LENGTH = 64  # of an entry's name, a SHA-256

_log = logging.getLogger("edgemask")
_warned: set[str] = set()


def cache_folder() -> Path:
    """Where compiled models are kept unless a folder is named: EDGEMASK_CACHE, or edgemask in the user's cache folder.

    Raises:
        OutputError: this user has no home folder, as in some containers.
    """
    if named := os.environ.get("EDGEMASK_CACHE"):
        return _absolute(named)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification has any other ignored
        return Path(shared) / "edgemask"
    return _absolute("~/.cache/edgemask")


def cache_size() -> tuple[int, int]:
    """How many compiled models the cache folder keeps, and their bytes; zeros where there is no such folder."""
    try:
        sizes = [_size(path) for path in _entries(cache_folder())]
    except (OutputError, OSError):
        return 0, 0
    return len(sizes), sum(sizes)


def private_folder(cache: bool | str | os.PathLike[str]) -> Path | None:
    """The cache folder, made where it is missing; None, with one line once, where it must not or cannot be used.

    Native code is loaded from it: a folder into which somebody else can write is not trusted.

    Args:
        cache: True: the user's own; a folder: that one; False: none.
    """
    if not cache:
        return None
    named = "the user's cache folder" if cache is True else os.fspath(cache)
    try:
        folder = cache_folder() if cache is True else _absolute(os.fspath(cache))
        named = str(folder)
        if reason := _made(folder) or _mistrust(folder):
            warn_once(named, reason)
            return None
        with contextlib.suppress(FileNotFoundError):  # another process tidied up
            os.rmdir(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    except (OutputError, OSError, ValueError) as error:
        warn_once(named, reason_of(error))
        return None
    return folder


def warn_once(folder: str | Path, reason: str) -> None:
    """Says in one line, once in a process, that compiled models are not kept in `folder`."""
    if str(folder) not in _warned:
        _warned.add(str(folder))
        line = f"compiled models are not kept in {folder}: {reason}; EDGEMASK_CACHE or the option cache names another"
        _log.warning("%s", printable(line))


def reason_of(error: Exception) -> str:
    """What an error says, without the path that is named beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return error.problem if isinstance(error, OutputError) else str(error)


@contextlib.contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Keeps other processes and threads from changing `folder`, and from reading it where `exclusive`.

    Raises:
        TimeoutError: another process does not let go of it.
        OSError: the folder is gone.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait_for(handle, exclusive)
        yield
    finally:
        _let_go(handle)


def make_work_folder(root: Path, name: str | None = None) -> tuple[Path, int]:
    """Makes an empty folder in which this process alone works, and a lock on it that says so to others.

    Args:
        root: the cache folder.
        name: what it is called unless somebody works under this name; None: any name that nobody else will use.

    Raises:
        OSError: it cannot be made.
    """
    with locked(root, exclusive=True):
        _remove_left_behind(root)
        path = None if name is None else root / f"{_WORK}{name}"
        if path is None or os.path.lexists(path):
            path = Path(tempfile.mkdtemp(prefix=_WORK, dir=root))
        else:
            path.mkdir(mode=0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        _wait_for(handle, exclusive=False)
    return path, handle


def remove_work_folder(path: Path, handle: int, process: int) -> None:
    """Removes a work folder; in a child of `process`, which has only inherited it, nothing."""
    if os.getpid() == process:
        remove(path)
        _let_go(handle)


def remove(path: Path) -> None:
    """Removes whatever lies there as far as it can be removed; a link is not followed."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        path.chmod(0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    if not os.path.islink(inside := os.path.join(folder, name)):
                        os.chmod(inside, 0o700)
        shutil.rmtree(path, ignore_errors=True)


def discard(root: Path, place: Path) -> None:
    """Takes an entry out of the way at once, then removes it: what cannot be removed does not stand in the way.

    Raises:
        OSError: it cannot be moved.
    """
    if os.path.lexists(place):
        away = root / f"{_WORK}{os.urandom(8).hex()}"
        place.rename(away)
        remove(away)


def own_file(path: Path, limit: int) -> bytes:
    """Content of a regular file of this user, no link, of at most `limit` bytes.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is no file")
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"{path.name} belongs to another user")
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"{path.name} has {status.st_size} bytes of {limit}")
        with open(handle, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(handle)


def shrink(root: Path, keep: Path) -> None:
    """Removes what was not used for longest until the rest is within `LARGEST_CACHE`; `keep` stays."""
    entries = sorted(_entries(root), key=_last_use)
    total = sum(map(_size, entries))
    for path in entries:
        if total > LARGEST_CACHE and path != keep:
            total -= _size(path)
            remove(path)


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise OutputError(
            "there is no home folder to keep compiled models in", "name a folder by EDGEMASK_CACHE"
        ) from None


def _made(folder: Path) -> str | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return "it is no folder"
    return None


def _mistrust(folder: Path) -> str | None:
    status = os.stat(folder)  # of a link: what it leads to
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write into it"
    return None


def _entries(root: Path) -> list[Path]:
    with os.scandir(root) as found:
        return [Path(entry.path) for entry in found if len(entry.name) == _KEY_LENGTH]


def _size(path: Path) -> int:
    """Bytes of an entry; 0 of one that went away meanwhile."""
    paths = [path, *(Path(folder, name) for folder, _, names in os.walk(path) for name in names)]
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return total


def _last_use(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _remove_left_behind(root: Path) -> None:
    """Removes the work folders of processes that ended without doing so: nobody holds a lock on them."""
    for path in root.glob(f"{_WORK}*"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _try_lock(handle, exclusive=True, without=False):
                    remove(path)
            finally:
                os.close(handle)


def _wait_for(handle: int, exclusive: bool) -> None:
    end = time.monotonic() + _PATIENCE
    while not _try_lock(handle, exclusive):
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked")
        time.sleep(0.01)


def _try_lock(handle: int, exclusive: bool, without: bool = True) -> bool:
    """Whether the lock is ours; `without` where the file system has no locks, as some of networks."""
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without
    return True


def _let_go(handle: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)  # for a child too that inherited the handle meanwhile
    os.close(handle)
