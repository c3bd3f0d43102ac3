"""Compiled models kept for the next opening: whole, made of the very same facts, or not used at all.

An entry is a folder named by the SHA-256 of its facts: model, versions, device, driver, options, shapes. In it lie a
manifest, with the facts and the size and SHA-256 of each file, and the files. It is prepared elsewhere and renamed into
its place under a lock, so that files and manifest of two processes never mix.

A compiled model is native code, or steers native code: the library that loads it does not check it (OpenVINO imports
corrupted weights without a word, TensorRT's engines are as trusted as a program). What the seal protects from: files
that were cut short, damaged, left by a crash, copied from another entry or another machine, made by other versions,
added or taken away; and, with the check of the folder's owner and mode, other users. What it cannot protect from:
somebody with this user's own rights, who could write a manifest just as well, and change the program itself.
"""

import contextlib
import hashlib
import json
import logging
import os
import stat
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemask.checks import printable
from edgemask.files import make_scratch
from edgemask.runtimes import cache_folder as folders
from edgemask.runtimes.cache_folder import cache_folder, cache_size

__all__ = ["Entry", "cache_folder", "cache_size", "open_entry"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_FILES = "files"
_BLOB = "blob"  # the name of the one file of an entry that keeps bytes
_LARGEST_MANIFEST = 2**20  # bytes
_BLOCK = 2**20  # bytes read or written at a time

_log = logging.getLogger("edgemask")


class _Broken(Exception):
    """Why what is kept cannot be used."""


def open_entry(facts: Mapping[str, str], *, title: str, cache: bool | str | os.PathLike[str]) -> "Entry | None":
    """The place of a compiled model; None, with one line once, where the cache folder cannot be used.

    Args:
        facts: all that the compiled model depends on; another value of any is another entry.
        title: what it is, for a line to the user.
        cache: True: in the user's cache folder; a folder: in that one; False: nowhere.
    """
    root = folders.private_folder(cache)
    return None if root is None else Entry(root, facts, title)


class Entry:
    """One compiled model: either bytes (`load`, `store`) or a folder that a library fills by itself (`folder`, `seal`).

    No method raises for what it finds in the cache, nor for a full or read-only disk: what cannot be used is removed,
    with one line that says why, and what cannot be written is not kept, with one line once. Serves one thread.
    """

    def __init__(self, root: Path, facts: Mapping[str, str], title: str) -> None:
        """See `open_entry`; `root` is a folder that can be trusted and written."""
        self._root = root
        self._facts = dict(facts)
        self._title = title
        self._key = hashlib.sha256(_canonical(self._facts)).hexdigest()
        self._work: Path | None = None
        self._kept: dict[str, str] = {}  # file of the work folder -> SHA-256, as sealed the last time
        self._end: weakref.finalize[..., Entry] | None = None

    def load(self) -> bytes | None:
        """What was stored for these facts, verified; None: nothing that can be used."""
        return self._read().get(_BLOB)

    def store(self, data: bytes) -> None:
        """Keeps bytes, whole or not at all, in place of what was kept."""
        self._publish({_BLOB: data})

    def folder(self) -> Path:
        """A folder for a library to read and write, with the files as they were sealed the last time, or empty.

        It is a verified copy for this process alone: two that build at once cannot read each other's half-written
        files. It goes with `close`, or with the process.
        """
        if self._work is None:
            self._work = self._make_work()
            files = self._read()
            try:
                for name, data in files.items():
                    (self._work / name).write_bytes(data)
            except OSError as error:
                folders.warn_once(self._root, folders.reason_of(error))
                for name in files:
                    folders.remove(self._work / name)
                files = {}
            self._kept = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        return self._work

    def seal(self) -> None:
        """Keeps the files that are now in the folder, in place of what was kept. Sub-folders and links are left out."""
        if self._work is None:
            return
        try:
            files = {path.name: path for path in self._work.iterdir() if stat.S_ISREG(path.lstat().st_mode)}
            hashes = {name: _hash(_blocks(path)) for name, path in files.items()}
        except OSError as error:
            folders.warn_once(self._root, folders.reason_of(error))
            return
        if hashes != self._kept and self._publish(files):
            self._kept = hashes

    def close(self) -> None:
        """Removes the folder that `folder` gave, which no library may use any more; what was sealed stays."""
        if self._end is not None:
            self._end()
        self._work = self._end = None
        self._kept = {}

    def _make_work(self) -> Path:
        try:
            path, handle = folders.make_work_folder(self._root, self._key)
        except OSError as error:
            folders.warn_once(self._root, folders.reason_of(error))
            path, handle = make_scratch()  # the library must have a place
        self._end = weakref.finalize(self, folders.remove_work_folder, path, handle, os.getpid())
        return path

    def _read(self) -> dict[str, bytes]:
        """The files that are kept, verified; none where nothing can be used."""
        place = self._root / self._key
        try:
            with folders.locked(self._root, exclusive=False):
                try:
                    files = _sealed_files(place, self._facts)
                except FileNotFoundError:
                    raise _Broken("a file went away") from None
                except OSError as error:
                    raise _Broken(folders.reason_of(error)) from error
                with contextlib.suppress(OSError):
                    os.utime(place)  # what was not used for longest goes first
            return files
        except _Broken as broken:
            _log.warning("%s", printable(f"{self._title} is built anew: {broken}"))
            with contextlib.suppress(OSError), folders.locked(self._root, exclusive=True):
                folders.discard(self._root, place)
        except OSError as error:
            folders.warn_once(self._root, folders.reason_of(error))
        return {}

    def _publish(self, files: Mapping[str, bytes | Path]) -> bool:
        """Puts files and their manifest into the entry's place; whether that could be done."""
        place = self._root / self._key
        try:
            staging, handle = folders.make_work_folder(self._root)
            try:
                _write_sealed(staging, files, self._facts, self._title)
                with folders.locked(self._root, exclusive=True):
                    folders.discard(self._root, place)
                    staging.rename(place)
                    folders.shrink(self._root, keep=place)
            finally:
                folders.remove_work_folder(staging, handle, os.getpid())
        except (OSError, ValueError) as error:
            folders.warn_once(self._root, folders.reason_of(error))
            return False
        return True


def _write_sealed(folder: Path, files: Mapping[str, bytes | Path], facts: Mapping[str, str], title: str) -> None:
    """Writes files and a manifest over them into an empty folder.

    Raises:
        OSError: that cannot be done.
        ValueError: they are larger than the whole cache may be.
    """
    (folder / _FILES).mkdir(mode=0o700)
    records: dict[str, dict[str, str | int]] = {}
    room = folders.LARGEST_CACHE
    for name, source in files.items():
        size, digest = 0, hashlib.sha256()
        with (folder / _FILES / name).open("xb") as file:
            for block in _blocks(source):
                size += len(block)
                if size > room:
                    raise ValueError(f"{title} is larger than {folders.LARGEST_CACHE} bytes")
                digest.update(block)
                file.write(block)
            _flush(file)
        room -= size
        records[name] = {"sha256": digest.hexdigest(), "bytes": size}
    manifest = {"format": _FORMAT, "title": title, "facts": dict(facts), "files": records}
    with (folder / _MANIFEST).open("xb") as file:
        file.write(_canonical(manifest | {"seal": _hash([_canonical(manifest)])}))
        _flush(file)


def _sealed_files(folder: Path, facts: Mapping[str, str]) -> dict[str, bytes]:
    """The content of an entry's files; none where there is no entry.

    Raises:
        OSError: it cannot be read.
        _Broken: it is not what was sealed, or of other facts.
    """
    if not os.path.lexists(folder):
        return {}
    _check_names(folder, {_MANIFEST, _FILES})
    records = _records(folders.own_file(folder / _MANIFEST, _LARGEST_MANIFEST), facts)
    _check_names(folder / _FILES, records.keys())
    files = {}
    for name, record in records.items():
        data = folders.own_file(folder / _FILES / name, record["bytes"])
        if len(data) != record["bytes"]:
            raise _Broken(f"{name} has {len(data)} bytes of {record['bytes']}")
        if _hash([data]) != record["sha256"]:
            raise _Broken(f"{name} is damaged")
        files[name] = data
    return files


def _check_names(folder: Path, names: Any) -> None:
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise _Broken(f"{folder.name} is no folder")
    there = set(os.listdir(folder))
    if missing := names - there:
        raise _Broken(f"{min(missing)} is missing")
    if extra := there - names:
        raise _Broken(f"{min(extra)} does not belong to it")


def _records(manifest: bytes, facts: Mapping[str, str]) -> dict[str, Any]:
    """File -> its size and SHA-256, of a manifest with these facts."""
    try:
        content = json.loads(manifest)
        seal = content.pop("seal")
        if content["format"] != _FORMAT or seal != _hash([_canonical(content)]):
            raise _Broken("its manifest is damaged")
        if content["facts"] != dict(facts):
            raise _Broken("it was made of something else")
        records: dict[str, Any] = content["files"]
        sound = all(
            name == os.path.basename(name) and type(record["sha256"]) is str and type(record["bytes"]) is int
            for name, record in records.items()
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise _Broken("its manifest is damaged")
    return records


def _blocks(source: bytes | Path) -> Iterator[bytes | memoryview]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    else:
        view = memoryview(source)
        yield from (view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK))


def _flush(file: Any) -> None:
    """Onto the disk: an engine of ten minutes would be lost if the power went now."""
    file.flush()
    os.fsync(file.fileno())


def _hash(blocks: Any) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
