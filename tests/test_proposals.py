"""Boxes for a model that takes its proposals: read as `predict --coco` wrote them, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask.detections import Detections
from edgemask.errors import DatasetError
from edgemask.proposals import read_proposals


def written(path: Path, entries: Any) -> Path:
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


def entry(name: Any, *bbox: Any) -> dict[str, Any]:
    return {"file_name": name, "bbox": list(bbox or (1, 2, 3, 4)), "score": 0.5}


def test_what_predict_writes_comes_back(tmp_path: Path) -> None:
    """The corners go through width and height as JSON, and are the same float32 afterwards."""
    low = np.random.default_rng(0).uniform(0, 300, (200, 2))
    boxes = np.hstack([low, low + np.random.default_rng(1).uniform(0.5, 300, (200, 2))]).astype(np.float32)
    scores = np.linspace(1, 0, 200, dtype=np.float32)
    found = Detections(boxes, scores, np.ones(200, np.int64), image_size=(600, 600))
    records = [record | {"file_name": "a.png"} for record in found.to_coco(1)]
    (own,) = read_proposals(written(tmp_path / "results.json", records), [tmp_path / "a.png"])
    assert own.dtype == np.float32
    np.testing.assert_array_equal(own, boxes)


def test_each_image_gets_its_own_in_order(tmp_path: Path) -> None:
    entries = [entry("b.png", 1, 2, 3, 4), entry("a.png", 5, 6, 7, 8.5), entry("b.png", 9, 8, 7, 6)]
    path = written(tmp_path / "boxes.json", entries)
    found = read_proposals(path, [Path("a.png"), tmp_path / "c.png", tmp_path / "b.png"])
    assert [own.tolist() for own in found] == [[[5, 6, 12, 14.5]], [], [[1, 2, 4, 6], [9, 8, 16, 14]]]
    assert [own.shape for own in found] == [(1, 4), (0, 4), (2, 4)]
    assert all(own.dtype == np.float32 for own in found)
    assert read_proposals(str(path), []) == []


def test_the_longest_name_that_ends_the_path_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry("a.png", 1, 1, 1, 1), entry("y/a.png", 2, 2, 2, 2), entry("x/y/a.png", 3, 3, 3, 3)]
    path = written(tmp_path / "boxes.json", [*entries, entry("y/b.png", 4, 4, 4, 4)])
    files = [tmp_path / name for name in ("z/a.png", "z/y/a.png", "x/y/a.png", "b.png")]
    assert [own[:, 0].tolist() for own in read_proposals(path, files)] == [[1], [2], [3], []]
    (tmp_path / "x" / "y").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "x" / "y")
    (own,) = read_proposals(path, [Path("a.png")])
    assert own[:, 0].tolist() == [3], "the folder that we are in counts too"


def test_boxes_of_no_file_are_nobodys(tmp_path: Path) -> None:
    path = written(tmp_path / "boxes.json", [entry("", 1, 1, 1, 1), entry("a.png", 2, 2, 2, 2)])
    assert [own[:, 0].tolist() for own in read_proposals(path, [Path("a.png"), Path("b.png")])] == [[2], []]


def test_a_name_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    """`predict --coco` leaves the folders out: two images of one name would each get the boxes of both."""
    path = written(tmp_path / "boxes.json", [entry("a.png"), entry("a.png", 5, 6, 7, 8)])
    files = [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"]
    with pytest.raises(DatasetError, match=r"the boxes of a\.png .* may be those of .*x/a\.png or of .*y/a\.png"):
        read_proposals(path, files)
    assert [len(own) for own in read_proposals(path, [files[0], files[0]])] == [2, 2], "one image named twice"


def test_no_box_for_any_image_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for entries in ([], {}, [entry("c.png")]):
        with pytest.raises(DatasetError, match=r"boxes\.json has no box for .*a\.png or any other image") as caught:
            read_proposals(written(tmp_path / "boxes.json", entries), files)
        assert "file_name" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("", "JSONDecodeError"),
        ('[{"file_name": "a.png", "bbox": [1, 2,', "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ('[{"file_name": "a.png", "bbox": [1, 2, 3, NaN]}]', r"bbox\[3\]: expected a number .* got nan"),
        ('[{"file_name": "a.png", "bbox": [1, -Infinity, 3, 4]}]', r"bbox\[1\]: expected a number .* got -inf"),
        ([entry("a.png", 1, 2, 3)], "bbox: expected a list of 4 entries"),
        ([entry("a.png", 1, 2, 3, 4, 5)], "bbox: expected a list of 4 entries"),
        ([entry("a.png", 1, 2, 3, "4")], r"bbox\[3\]: expected a number .* got '4'"),
        ([entry("a.png", 1, 2, 3, True)], r"bbox\[3\]: expected a number .* got True"),
        ([entry("a.png", 1, 2, 3, 1e30)], r"bbox\[3\]: expected a number"),
        ([{"file_name": "a.png", "bbox": "1234"}], "bbox: expected a list"),
        ([{"file_name": "a.png"}], "KeyError 'bbox'"),
        ([{"bbox": [1, 2, 3, 4]}], "KeyError 'file_name'"),
        ([entry(5)], "TypeError"),
        ({"annotations": []}, "TypeError"),
        (["a.png"], "TypeError"),
        (5, "TypeError"),
    ],
)
def test_what_is_no_list_of_boxes(tmp_path: Path, entries: Any, message: str) -> None:
    path = written(tmp_path / "boxes.json", entries)
    with pytest.raises(DatasetError, match=rf"boxes\.json is no list of boxes: .*{message}") as caught:
        read_proposals(path, [Path("a.png")])
    assert "predict --coco" in str(caught.value.remedy)


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_bytes(b'[{"file_name": "\xff"}]')
    with pytest.raises(DatasetError, match="is no list of boxes: UnicodeDecodeError"):
        read_proposals(tmp_path / "boxes.json", [])


@pytest.mark.parametrize(("name", "reason"), [("nothing.json", "No such file"), (".", "Is a directory")])
def test_no_file(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=f"cannot read proposals .*: {reason}"):
        read_proposals(tmp_path / name, [Path("a.png")])
