"""What detections are scored against: a COCO-format document, checked entry by entry before anything is run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemask.checks import Check, Described, choice, number, pattern, printable, refuse, several, whole
from edgemask.errors import DatasetError, UsageError
from edgemask.evaluation.runlengths import check_filled
from edgemask.masks import segmentation_to_rle
from edgemask.spec import CATEGORY_LIMIT

TASKS = ("boxes", "masks", "keypoints")

_LISTS = ("images", "categories", "annotations")
_FAR = 1e9
_identity = whole(-CATEGORY_LIMIT, CATEGORY_LIMIT)
_name = pattern(r"(?s).+", "text")


def _side(name: str, value: Any) -> int:
    """Checks for a length in pixels, 480 or 480.0."""
    return int(whole(1, int(_FAR))(name, int(value) if isinstance(value, float) and value.is_integer() else value))


def _box(name: str, value: Any) -> list[float]:
    """Checks for COCO's finite x, y, width, height."""
    box = several(number(-_FAR, _FAR), 4, 4)(name, value)
    several(number(0, _FAR), 2, 2)(f"width and height of {name}", box[2:])
    return list(box)


def _flag(name: str, value: Any) -> int:
    if value not in (0, 1):
        refuse(name, "0 or 1", value)
    return int(value)


# Fields by list, and whether they must be there; a field that is null counts as absent.
_FIELDS: dict[str, dict[str, tuple[Check, bool]]] = {
    "images": {"id": (_identity, True), "height": (_side, False), "width": (_side, False), "file_name": (_name, False)},
    "categories": {"id": (_identity, True), "name": (_name, False)},
    "annotations": {
        "image_id": (_identity, True),
        "category_id": (_identity, True),
        "bbox": (_box, True),
        "area": (number(0, _FAR**2), False),
        "iscrowd": (_flag, False),
    },
}
_KIND = {"images": "image", "categories": "category", "annotations": "annotation"}


def read_truth(annotations: str | Path) -> dict[str, Any]:
    """Reads and checks a COCO-format annotation file without PyTorch.

    Segmentations and keypoints are left to `check_scorable`: a file of boxes need not have them.

    Returns:
        The JSON object with the lists `images`, `categories` and `annotations`; objects are numbered anew from 1
        (COCO's code takes number 0 for "no match") and have `area` and `iscrowd`, and `num_keypoints` where they have
        `keypoints`.

    Raises:
        DatasetError: no such file, not COCO format, or an entry that is broken, has the id of another one, or belongs
            to an image or a category that is not listed; names the entry.
    """
    name = printable(str(annotations))
    try:
        document = json.loads(Path(annotations).read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read annotations {name}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{name} is no COCO annotation file: not JSON, {printable(str(error))}", "check that the file is whole"
        ) from error
    return checked_truth(document, name=name)


def checked_truth(document: Any, *, name: str = "the annotations") -> dict[str, Any]:
    """Checks and completes a COCO-format document as `read_truth` does; the one given is not changed.

    Args:
        document: what the JSON holds.
        name: how messages call it.

    Raises:
        DatasetError: as `read_truth`.
    """
    for key in _LISTS:
        if not isinstance(document, Mapping) or not isinstance(document.get(key), list):
            got = f"one without {key}" if isinstance(document, Mapping) else type(document).__name__
            raise DatasetError(
                f"{name} is no COCO annotation file: expected a JSON object with the lists {', '.join(_LISTS)}, "
                f"got {got}",
                "check that this is the annotation file, not one of results",
            )
    checked = {key: [_checked(name, key, *numbered) for numbered in enumerate(document[key], 1)] for key in _LISTS}
    for key in ("images", "categories"):
        if not checked[key]:
            raise DatasetError(f"{name} lists no {_KIND[key]}", "expected at least one")
    for key in _LISTS:
        _check_distinct(name, key, document[key])
    for key, link in (("images", "image_id"), ("categories", "category_id")):
        listed = {entry["id"] for entry in checked[key]}
        for position, entry in enumerate(checked["annotations"], 1):
            if entry[link] not in listed:
                where = f"{name}: {_named('annotations', document['annotations'][position - 1], position)}"
                raise DatasetError(f"{where} has {link} {entry[link]}, which is not listed", "mend or remove it")
    annotations = [_completed(entry, position) for position, entry in enumerate(checked["annotations"], 1)]
    return {**document, **checked, "annotations": annotations}


def _checked(name: str, key: str, position: int, entry: Any) -> dict[str, Any]:
    try:
        if not isinstance(entry, dict):
            refuse("entry", "a JSON object", entry)
        checked = {
            field: check(field, entry.get(field))
            for field, (check, required) in _FIELDS[key].items()
            if required or entry.get(field) is not None
        }
    except UsageError as error:
        raise DatasetError(f"{name}: {_named(key, entry, position)}: {error.problem}", "mend or remove it") from error
    return {**entry, **checked}


def _check_distinct(name: str, key: str, entries: Sequence[dict[str, Any]]) -> None:
    """Objects need no ids here; but COCO's own tools lose all but the last one of an id, and figures would differ."""
    seen = set()
    for position, entry in enumerate(entries, 1):
        if "id" not in entry:
            continue
        identity = ascii(entry["id"])
        if identity in seen:
            raise DatasetError(
                f"{name}: {_KIND[key]} number {position} has the id {identity[:40]} of another one", "give each its own"
            )
        seen.add(identity)


def _named(key: str, entry: Any, position: int) -> str:
    """`annotation 7`, by its id; by its position in the file where it has none."""
    if isinstance(entry, dict) and "id" in entry:
        return f"{_KIND[key]} {ascii(entry['id'])[:40]}"
    return f"{_KIND[key]} number {position}"


def _completed(entry: dict[str, Any], position: int) -> dict[str, Any]:
    _, _, width, height = entry["bbox"]
    completed = {**entry, "id": position}
    for field, default in (("area", width * height), ("iscrowd", 0)):
        if completed.get(field) is None:
            completed[field] = default
    points = entry.get("keypoints")
    if isinstance(points, list) and entry.get("num_keypoints") is None:
        completed["num_keypoints"] = sum(isinstance(seen, int | float) and seen > 0 for seen in points[2::3])
    return completed


def check_scorable(document: Mapping[str, Any], tasks: Sequence[str], *, name: str = "the annotations") -> None:
    """Checks that a document has what the tasks score: segmentations of the images' sizes, and keypoints.

    Args:
        document: what `read_truth` or `truth_from` gave.
        tasks: of "boxes", "masks", "keypoints".
        name: how messages call the document.

    Raises:
        DatasetError: an image has no height and width, or an object has no sound segmentation or keypoints, or not as
            many as the others; names the entry by its position in the file.
        UsageError: another task.
        DependencyMissing: masks are to be scored and faster_coco_eval is not installed.
    """
    for task in tasks:
        choice(*TASKS)("task", task)
    sizes = {entry["id"]: (entry.get("height"), entry.get("width")) for entry in document["images"]}
    if "masks" in tasks:
        for position, entry in enumerate(document["images"], 1):
            if None in sizes[entry["id"]]:
                problem = f"{name}: {_named('images', entry, position)} has no height or no width"
                raise DatasetError(problem, "masks can only be scored where the images' sizes are given")
    count: int | None = None
    for task in tasks:
        for entry in document["annotations"]:
            try:
                if task == "masks":
                    _check_segmentation(entry.get("segmentation"), *sizes[entry["image_id"]])
                elif task == "keypoints":
                    count = _check_keypoints(entry, count)
            except UsageError as error:
                where = f"{name}: annotation number {entry['id']}, of image {entry['image_id']}"
                raise DatasetError(f"{where}: {error.problem}", f"mend it, or leave {task} out") from error


def _check_segmentation(segmentation: Any, height: int, width: int) -> None:
    if segmentation is None or segmentation == []:
        refuse("segmentation", "polygons or run lengths", Described("none"))
    check_filled(segmentation_to_rle(segmentation, height, width))


def _check_keypoints(entry: Mapping[str, Any], count: int | None) -> int:
    """Checks the keypoints of an object; returns how many there are, which `count` says if another object had some."""
    points = entry.get("keypoints")
    if points is None or points == []:
        refuse("keypoints", "x, y, visibility of each in turn", Described("none"))
    numbers = several(number(-_FAR, _FAR), 3, 3_000)("keypoints", points)
    found = len(numbers) // 3
    if len(numbers) != 3 * (found if count is None else count):
        wanted = "three for each keypoint" if count is None else f"{3 * count}, as of the objects before it"
        refuse("numbers of keypoints", wanted, len(numbers))
    whole(0, found)("num_keypoints", entry.get("num_keypoints"))
    return found
