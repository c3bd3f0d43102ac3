"""Files appear whole or not at all."""

import contextlib
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemask.errors import OutputError
from edgemask.files import creating, creating_folder, remove_unfinished, scratch, write_image


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the same OSError from the same call as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    return path


def test_replaces_when_the_block_ends_well(old: Path) -> None:
    with creating(old) as temporary:
        temporary.write_bytes(b"new and longer")
        assert old.read_bytes() == b"old"
        assert temporary.parent == old.parent, "a rename is whole within one file system only"
    assert old.read_bytes() == b"new and longer"
    assert os.listdir(old.parent) == [old.name]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file(old: Path, error: BaseException) -> None:
    def write() -> None:
        with creating(old) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


def test_a_full_disk_leaves_the_old_file(old: Path) -> None:
    with full_disk(1000), pytest.raises(OutputError, match=r"model\.bin: File too large"), creating(old) as temporary:
        temporary.write_bytes(bytes(5000))
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "model.bin"
    with pytest.raises(OutputError, match="No such file or directory") as caught, creating(path):
        pytest.fail("the block must not run")
    assert str(path) in caught.value.problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"), creating(tmp_path / "model.bin"):
            pytest.fail("the block must not run")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with creating(tmp_path / "model.bin") as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600, "nobody else reads a part"
        assert os.umask(umask) == umask, "the mask is as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.bin").stat().st_mode) == mode


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "large-disk").mkdir()
    target, link = tmp_path / "large-disk" / "model.bin", tmp_path / "model.bin"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    with creating(link) as temporary:
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["model.bin"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(OutputError, match="no file"), creating(tmp_path / "models"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["models"]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """A root user's `-o /dev/null` must not turn the device into a file."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no file"), creating(tmp_path / "pipe"):
        pytest.fail("the block must not run")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_process_about_to_end_removes_its_parts(old: Path) -> None:
    def write() -> None:
        with creating(old) as temporary:
            temporary.write_bytes(b"half")
            remove_unfinished()
            assert os.listdir(old.parent) == [old.name]

    with pytest.raises(OutputError, match="No such file"):
        write()
    assert old.read_bytes() == b"old"


def test_finished_files_are_no_parts(old: Path) -> None:
    with creating(old) as temporary:
        temporary.write_bytes(b"new")
    remove_unfinished()
    assert old.read_bytes() == b"new"


def test_what_the_dead_left_goes_and_what_the_living_write_stays(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(old.parent))
    (old.parent / ".model.bin.abcdefgh.part").touch()
    (old.parent / ".edgemask-scratch.abcdefgh").mkdir()
    (old.parent / ".other.bin.abcdefgh.part").touch()
    with creating(old) as first, scratch() as folder, creating(old) as second, scratch():
        assert folder.is_dir()
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert old.read_bytes() == b"first"
    assert sorted(os.listdir(old.parent)) == [".other.bin.abcdefgh.part", old.name]


def test_a_block_within_a_block_is_of_the_same_file(old: Path) -> None:
    """Another file would be left for ever by a kill, and in its place stand without the lock of the first."""
    with creating(old) as outer:
        with creating(outer) as inner:
            inner.write_bytes(b"new")
        assert sorted(os.listdir(old.parent)) == sorted([outer.name, old.name])
        with creating(old) as of_another:
            of_another.write_bytes(b"of another")
        assert outer.read_bytes() == b"new"
    assert old.read_bytes() == b"new"


def test_a_full_disk_within_a_block_is_told_of_the_file_itself(old: Path) -> None:
    message = r"^cannot write \S+/model\.bin: "
    with full_disk(1000), pytest.raises(OutputError, match=message), creating(old) as outer, creating(outer) as inner:
        inner.write_bytes(bytes(5000))


def test_traps_among_what_was_left_are_passed_by(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write into the folder for temporary files can put there what he likes."""
    monkeypatch.setattr("tempfile.tempdir", str(old.parent))
    for name in (".model.bin.{}.part", ".edgemask-scratch.{}"):
        (old.parent / name.format("linklink")).symlink_to(old)
        os.mkfifo(old.parent / name.format("pipepipe"))
    with creating(old) as temporary, scratch():
        temporary.write_bytes(b"new")
    assert old.read_bytes() == b"new"


def test_a_folder_appears_whole_with_what_is_in_it(tmp_path: Path) -> None:
    with creating_folder(tmp_path / "new" / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("whole")
        assert not (tmp_path / "new" / "folder").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    assert (tmp_path / "new" / "folder" / "inner" / "file").read_text() == "whole"
    with pytest.raises(OutputError, match="is there already"), creating_folder(tmp_path / "new" / "folder"):
        raise AssertionError("what is there is not replaced")


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_exception_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with creating_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_process_about_to_end_removes_its_folders(tmp_path: Path) -> None:
    def write() -> None:
        with creating_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("half")
            remove_unfinished()

    with pytest.raises(OutputError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
def test_write_image(tmp_path: Path, name: str, kind: str) -> None:
    pixels = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    write_image(tmp_path / name, pixels)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
        np.testing.assert_allclose(np.asarray(image, np.int16), pixels, atol=0 if kind == "PNG" else 3)


def test_write_image_on_a_full_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with full_disk(100), pytest.raises(OutputError):
        write_image(tmp_path / "a.png", noise)
    assert os.listdir(tmp_path) == []
