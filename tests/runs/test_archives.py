"""The archive of a stored run: no zip file, a bomb, a directory that lies, and what is written so as not to be one."""

import random
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs.examples import ENTRIES, SPEC, arrays, digest, entry, facts, members, npy, packed, read_all, rewritten

import edgemask.runs.archives as archives
from edgemask.errors import DatasetError, ModelFileError, UsageError
from edgemask.runs import RunWriter, StoredRun
from edgemask.runs.archives import ArrayArchive


def test_refuses_what_is_no_archive(made: Path, tmp_path: Path) -> None:
    whole = made.read_bytes()
    for content in (b"", b"text", npy(np.zeros(3)), whole[:-1], whole[: len(whole) // 2]):
        (tmp_path / "run.npz").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"run\.npz: archive: expected a whole zip file"):
            StoredRun.open(tmp_path / "run.npz")
    (tmp_path / "run.npz").write_bytes(whole[100:])
    with pytest.raises(ModelFileError, match=r"boxes\.npy: expected bytes of this file"):
        read_all(tmp_path / "run.npz")
    np.savez(tmp_path / "other.npz", boxes=np.zeros(3))
    with pytest.raises(ModelFileError, match=r"archive: expected a member run\.npy, got none"):
        StoredRun.open(tmp_path / "other.npz")


def test_refuses_a_member_twice(made: Path, tmp_path: Path) -> None:
    path = rewritten(made, tmp_path / "run.npz", lambda contents, index: None)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("000000/boxes.npy", npy(np.zeros((3, 4), np.float32)))
    with pytest.raises(ModelFileError, match="archive: expected each member once"):
        StoredRun.open(path)


def test_refuses_other_compression_and_passwords(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members(made).items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"run\.npy: expected stored or deflated, got compression 12"):
        StoredRun.open(path)
    content = bytearray(made.read_bytes())
    position = content.rindex(b"run.npy") - 46  # its entry in the directory
    content[position + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"run\.npy: expected no password"):
        StoredRun.open(path)


def test_bombs_are_refused_before_they_are_unpacked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bomb(contents: dict[str, bytes], index: dict[str, Any]) -> None:
        index["images"][0]["stages"] = ["a", "b"]
        zeros = npy(np.zeros(3 << 20, np.uint8))
        contents.update({"000000/stages/0.npy": zeros, "000000/stages/1.npy": zeros})

    path = rewritten(made, tmp_path / "run.npz", bomb)
    assert len(read_all(path)) == 3
    assert path.stat().st_size < 1 << 19
    monkeypatch.setattr(ArrayArchive, "_array", forbidden_beyond_the_index)
    for name, limit in (("DEFLATED_LIMIT", 5 << 20), ("SIZE_LIMIT", 5 << 20)):
        with monkeypatch.context() as context:
            context.setattr(archives, name, limit)
            with pytest.raises(ModelFileError, match="arrays of one image: expected at most 5242880 bytes"):
                read_all(path)
    monkeypatch.setattr(archives, "JSON_LIMIT", 100)
    with pytest.raises(ModelFileError, match="run: expected at most 100 bytes of JSON"):
        StoredRun.open(path)


_ARRAY = ArrayArchive._array


def forbidden_beyond_the_index(archive: ArrayArchive, member: zipfile.ZipInfo) -> Any:
    assert member.filename == "run.npy", "it was unpacked"
    return _ARRAY(archive, member)


def test_sizes_that_the_file_cannot_hold(made: Path, tmp_path: Path) -> None:
    """A directory that claims more bytes than there are gets no memory for them."""
    path = tmp_path / "run.npz"
    np.savez(path, run=np.load(made)["run"])
    whole = path.read_bytes()
    position = whole.rindex(b"run.npy") - 46
    for offset, sizes in ((20, (2**31 - 2, 2**31 - 2)), (20, (100, 2**20)), (42, (2**31 - 2,))):
        content = bytearray(whole)
        struct.pack_into(f"<{len(sizes)}I", content, position + offset, *sizes)
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"run\.npy: expected bytes of this file, got \d+ that it cannot hold"):
            StoredRun.open(path)


def test_what_deflate_may_hold_is_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "DEFLATED_LIMIT", 1 << 20)
    stages = {str(number): np.zeros(400_000, np.uint8) for number in range(4)}
    path = packed(tmp_path, {"a": entry(1, stages=stages)})
    with zipfile.ZipFile(path) as archive:
        methods = {info.filename: info.compress_type for info in archive.infolist()}
    assert [methods[f"000000/stages/{number}.npy"] for number in range(4)] == [8, 8, 0, 0]
    (got,) = read_all(path)
    assert arrays(got) == arrays(entry(1, stages=stages))


def test_limits_of_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.open(tmp_path / "journal", facts()) as writer:
        writer.put("a" * 900, digest(1), entry(1))
        monkeypatch.setattr(archives, "JSON_LIMIT", 2500)
        with pytest.raises(UsageError, match="run: expected at most 2500 bytes of JSON"):
            writer.pack(tmp_path / "run.npz")
        monkeypatch.setattr(archives, "SIZE_LIMIT", 5000)
        with pytest.raises(UsageError, match="arrays of one image: expected at most 5000 bytes"):
            writer.put("b", digest(1), entry(2))
    assert not (tmp_path / "run.npz").exists()


def test_any_byte_changed(tmp_path: Path) -> None:
    """A run with some bytes changed says what it said before, or is refused by name."""
    path = packed(tmp_path, {"a.png": entry(1, found=ENTRIES["c.png"].found[:1]), "b.png": entry(0, 1)}, spec=SPEC)
    whole = path.read_bytes()
    expected = [arrays(found) for found in read_all(path)]
    refused, generator = 0, random.Random(4)
    for _ in range(400):
        content = bytearray(whole)
        # Half of them near the end, in the directory of the archive.
        start = generator.choice([0, len(whole) - 900])
        for _ in range(generator.choice([1, 1, 4])):
            content[generator.randrange(start, len(whole))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            assert [arrays(found) for found in read_all(path)] == expected
        except (ModelFileError, DatasetError):
            refused += 1
    assert refused > 200
