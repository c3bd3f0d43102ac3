"""The cache of compiled models: whole and of the same facts, or removed with a line that says why; no exception."""

import errno
import fcntl
import json
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edgemask.runtimes import cache_folder as folders
from edgemask.runtimes.cache import Entry, _canonical, _hash, cache_folder, cache_size, open_entry

FACTS = {"model": "ab12", "library": "openvino 2026.3", "device": "CPU"}
OTHER = {**FACTS, "library": "openvino 2026.4"}
GOOD, ANEW = b"a compiled model" * 100, b"the model compiled again" * 70
NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_warned", set())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entry(root: Path, facts: dict[str, str] = FACTS) -> Entry:
    opened = open_entry(facts, title="compiled m.onnx", cache=root)
    assert opened is not None
    return opened


def stored(root: Path, facts: dict[str, str] = FACTS, data: bytes = GOOD) -> Path:
    """The folder of an entry with these bytes."""
    before = set(root.glob("*")) if root.is_dir() else set()
    entry(root, facts).store(data)
    (place,) = set(root.glob("*")) - before
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sealed(root: Path, files: dict[str, bytes]) -> None:
    built = entry(root)
    folder = built.folder()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    built.seal()
    built.close()


def resealed(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest as somebody would who knows how it is sealed."""
    path = place / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["seal"]
    change(manifest)
    path.write_bytes(_canonical({**manifest, "seal": _hash([_canonical(manifest)])}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    """By a link to the very same content, outside of the cache."""
    outside = path.parents[2 if path.name == "manifest.json" else 3] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "in it").write_bytes(b"x")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_other_entry(place: Path, part: str) -> None:
    other = stored(place.parent, OTHER, data=b"x" * len(GOOD))
    shutil.rmtree(place / part) if (place / part).is_dir() else (place / part).unlink()
    (other / part).rename(place / part)
    shutil.rmtree(other)


def whole_other_entry(place: Path) -> None:
    other = stored(place.parent, OTHER)
    shutil.rmtree(place)
    other.rename(place)


def entry_is_a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_bytes(GOOD)


def entry_is_a_link(place: Path) -> None:
    outside = place.parents[1] / "outside"
    place.rename(outside)
    place.symlink_to(outside)


def files_is_a_file(place: Path) -> None:
    shutil.rmtree(place / "files")
    (place / "files").touch()


def hollow(place: Path) -> None:
    shutil.rmtree(place / "files")
    (place / "manifest.json").unlink()


BLOB, MANIFEST = "files/blob", "manifest.json"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda p: os.truncate(p / BLOB, 700), "blob has 700 bytes of 1600"),
    "empty": (lambda p: os.truncate(p / BLOB, 0), "blob has 0 bytes of 1600"),
    "one bit": (lambda p: flip(p / BLOB), "blob is damaged"),
    "other bytes": (lambda p: (p / BLOB).write_bytes(b"x" * len(GOOD)), "blob is damaged"),
    "longer": (lambda p: (p / BLOB).write_bytes(GOOD + b"x"), "blob has 1601 bytes of 1600"),
    "huge": (lambda p: os.truncate(p / BLOB, 2**40), "blob has 1099511627776 bytes of 1600"),
    "gone": (lambda p: (p / BLOB).unlink(), "blob is missing"),
    "file is a link": (lambda p: replace_by_link(p / BLOB), "Too many levels of symbolic links"),
    "file is a folder": (lambda p: replace_by_folder(p / BLOB), "blob is no file"),
    "file is a pipe": (lambda p: replace_by_pipe(p / BLOB), "blob is no file"),
    "file of another": (lambda p: of_other_entry(p, "files"), "blob is damaged"),
    "extra file": (lambda p: (p / "files/libevil.so").write_bytes(b"x"), r"libevil\.so does not belong to it"),
    "half-written": (lambda p: (p / ".new").write_bytes(b"x"), r"\.new does not belong to it"),
    "no files": (lambda p: shutil.rmtree(p / "files"), "files is missing"),
    "files is a file": (files_is_a_file, "files is no folder"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), r"manifest\.json is missing"),
    "nothing": (hollow, "is missing"),
    "manifest cut": (lambda p: os.truncate(p / MANIFEST, 50), "its manifest is damaged"),
    "manifest empty": (lambda p: os.truncate(p / MANIFEST, 0), "its manifest is damaged"),
    "manifest bit": (lambda p: flip(p / MANIFEST), "its manifest is damaged"),
    "manifest garbage": (lambda p: (p / MANIFEST).write_bytes(bytes(range(256))), "its manifest is damaged"),
    "manifest list": (lambda p: (p / MANIFEST).write_text("[1]"), "its manifest is damaged"),
    "manifest number": (lambda p: (p / MANIFEST).write_text("1"), "its manifest is damaged"),
    "manifest deep": (lambda p: (p / MANIFEST).write_text("[" * 100_000), "its manifest is damaged"),
    "manifest huge": (lambda p: os.truncate(p / MANIFEST, 2**40), r"manifest\.json has 1099511627776 bytes"),
    "manifest is a link": (lambda p: replace_by_link(p / MANIFEST), "Too many levels of symbolic links"),
    "manifest of another": (lambda p: of_other_entry(p, MANIFEST), "it was made of something else"),
    "manifest newer": (lambda p: resealed(p, lambda m: m.update(format=2)), "its manifest is damaged"),
    "files no records": (lambda p: resealed(p, lambda m: m.update(files=[1])), "its manifest is damaged"),
    "no hash": (lambda p: resealed(p, lambda m: m["files"]["blob"].pop("sha256")), "its manifest is damaged"),
    "a path": (lambda p: resealed(p, lambda m: m["files"].update({"../x": m["files"]["blob"]})), "is damaged"),
    "copied entry": (whole_other_entry, "it was made of something else"),
    "entry is a file": (entry_is_a_file, "is no folder"),
    "entry is a link": (entry_is_a_link, "is no folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_removed_and_said(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    damage, reason = DAMAGES[name]
    place = stored(root)
    damage(place)
    assert entry(root).load() is None
    (line,) = caplog.messages
    assert line.startswith("compiled m.onnx is built anew: ")
    assert re.search(reason, line)
    assert list(root.iterdir()) == []
    entry(root).store(ANEW)
    assert entry(root).load() == ANEW
    assert len(caplog.messages) == 1
    if (outside := root.parent / "outside").exists():
        assert outside.is_dir() or outside.stat().st_size, "the link was followed"


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_reaches_no_library(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same for a folder: it is empty, and what is built into it is found the next time."""
    damage, reason = DAMAGES[name]
    sealed(root, {"blob": GOOD})
    (place,) = root.iterdir()
    damage(place)
    opened = entry(root)
    assert content(opened.folder()) == {}
    assert re.search(reason, caplog.text)
    (opened.folder() / "a.engine").write_bytes(ANEW)
    opened.seal()
    opened.close()
    assert content(entry(root).folder()) == {"a.engine": ANEW}


@NOT_ROOT
@pytest.mark.parametrize("part", ["", "files", BLOB, MANIFEST])
def test_what_cannot_be_read_is_removed(root: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    (stored(root) / part).chmod(0)
    assert entry(root).load() is None
    assert "built anew: Permission denied" in caplog.text
    entry(root).store(ANEW)
    assert entry(root).load() == ANEW


def test_a_file_of_another_user_is_not_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(root)
    own = entry(root)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert own.load() is None
    assert "manifest.json belongs to another user" in caplog.text


@pytest.mark.parametrize("fact", FACTS)
def test_other_facts_are_another_entry(root: Path, fact: str, caplog: pytest.LogCaptureFixture) -> None:
    stored(root)
    assert entry(root, {**FACTS, fact: "changed"}).load() is None
    assert entry(root, dict(reversed(FACTS.items()))).load() == GOOD
    assert caplog.messages == []


def test_bytes_as_they_were(root: Path) -> None:
    for data in (GOOD, b"", ANEW * 1000):
        entry(root).store(data)
        assert entry(root).load() == data


# A folder that a library fills.


def test_a_folder_is_found_as_it_was_sealed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = entry(root)
    folder = first.folder()
    assert content(folder) == {}
    assert first.folder() == folder
    (folder / "a.engine").write_bytes(GOOD)
    first.seal()
    (folder / "timing.cache").write_bytes(b"later, at the first run")
    first.seal()
    first.close()
    second = entry(root)
    assert second.folder() == folder, "a path that changes would be a new engine for some libraries"
    assert content(folder) == {"a.engine": GOOD, "timing.cache": b"later, at the first run"}
    assert caplog.messages == []


def test_what_was_not_sealed_is_not_found(root: Path) -> None:
    sealed(root, {"a.engine": GOOD})
    crashed = entry(root)
    (crashed.folder() / "a.engine").write_bytes(b"half")
    crashed.close()
    assert content(entry(root).folder()) == {"a.engine": GOOD}


def test_two_that_build_at_once_do_not_meet(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = entry(root), entry(root)
    (one.folder() / "a.engine").write_bytes(b"half of one")
    assert content(two.folder()) == {}
    (two.folder() / "a.engine").write_bytes(ANEW)
    two.seal()
    assert content(one.folder()) == {"a.engine": b"half of one"}
    assert content(entry(root).folder()) == {"a.engine": ANEW}
    assert caplog.messages == []


def test_what_a_library_removed_does_not_come_back(root: Path) -> None:
    sealed(root, {"a.engine": GOOD})
    second = entry(root)
    (second.folder() / "a.engine").unlink()
    second.seal()
    second.close()
    assert content(entry(root).folder()) == {}


def test_only_files_are_sealed(root: Path) -> None:
    built = entry(root)
    built.seal()  # before there is a folder
    (built.folder() / "inner").mkdir()
    (built.folder() / "link").symlink_to(__file__)
    built.seal()
    assert cache_count(root) == 0, "an entry of nothing"
    (built.folder() / "a.engine").write_bytes(GOOD)
    built.seal()
    assert content(entry(root).folder()) == {"a.engine": GOOD}


def test_what_is_unchanged_is_not_written_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(root, {"a.engine": GOOD})
    again = entry(root)
    again.folder()
    monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    again.seal()
    assert folders._warned == set()


def test_a_folder_is_given_where_none_can_be_made(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = entry(root)
    shutil.rmtree(root)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (opened.folder() / "a.engine").write_bytes(GOOD)
    opened.seal()
    opened.close()
    assert [line.partition(": ")[2].partition(";")[0] for line in caplog.messages] == ["No such file or directory"]
    assert list(tmp_path.glob(".edgemask-*")) == []


def test_a_full_disk_while_a_folder_is_filled(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(root, {"a.engine": GOOD, "b.engine": ANEW})
    opened = entry(root)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails(errno.ENOSPC))
        folder = opened.folder()
    assert content(folder) == {}
    assert "No space left on device" in caplog.text


def test_a_child_of_fork_leaves_the_folder_alone(root: Path) -> None:
    path, handle = folders.make_work_folder(root_made(root))
    folders.remove_work_folder(path, handle, os.getpid() + 1)
    assert path.is_dir()
    folders.remove_work_folder(path, handle, os.getpid())
    assert not path.exists()


# Writing.


def fails(code: int) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


def root_made(root: Path) -> Path:
    root.mkdir(mode=0o700)
    return root


def cache_count(root: Path) -> int:
    return len([path for path in root.iterdir() if not path.name.startswith("work-")])


@pytest.mark.parametrize("where", ["os.fsync", "os.rename", "tempfile.mkdtemp", "pathlib.Path.open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_is_said_once_and_keeps_the_old(
    root: Path, where: str, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(root)
    writers = [entry(root), entry(root)]
    with monkeypatch.context() as patch:
        patch.setattr(where, fails(code))
        for writer in writers:
            writer.store(ANEW)
    (line,) = caplog.messages
    assert line.startswith(f"compiled models are not kept in {root}: {os.strerror(code)}; ")
    assert entry(root).load() == GOOD
    entry(root).store(ANEW)
    assert entry(root).load() == ANEW
    assert len(list(root.iterdir())) == 1, "something unfinished is left"


def test_a_disk_that_is_really_full(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        entry(root).store(ANEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in caplog.text
    assert entry(root).load() == GOOD


KILLED = """
import os, signal, sys
from edgemask.runtimes.cache import open_entry
entry = open_entry({"model": "ab12"}, title="m", cache=sys.argv[1])
entry.store(b"old")
(entry.folder() / "a.engine").write_bytes(b"half")
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
entry.store(b"new")
"""


def test_a_process_that_is_killed(root: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, timeout=60)
    assert len(list(root.glob("work-*"))) == 2, "it was not killed while it wrote"
    survivor = entry(root, {"model": "ab12"})
    assert survivor.load() == b"old"
    survivor.store(b"anew")
    assert len(list(root.iterdir())) == 1, "what it left behind stays"
    assert survivor.load() == b"anew"


def test_writers_and_readers_at_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each load gives the bytes of one writer, whole."""
    stored(root)
    found: list[bytes | None] = []

    def work(data: bytes) -> None:
        for _ in range(15):
            entry(root).store(data)
            found.append(entry(root).load())

    threads = [threading.Thread(target=work, args=(bytes([number]) * 50_000,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(len(data), len(set(data))) for data in found if data is not None} == {(50_000, 1)}
    assert None not in found
    assert caplog.messages == []


def test_a_cache_that_is_locked_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(root)
    monkeypatch.setattr(folders, "_PATIENCE", 0.02)
    with folders.locked(root, exclusive=True):
        assert entry(root).load() is None
        entry(root).store(ANEW)
    assert [line.partition(": ")[2].partition(";")[0] for line in caplog.messages] == [
        "another process keeps it locked"
    ]
    assert entry(root).load() == GOOD


def test_a_file_system_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fails(errno.ENOLCK))
    sealed(root, {"a.engine": GOOD})
    busy = entry(root)
    assert content(busy.folder()) == {"a.engine": GOOD}
    entry(root, OTHER).store(ANEW)
    assert content(busy.folder()) == {"a.engine": GOOD}, "somebody may be at work in it"
    assert entry(root, OTHER).load() == ANEW


# The folder of all.


def test_the_oldest_go_when_it_is_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LARGEST_CACHE", 6000)
    for number in range(3):
        os.utime(stored(root, {"model": str(number)}), (number, number))
    assert entry(root, {"model": "0"}).load() == GOOD
    working = entry(root, {"model": "4"})
    (working.folder() / "a.engine").write_bytes(GOOD)
    entry(root, {"model": "3"}).store(GOOD)
    kept = [number for number in range(4) if entry(root, {"model": str(number)}).load()]
    assert kept == [0, 2, 3]
    assert content(working.folder()) == {"a.engine": GOOD}


def test_the_newest_stays_when_the_clock_went_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LARGEST_CACHE", 3000)
    os.utime(stored(root, OTHER), (2**33, 2**33))
    entry(root).store(GOOD)
    assert entry(root).load() == GOOD
    assert entry(root, OTHER).load() is None


def test_what_is_larger_than_all_is_not_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(root, OTHER, b"small")
    monkeypatch.setattr(folders, "LARGEST_CACHE", 1500)
    entry(root).store(GOOD)
    assert "compiled m.onnx is larger than 1500 bytes" in caplog.text
    assert entry(root).load() is None
    assert entry(root, OTHER).load() == b"small"


def group_writable(root: Path) -> None:
    root_made(root).chmod(0o770)


def writable_by_all(root: Path) -> None:
    root_made(root).chmod(0o1707)


def link_to_writable(root: Path) -> None:
    writable_by_all(root.with_name("open"))
    root.symlink_to("open")


def dangling(root: Path) -> None:
    root.symlink_to("nowhere")


MISTRUSTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "group may write": (group_writable, "other users may write into it"),
    "all may write": (writable_by_all, "other users may write into it"),
    "link to such": (link_to_writable, "other users may write into it"),
    "a file": (lambda root: root.touch(), "it is no folder"),
    "dangling link": (dangling, "it is no folder"),
}


@pytest.mark.parametrize("name", MISTRUSTED)
def test_a_folder_that_cannot_be_trusted(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, reason = MISTRUSTED[name]
    make(root)
    before = sorted(root.parent.rglob("*"))
    for _ in range(2):
        assert open_entry(FACTS, title="m", cache=root) is None
    (line,) = caplog.messages
    assert reason in line
    assert line.endswith("; EDGEMASK_CACHE or the option cache names another")
    assert sorted(root.parent.rglob("*")) == before


def test_a_folder_below_a_file(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    root.touch()
    assert open_entry(FACTS, title="m", cache=root / "inner") is None
    assert f"{root}/inner: it is no folder" in caplog.text


def test_a_folder_of_another_user(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root_made(root)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert open_entry(FACTS, title="m", cache=root) is None
    assert "it belongs to another user" in caplog.text


def test_a_read_only_folder(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", fails(errno.EROFS))
    assert open_entry(FACTS, title="m", cache=root) is None
    assert "Read-only file system" in caplog.text


@NOT_ROOT
def test_a_folder_without_the_right_to_write(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    root_made(root).chmod(0o500)
    assert open_entry(FACTS, title="m", cache=root) is None
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize("cache", ["a\0b", "x" * 300, "\ud800"])
def test_a_path_that_is_none(cache: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_entry(FACTS, title="m", cache=f"{tmp_path}/{cache}") is None
    (line,) = caplog.messages
    assert line.isprintable()


@pytest.mark.parametrize("cache", [False, ""])
def test_no_cache_is_none_without_a_word(cache: bool | str, caplog: pytest.LogCaptureFixture) -> None:
    assert open_entry(FACTS, title="m", cache=cache) is None
    assert caplog.messages == []


def test_all_is_private_whatever_the_mask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        place = stored(tmp_path / "some" / "cache")
    finally:
        os.umask(mask)
    for path in (place.parent, place, place / "files"):
        assert path.stat().st_mode & 0o777 == 0o700, path


def test_a_link_to_a_private_folder_is_followed(root: Path) -> None:
    root_made(root.with_name("disk"))
    root.symlink_to("disk")
    stored(root)
    assert entry(root.with_name("disk")).load() == GOOD


def test_a_line_is_a_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (stored(root) / BLOB).unlink()
    opened = open_entry(FACTS, title="compiled \x1b[31m\nm.onnx", cache=root)
    assert opened is not None
    assert opened.load() is None
    assert caplog.messages == ["compiled \\x1b[31m\\nm.onnx is built anew: blob is missing"]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EDGEMASK_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "edgemask"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "edgemask"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_folder() == Path("/var/cache/me/edgemask")
    monkeypatch.setenv("EDGEMASK_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"


def test_no_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As in a container that runs under a number without a name."""
    for name in ("HOME", "XDG_CACHE_HOME", "EDGEMASK_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> NoReturn:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert open_entry(FACTS, title="m", cache=True) is None
    assert "there is no home folder" in caplog.text
    assert cache_size() == (0, 0)


def test_how_much_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMASK_CACHE", str(root))
    assert cache_size() == (0, 0)
    places = [stored(root), stored(root, OTHER, ANEW)]
    opened = open_entry(FACTS, title="m", cache=True)
    assert opened is not None
    assert opened.load() == GOOD
    manifests = sum((place / MANIFEST).stat().st_size for place in places)
    assert cache_size() == (2, len(GOOD) + len(ANEW) + manifests)
