"""StoredRun: gives back what was packed, to numpy as well, and no other image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs.examples import (
    ENTRIES,
    SEMANTIC,
    STAGES,
    arrays,
    digest,
    entry,
    facts,
    packed,
    read_all,
    rewritten,
    semantic_map,
)

from edgemask.errors import DatasetError, ModelFileError
from edgemask.runs import FORMAT_VERSION, RunWriter, StoredRun


def test_gives_back_what_was_packed(made: Path) -> None:
    with StoredRun.open(str(made)) as run:
        assert run.facts == facts()
        assert run.names == tuple(ENTRIES)
        for number, (name, given) in reversed(list(enumerate(ENTRIES.items()))):
            assert arrays(run.get(name, digest(number))) == arrays(given)


def test_gives_back_maps(tmp_path: Path) -> None:
    maps = {str(seed): entry(found=semantic_map(seed), seconds=0.0) for seed in range(3)}
    got = read_all(packed(tmp_path, maps, spec=SEMANTIC, kind="onnx", name="fcn.onnx"))
    assert [arrays(found) for found in got] == [arrays(given) for given in maps.values()]


def test_numpy_reads_the_format_as_documented(made: Path) -> None:
    found = ENTRIES["a.png"].found
    with np.load(made, allow_pickle=False) as run:
        assert run["run"].dtype == np.uint8
        index = json.loads(run["run"].tobytes())
        assert index["format"] == "edgemask.run"
        assert index["format_version"] == FORMAT_VERSION == "1.0"
        assert index["facts"] == facts().to_record()
        assert index["images"][0] == {
            "name": "a.png",
            "sha256": digest(0),
            "seconds": 0.1,
            "image_size": [120, 90],
            "arrays": ["boxes", "scores", "labels", "masks", "proposals"],
            "stages": list(STAGES),
        }
        assert index["images"][2]["stages"] is None
        for name in ("boxes", "scores", "labels", "masks"):
            np.testing.assert_array_equal(run[f"000000/{name}"], getattr(found, name), strict=True)
        for number, array in enumerate(STAGES.values()):
            np.testing.assert_array_equal(run[f"000000/stages/{number}"], array, strict=True)
        assert len(run.files) == 1 + 5 + len(STAGES) + 4 + 4


def test_numpy_writes_the_format(made: Path, tmp_path: Path) -> None:
    with np.load(made) as run:
        contents = {name: run[name] for name in run.files}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "run.npz", allow_pickle=False, **contents)
        assert [arrays(got) for got in read_all(tmp_path / "run.npz")] == [arrays(given) for given in ENTRIES.values()]


def test_other_images_are_refused(made: Path) -> None:
    with StoredRun.open(made) as run:
        with pytest.raises(DatasetError, match=r"run\.npz has no image no\\x1b\.png\ngive the images"):
            run.get("no\x1b.png", digest(0))
        with pytest.raises(DatasetError) as caught:
            run.get("b.png", digest(0))
    assert "b.png is another image than the stored run" in caught.value.problem
    assert f"sha256 {digest(0)}, there {digest(1)}" in caught.value.problem


def test_one_name_of_two_images(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path / "journal", facts()) as writer:
        for number in range(2):
            writer.put("a.png", digest(number), entry(1, number))
        writer.pack(tmp_path / "run.npz")
    with StoredRun.open(tmp_path / "run.npz") as run:
        assert run.names == ("a.png", "a.png")
        assert [run.get("a.png", digest(number)).seconds for number in range(2)] == [0.1, 1.1]
        with pytest.raises(DatasetError, match="another image"):
            run.get("a.png", digest(2))


def test_unknown_keys_and_members_are_left_out(made: Path, tmp_path: Path) -> None:
    def extend(contents: dict[str, bytes], index: dict[str, Any]) -> None:
        index["format_version"] = "1.9"
        index["later"] = index["facts"]["later"] = index["images"][0]["later"] = {"x": 1}
        index["images"][0]["arrays"].append("embeddings")
        contents["000000/embeddings.npy"] = contents["notes.txt"] = b"whatever"

    got = read_all(rewritten(made, tmp_path / "run.npz", extend))
    assert [arrays(found) for found in got] == [arrays(given) for given in ENTRIES.values()]


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*no\.npz: No such file or directory\ncheck the path"):
        StoredRun.open(tmp_path / "no.npz")
    with pytest.raises(ModelFileError, match="is no file\nname the file of the stored run itself"):
        StoredRun.open(tmp_path)
    with pytest.raises(ModelFileError, match=r"cannot read a\\x00b"):
        StoredRun.open("a\0b")
