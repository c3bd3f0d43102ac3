"""COCO-format data sets for training and evaluation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgemask.augmentation import Augment, Sample, with_boxes
from edgemask.checks import Check, number, optional, pattern, refuse, several, text, whole
from edgemask.errors import DatasetError, UsageError
from edgemask.images import load_image
from edgemask.masks import rle_to_bitmap, segmentation_to_rle
from edgemask.spec import CATEGORY_LIMIT, KEYPOINT_LIMIT

_FAR = 1e9


def _box(name: str, value: Any) -> tuple[float, ...]:
    """Checks for COCO's finite x, y, width, height."""
    box: tuple[float, ...] = several(number(-_FAR, _FAR), 4, 4)(name, value)
    several(number(0, _FAR), 2, 2)(f"width and height of {name}", box[2:])
    return box


# What entries of an annotation file must have.
_IMAGE = {
    "id": whole(-CATEGORY_LIMIT, CATEGORY_LIMIT),
    "file_name": pattern(".+", "a file name"),
    "height": number(1, _FAR),
    "width": number(1, _FAR),
}
_CATEGORY = {"id": whole(0, CATEGORY_LIMIT), "name": text, "keypoints": optional(several(text, 1, KEYPOINT_LIMIT))}
_OBJECT = {"image_id": whole(-CATEGORY_LIMIT, CATEGORY_LIMIT), "category_id": whole(0, CATEGORY_LIMIT), "bbox": _box}


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """A COCO-format annotation file, checked.

    Attributes:
        path: the file.
        images: `images` entries by id, in the file's order.
        objects: `annotations` entries by image id; an image without objects has an empty list.
        categories: id and name of each category, ordered by id; a label is a position in it plus 1.
        keypoint_names: names of the keypoints that each object has, in their order; empty where categories list none.
    """

    path: Path
    images: dict[int, dict[str, Any]]
    objects: dict[int, list[dict[str, Any]]]
    categories: tuple[tuple[int, str], ...]
    keypoint_names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in label order, without the background."""
        return tuple(name for _, name in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's ids in label order."""
        return tuple(identity for identity, _ in self.categories)


def read_annotations(path: str | Path) -> CocoAnnotations:
    """Reads and checks a COCO-format annotation file; segmentations are checked where they are drawn.

    Raises:
        DatasetError: no such file, not COCO format, or an entry that is broken, contradicts another one or has the id
            of another one; names the entry.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
        images, categories, annotations = (list(document[name]) for name in ("images", "categories", "annotations"))
    except OSError as error:
        raise DatasetError(f"cannot read annotations {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path} is no COCO annotation file: {type(error).__name__} {error}",
            "expected a JSON object with the lists images, annotations and categories",
        ) from error
    images_by_id = _by_id(path, "image", images, _IMAGE)
    categories_by_id = _by_id(path, "category", categories, _CATEGORY)
    names = {identity: entry["name"] for identity, entry in categories_by_id.items()}
    objects: dict[int, list[dict[str, Any]]] = {identity: [] for identity in images_by_id}
    for position, entry in enumerate(annotations, 1):
        where = f"{path}: {_named('annotation', entry, position)}"
        _check(where, entry, _OBJECT)
        for name, listed in (("image_id", images_by_id), ("category_id", names)):
            if entry[name] not in listed:
                raise DatasetError(f"{where} has {name} {entry[name]}, which is not listed", "mend or remove it")
        objects[entry["image_id"]].append(entry)
    keypoint_names = _keypoint_names(path, categories_by_id)
    return CocoAnnotations(path, images_by_id, objects, tuple(sorted(names.items())), keypoint_names)


def _keypoint_names(path: Path, categories: Mapping[int, dict[str, Any]]) -> tuple[str, ...]:
    listed = {tuple(entry["keypoints"]) for entry in categories.values() if entry.get("keypoints")}
    if len(listed) > 1:
        raise DatasetError(f"{path}: categories have different keypoints", "a model has one list of them for all")
    return listed.pop() if listed else ()


def _by_id(path: Path, kind: str, entries: list[Any], fields: Mapping[str, Check]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries, 1):
        where = f"{path}: {_named(kind, entry, position)}"
        _check(where, entry, fields)
        if entry["id"] in found:
            raise DatasetError(f"{where} has the id of another {kind}", "give each its own")
        found[entry["id"]] = entry
    if not found:
        raise DatasetError(f"{path} lists no {kind}", "expected at least one")
    return found


def _check(where: str, entry: Any, fields: Mapping[str, Check]) -> None:
    try:
        if not isinstance(entry, dict):
            refuse("entry", "a JSON object", entry)
        for name, check in fields.items():
            check(name, entry.get(name))
    except UsageError as error:
        raise DatasetError(f"{where}: {error.problem}", "mend or remove it") from error


def _named(kind: str, entry: Any, position: int) -> str:
    """`annotation 7`, by its id; by its position in the file where it has none."""
    if isinstance(entry, dict) and "id" in entry:
        return f"{kind} {ascii(entry['id'])[:40]}"
    return f"{kind} number {position}"


class CocoDataset(Dataset[Sample]):
    """Images and targets as torchvision's detection models take them for training.

    An item is a float32 [3, H, W] RGB image in 0-1 and a target with `boxes` float32 [N, 4] xyxy in pixels,
    `labels` int64 [N], and what the tasks ask for: `masks` uint8 [N, H, W]; `keypoints` float32 [N, K, 3], numbers of
    pixels, and 1, or 0 where a point is not marked or outside. Crowd regions and objects without a pixel are left out.

    Args:
        folder: where the images lie.
        annotations: what `read_annotations` gave.
        tasks: what a model learns, as `ModelSpec.tasks` has it. Boxes are those of the masks; without the task
            `masks`, objects without an outline have the pixels of their `bbox`.

    Raises:
        DatasetError: an image is not in the folder, or keypoints are to be learnt and no category lists them.
    """

    def __init__(
        self, folder: str | Path, annotations: CocoAnnotations, tasks: Sequence[str] = ("boxes", "masks")
    ) -> None:
        self.folder = Path(folder)
        self.annotations = annotations
        self.tasks = tuple(tasks)
        self._ids = list(annotations.images)
        if "keypoints" in self.tasks and not annotations.keypoint_names:
            raise DatasetError(
                f"{annotations.path} has no category with a list of keypoints",
                "give a file of keypoints, such as COCO's person_keypoints, or train a model without them",
            )
        missing = [entry["file_name"] for entry in annotations.images.values() if not self.path(entry).is_file()]
        if missing:
            shown = ", ".join(missing[:3]) + " …" * (len(missing) > 3)
            raise DatasetError(
                f"{len(missing)} of {len(self._ids)} images are not in {self.folder}: {shown}",
                "check --images and the file_name entries",
            )

    def path(self, entry: dict[str, Any]) -> Path:
        """File of an `images` entry."""
        return self.folder / str(entry["file_name"])

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return self.augmented(index, None)

    def augmented(self, index: int, augment: Augment | None) -> Sample:
        """Item `index`, with all but boxes changed by `augment`, before they are taken from the masks."""
        entry = self.annotations.images[self._ids[index]]
        pixels = load_image(self.path(entry))
        size = pixels.shape[:2]
        if (entry["height"], entry["width"]) != size:
            raise DatasetError(
                f"{self.path(entry)} is {size[1]}x{size[0]} pixels, its annotations say "
                f"{entry['width']}x{entry['height']}",
                "mend the width and height in the annotation file",
            )
        objects = [o for o in self.annotations.objects[entry["id"]] if not o.get("iscrowd")]
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        target = self._target(entry, objects, *size)
        if augment is not None:
            image, target = augment(image, target)
        target = with_boxes(target)
        if "masks" not in self.tasks:
            del target["masks"]
        return v2.functional.to_dtype(image.as_subclass(torch.Tensor), torch.float32, scale=True), target

    def _target(
        self, image: Mapping[str, Any], objects: list[dict[str, Any]], height: int, width: int
    ) -> dict[str, Any]:
        ids, count = self.annotations.category_ids, len(self.annotations.keypoint_names)
        masks = np.zeros((len(objects), height, width), np.uint8)
        points = np.full((len(objects), count, 2), np.nan, np.float32)
        for mask, own, annotation in zip(masks, points, objects, strict=True):
            try:
                mask[:] = rle_to_bitmap(segmentation_to_rle(self._outline(annotation), height, width))
                if "keypoints" in self.tasks and annotation.get("keypoints"):
                    own[:] = _marked(annotation["keypoints"], count)
            except UsageError as error:
                where = f"{self.annotations.path}: annotation {annotation.get('id')} of {image['file_name']}"
                raise DatasetError(f"{where}: {error.problem}", "mend or remove it") from error
        target: dict[str, Any] = {
            "masks": tv_tensors.Mask(torch.from_numpy(masks)),
            "labels": torch.tensor([ids.index(o["category_id"]) + 1 for o in objects], dtype=torch.int64),
        }
        if "keypoints" in self.tasks:
            target["keypoints"] = tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=(height, width))
        return target

    def _outline(self, annotation: Mapping[str, Any]) -> Any:
        outline = annotation.get("segmentation")
        if outline or "masks" in self.tasks:
            return outline
        left, top, wide, high = annotation["bbox"]
        right, bottom = left + wide, top + high
        return [[left, top, right, top, right, bottom, left, bottom]]


def _marked(numbers: Any, count: int) -> NDArray[np.float32]:
    """COCO's x, y, visibility of each keypoint in turn as float32 [K, 2]; NaN where a point is not marked."""
    found = several(number(-_FAR, _FAR), 3 * count, 3 * count)("keypoints", numbers)
    points = np.array(found, np.float32).reshape(count, 3)
    return np.where(points[:, 2:] > 0, points[:, :2], np.float32(np.nan))
