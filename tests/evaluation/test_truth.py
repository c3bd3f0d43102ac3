"""Annotation files: what a sound one gives, and that a broken one is refused by the name of its entry."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_sets import data_set, written
from numpy.random import default_rng

from edgemask.errors import DatasetError, UsageError
from edgemask.evaluation import check_scorable, coco_metrics, read_truth


def small() -> dict[str, Any]:
    segmentation = [[10, 10, 30, 10, 30, 30, 10, 30]]
    points = [12, 12, 2, 0, 0, 0, 25.5, 28, 1]
    entry = {"image_id": 5, "category_id": 18, "bbox": [10, 10, 20, 20.5]}
    return {
        "info": {"year": 2026},
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 60}, {"id": 3, "height": 9, "width": 9}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 90}],
        "annotations": [
            {**entry, "id": 70, "segmentation": segmentation, "keypoints": points},
            {**entry, "id": 0, "iscrowd": 1, "area": 7, "segmentation": {"size": [40, 60], "counts": [100, 2300]}},
        ],
    }


def test_objects_are_numbered_and_completed(tmp_path: Path) -> None:
    document = read_truth(written(small(), tmp_path))
    assert document["info"] == {"year": 2026}
    one, other = document["annotations"]
    assert (one["id"], one["area"], one["iscrowd"], one["num_keypoints"]) == (1, 410, 0, 2)
    assert (other["id"], other["area"], other["iscrowd"]) == (2, 7, 1)
    assert "num_keypoints" not in other
    assert one["segmentation"] == small()["annotations"][0]["segmentation"]


def test_null_counts_as_absent_and_whole_floats_as_whole_numbers(tmp_path: Path) -> None:
    document = small()
    document["images"][0].update(height=40.0, file_name=None)
    document["annotations"][0].update(area=None, iscrowd=None, num_keypoints=None)
    read = read_truth(written(document, tmp_path))
    assert (type(read["images"][0]["height"]), read["images"][0]["height"]) == (int, 40)
    assert [read["annotations"][0][key] for key in ("area", "iscrowd", "num_keypoints")] == [410, 0, 2]
    assert read_truth(written(small() | {"annotations": []}, tmp_path))["annotations"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00\x01", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "lists images, categories, annotations, got list"),
        (b'"text"', "got str"),
        (b"null", "got NoneType"),
        (b'{"images": []}', "got one without categories"),
        (b'{"images": {}, "categories": [], "annotations": []}', "got one without images"),
        (b'{"images": [], "categories": [], "annotations": []}', "lists no image"),
        (b'{"images": [{"id": 1}], "categories": [], "annotations": []}', "lists no category"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_no_annotation_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_truth(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(DatasetError, match=r"cannot read annotations .*: (No such file|Is a directory)"):
            read_truth(path)


BROKEN: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("image no object", lambda d: d["images"].append(7), "image number 3: entry: expected a JSON object, got 7"),
    ("image without id", lambda d: d["images"][1].pop("id"), "image number 2: id: expected a whole number"),
    ("image id text", lambda d: d["images"][0].update(id="5"), "image '5': id: expected a whole number"),
    ("image id huge", lambda d: d["images"][0].update(id=2**60), "image 1152921504606846976: id"),
    ("image id twice", lambda d: d["images"][1].update(id=5), "image number 2 has the id 5 of another one"),
    ("height text", lambda d: d["images"][0].update(height="40"), "image 5: height: expected a whole number from 1"),
    ("height zero", lambda d: d["images"][0].update(height=0), "image 5: height"),
    ("width NaN", lambda d: d["images"][0].update(width=float("nan")), "image 5: width"),
    ("file name list", lambda d: d["images"][0].update(file_name=["a"]), "image 5: file_name: expected text"),
    ("category no object", lambda d: d["categories"].append("dog"), "category number 3: entry"),
    ("category id float", lambda d: d["categories"][0].update(id=18.5), "category 18.5: id"),
    ("category id twice", lambda d: d["categories"][1].update(id=18), "category number 2 has the id 18 of another"),
    ("category name", lambda d: d["categories"][0].update(name=4), "category 18: name: expected text, got 4"),
    ("object no object", lambda d: d["annotations"].append(None), "annotation number 3: entry"),
    ("object id twice", lambda d: d["annotations"][1].update(id=70), "annotation number 2 has the id 70 of another"),
    ("no image id", lambda d: d["annotations"][0].pop("image_id"), "annotation 70: image_id: expected a whole"),
    ("image id true", lambda d: d["annotations"][0].update(image_id=True), "annotation 70: image_id"),
    ("unlisted image", lambda d: d["annotations"][1].update(image_id=6), "annotation 0 has image_id 6, which is not"),
    (
        "unlisted category",
        lambda d: d["annotations"][0].update(category_id=1),
        "annotation 70 has category_id 1, which",
    ),
    ("no box", lambda d: d["annotations"][0].pop("bbox"), "annotation 70: bbox: expected a list of 4 entries"),
    ("box of 3", lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "annotation 70: bbox: expected a list of 4"),
    ("box of text", lambda d: d["annotations"][0].update(bbox="abcd"), "annotation 70: bbox"),
    ("box with NaN", lambda d: d["annotations"][0].update(bbox=[1, float("nan"), 3, 4]), r"annotation 70: bbox\[1\]"),
    ("box negative", lambda d: d["annotations"][0].update(bbox=[1, 1, -3, 4]), "annotation 70: width and height of"),
    ("area NaN", lambda d: d["annotations"][0].update(area=float("nan")), "annotation 70: area: expected a number"),
    ("area negative", lambda d: d["annotations"][0].update(area=-1), "annotation 70: area"),
    ("crowd of 2", lambda d: d["annotations"][0].update(iscrowd=2), "annotation 70: iscrowd: expected 0 or 1, got 2"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_entry_is_named(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    document = small()
    change(document)
    path = written(document, tmp_path)
    with pytest.raises(DatasetError, match=message) as caught:
        read_truth(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DatasetError, match=message):
        coco_metrics(document, [], tasks=["boxes"])


def test_what_is_there_can_be_scored(tmp_path: Path) -> None:
    document = read_truth(written(small(), tmp_path))
    check_scorable(document, ["boxes", "masks"])
    check_scorable({**document, "annotations": document["annotations"][:1]}, ["keypoints", "masks"])
    with pytest.raises(UsageError, match="task: expected boxes or masks or keypoints, got 'semantic'"):
        check_scorable(document, ["semantic"])


RUNS = {"size": [40, 60], "counts": [100, 2300]}
UNSCORABLE: list[tuple[str, str, dict[str, Any], str]] = [
    ("masks", "none", {"segmentation": None}, "segmentation: expected polygons or run lengths, got none"),
    ("masks", "empty", {"segmentation": []}, "got none"),
    ("masks", "text", {"segmentation": "abc"}, "annotation number 2, of image 5: segmentation"),
    ("masks", "number", {"segmentation": 5}, "segmentation"),
    ("masks", "short polygon", {"segmentation": [[1, 2, 3, 4]]}, "polygon 0: expected a list of 6"),
    ("masks", "odd polygon", {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygon 0: expected x and y in turn"),
    ("masks", "NaN", {"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, r"polygon 0\[5\]"),
    ("masks", "other size", {"segmentation": {**RUNS, "size": [60, 40]}}, r"of an image of 40 x 60 .H x W., got \[60"),
    ("masks", "no size", {"segmentation": {"counts": [2400]}}, "run lengths' size"),
    ("masks", "no counts", {"segmentation": {"size": [40, 60]}}, "run lengths: expected counts that fill"),
    ("masks", "too few", {"segmentation": {**RUNS, "counts": [100, 2299]}}, "run lengths"),
    ("masks", "too few as text", {"segmentation": {**RUNS, "counts": "T3\\4"}}, "run lengths: expected 2400 pixels"),
    ("masks", "no text", {"segmentation": {**RUNS, "counts": "\x01é"}}, "run lengths' counts: expected COCO's"),
    ("keypoints", "none", {"keypoints": None}, "keypoints: expected x, y, visibility of each in turn, got none"),
    ("keypoints", "empty", {"keypoints": []}, "keypoints: expected x, y"),
    ("keypoints", "text", {"keypoints": "abc"}, "keypoints: expected a list"),
    ("keypoints", "two", {"keypoints": [1, 2]}, "keypoints: expected a list of 3"),
    ("keypoints", "seven", {"keypoints": [1, 2, 2, 1, 2, 2, 1]}, "numbers of keypoints: expected 9, as of the"),
    ("keypoints", "fewer", {"keypoints": [1, 2, 2]}, "numbers of keypoints: expected 9, as of the objects before it"),
    ("keypoints", "NaN", {"keypoints": [1, 2, 2] * 2 + [1, float("nan"), 2]}, r"keypoints\[7\]"),
    ("keypoints", "nested", {"keypoints": [[1, 2, 2]] * 3}, r"keypoints\[0\]"),
    ("keypoints", "more seen than there", {"num_keypoints": 4}, "num_keypoints: expected a whole number from 0 to 3"),
]


@pytest.mark.parametrize(("task", "_", "change", "message"), UNSCORABLE, ids=[case[1] for case in UNSCORABLE])
def test_what_cannot_be_scored_is_named(
    task: str, _: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    document = small()
    second = {**document["annotations"][0], "id": 71, **change}
    document["annotations"][1] = second
    read = read_truth(written(document, tmp_path))
    check_scorable(read, ["boxes"])
    with pytest.raises(DatasetError, match=message) as caught:
        check_scorable(read, ["boxes", task], name="val.json")
    assert str(caught.value).startswith("val.json: annotation number 2, of image 5: ")
    assert str(caught.value).endswith(f"mend it, or leave {task} out")


def test_masks_need_the_sizes_of_images(tmp_path: Path) -> None:
    for missing in ("height", "width"):
        document = small()
        del document["images"][1][missing]
        read = read_truth(written(document, tmp_path))
        check_scorable(read, ["boxes"])
        with pytest.raises(DatasetError, match="image 3 has no height or no width"):
            check_scorable(read, ["masks"])


def test_no_damaged_entry_is_a_fault_of_ours(tmp_path: Path) -> None:
    """Every value of a sound document, replaced by something else: it is scored, or an entry is refused by name."""
    sound = data_set(default_rng(0), images=2)
    messages = []
    for key in ("images", "categories", "annotations"):
        for field in sound[key][0]:
            for value in (None, -1, 1.5, "", "x", [], [[]], {}, [1, 2, 3, 4], True, float("inf"), 10**30):
                document = copy.deepcopy(sound)
                document[key][0][field] = value
                path = written(document, tmp_path)
                try:
                    coco_metrics(path, [])
                except DatasetError as error:
                    messages.append(error.problem)
    assert len(messages) > 80
    named = r"annotations\.json: (image|category|annotation) (number )?\S+"
    assert [message for message in messages if not re.search(named, message) or "Error" in message] == []
