"""StoredRun of a file whose archive is whole, and whose index or arrays are not what they should be."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs.examples import (
    ENTRIES,
    SEMANTIC,
    arrays,
    at,
    digest,
    entry,
    member,
    npy,
    packed,
    read_all,
    rewritten,
    semantic_map,
)

from edgemask.errors import ModelFileError
from edgemask.runs import StoredRun

BAD_INDEX = {
    "another format": (at("format", to="other"), "format: expected edgemask.run, got 'other'"),
    "a newer major format": (at("format_version", to="2.0"), "format_version: expected 1.0 or an older major version"),
    "no version": (at("format_version", to=None), "format_version: expected major.minor, got None"),
    "no facts": (at("facts", to=None), "facts: expected a dictionary"),
    "a hostile spec": (at("facts", "spec", "class_names", to=[]), "class_names: expected a list of 1 to"),
    "a machine's path": (at("facts", "name", to="/home/me/m.onnx"), "name: expected a name without folders"),
    "no images": (at("images", to={}), "images: expected a list, got {}"),
    "an image of nothing": (at("images", 1, to=7), "image: expected a JSON object, got 7"),
    "no name": (at("images", 1, "name", to=""), "name: expected text of 1 to 1000"),
    "a name for a terminal": (at("images", 1, "name", to="\x1b[2J"), r"got '\x1b[2J'"),
    "a name without end": (at("images", 1, "name", to="a" * 5000), "name: expected text of 1 to 1000"),
    "no digest": (at("images", 1, "sha256", to="abc"), "sha256: expected 64"),
    "seconds of text": (at("images", 0, "seconds", to="1"), "seconds: expected a number"),
    "seconds before": (at("images", 0, "seconds", to=-1), "seconds: expected a number"),
    "a huge size": (at("images", 0, "image_size", to=[1, 2**31]), "image_size[1]: expected a whole number"),
    "half a size": (at("images", 0, "image_size", to=[1]), "image_size: expected a list of 2 entries"),
    "arrays of text": (at("images", 0, "arrays", to="boxes"), "arrays: expected a list"),
    "a stage without name": (at("images", 0, "stages", 0, to=""), "stages[0]: expected text"),
    "many stages": (at("images", 0, "stages", to=["a"] * 300), "stages: expected a list of 0 to 256"),
}


@pytest.mark.parametrize("name", BAD_INDEX)
def test_refuses_an_index(made: Path, tmp_path: Path, name: str) -> None:
    change, problem = BAD_INDEX[name]
    path = rewritten(made, tmp_path / "run.npz", change)
    with pytest.raises(ModelFileError) as caught:
        StoredRun.open(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert problem in caught.value.problem
    assert ("update edgemask" if "newer" in name else "store the run again") in (caught.value.remedy or "")


def test_a_refused_file_is_closed(made: Path, tmp_path: Path) -> None:
    path = rewritten(made, tmp_path / "run.npz", at("format", to="other"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelFileError) as caught:
        StoredRun.open(path)
    assert caught.tb is not None, "which holds all that was opened and not closed"
    assert len(os.listdir("/proc/self/fd")) == before


def test_refuses_one_image_twice(made: Path, tmp_path: Path) -> None:
    path = rewritten(made, tmp_path / "run.npz", lambda _, index: index["images"].append(index["images"][1]))
    with pytest.raises(ModelFileError, match=r"images: expected each image once, got 'b\.png'"):
        StoredRun.open(path)


def test_refuses_an_index_that_is_none(made: Path, tmp_path: Path) -> None:
    for text in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"format": NaN}'):
        (content,) = (npy(np.frombuffer(text, np.uint8)),)

        def change(contents: dict[str, bytes], index: dict[str, Any], content: bytes = content) -> None:
            contents["run.npy"] = content
            index.clear()

        with pytest.raises(ModelFileError, match="expected"):
            StoredRun.open(rewritten(made, tmp_path / "run.npz", change))


HEADER = b"\x93NUMPY\x01\x00"


def headed(text: str, content: bytes = b"") -> bytes:
    return HEADER + struct.pack("<H", len(text)) + text.encode() + content


BAD_ARRAYS = {
    "pickled objects": (member("boxes", npy(np.array([{}] * 12), allow_pickle=True)), "whole numbers, floats or bools"),
    "no npy": (member("boxes", b"PK\x05\x06"), "000000/boxes.npy: expected a whole .npy"),
    "empty": (member("boxes", b""), "expected a whole .npy"),
    "half": (member("boxes", npy(np.zeros((3, 4), np.float32))[:-1]), "expected 48 bytes for float32 [3, 4], got 47"),
    "longer": (member("boxes", npy(np.zeros((3, 4), np.float32)) + b"0"), "got 49"),
    "a later npy": (member("boxes", HEADER.replace(b"\1", b"\2") + bytes(99)), "version (1, 0) of .npy, got (2, 0)"),
    "columns first": (member("boxes", npy(np.zeros((4, 3), np.float32).T)), "C order, got Fortran order"),
    "another type": (member("boxes", npy(np.zeros((3, 4)))), "boxes: expected float32 [3, 4], got float64 [3, 4]"),
    "big-endian": (member("scores", npy(np.zeros(3, ">f4"))), "little-endian whole numbers, floats or bools, got >f4"),
    "text": (member("scores", npy(np.array(["x"] * 3))), "floats or bools, got <U1"),
    "records": (member("scores", npy(np.zeros(3, "f4,i4"))), "floats or bools"),
    "another shape": (member("labels", npy(np.ones(2, np.int64))), "labels: expected int64 [3], got int64 [2]"),
    "not square": (member("masks", npy(np.zeros((3, 2, 4), np.float32))), "masks: expected float32 [3, M, M]"),
    "no label": (member("labels", npy(np.zeros(3, np.int64))), "labels: expected 1 or more"),
    "a label too many": (member("labels", npy(np.full(3, 3))), "labels: expected at most 2, the number of classes"),
    "not finite": (member("boxes", npy(np.full((3, 4), np.nan, np.float32))), "boxes: expected finite numbers"),
    "scores that rise": (member("scores", npy(np.float32([0, 0.5, 1]))), "scores: expected descending order"),
    "odd proposals": (member("proposals", npy(np.zeros((3, 5), np.float32))), "proposals: expected float32 [P, 4]"),
    "a huge shape": (
        member("boxes", headed("{'descr': '<f4', 'fortran_order': False, 'shape': (10**18, 4)}\n")),
        "expected a whole .npy",
    ),
    "a shape of its own": (
        member("boxes", headed("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000)}\n")),
        "got 0",
    ),
    "a shape below 0": (
        member("boxes", headed("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}\n", bytes(16))),
        "up to 16 dimensions in C order",
    ),
    "many dimensions": (
        member("boxes", headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1,' * 40})}}\n", bytes(4))),
        "up to 16 dimensions in C order",
    ),
    "brackets": (member("boxes", headed("(" * 9000)), "expected a whole .npy"),
    "signs": (member("boxes", headed("-" * 9000 + "1")), "expected a whole .npy"),
    "a program": (member("boxes", headed("__import__('os').abort()\n")), "expected a whole .npy"),
    "a long header": (member("boxes", headed(" " * 20_000)), "expected a whole .npy"),
    "a member gone": (lambda contents, _: contents.pop("000000/masks.npy"), "a member 000000/masks.npy, got none"),
    "a stage gone": (lambda contents, _: contents.pop("000000/stages/2.npy"), "a member 000000/stages/2.npy"),
    "no boxes": (at("images", 0, "arrays", to=["scores", "labels"]), "arrays: expected boxes, scores, labels among"),
    "no masks": (at("images", 0, "arrays", to=["boxes", "scores", "labels"]), "found: expected masks"),
    "half a map": (at("images", 0, "arrays", to=["label_map"]), "a member 000000/label_map.npy"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_refuses_arrays(made: Path, tmp_path: Path, name: str) -> None:
    change, problem = BAD_ARRAYS[name]
    path = rewritten(made, tmp_path / "run.npz", change)  # type: ignore[arg-type]
    with StoredRun.open(path) as run:
        with pytest.raises(ModelFileError) as caught:
            run.get("a.png", digest(0))
        assert arrays(run.get("c.png", digest(2))) == arrays(ENTRIES["c.png"]), "the others are as they were"
    assert caught.value.problem.startswith(f"{path}: ")
    assert problem in caught.value.problem
    assert "store the run again" in (caught.value.remedy or "")


def test_refuses_maps_of_another_size(tmp_path: Path) -> None:
    made = packed(tmp_path, {"a": entry(found=semantic_map())}, spec=SEMANTIC)
    changes = [
        (at("images", 0, "image_size", to=[5, 7]), r"label_map: expected \[5, 7\] as image_size, got \[7, 5\]"),
        (at("images", 0, "arrays", to=["label_map"]), "arrays: expected label_map, score_map among them"),
        (member("label_map", npy(np.full((7, 5), 3, np.uint8))), "labels: expected at most 2"),
        (at("facts", "spec", "tasks", to=["boxes"]), "found: expected what a model for boxes gives"),
    ]
    for change, problem in changes:
        with pytest.raises(ModelFileError, match=problem):
            read_all(rewritten(made, tmp_path / "bad.npz", change))
