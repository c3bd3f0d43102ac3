"""COCO-format data sets for training and evaluation, and the augmentation of images, boxes and masks together."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgemask.checks import Check, number, pattern, refuse, several, text, whole
from edgemask.errors import DatasetError, UsageError
from edgemask.images import load_image
from edgemask.masks import rle_to_bitmap, segmentation_to_rle
from edgemask.spec import CATEGORY_LIMIT

Sample = tuple[torch.Tensor, dict[str, Any]]
Augment = Callable[[tv_tensors.Image, dict[str, Any]], Sample]

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
_CATEGORY = {"id": whole(0, CATEGORY_LIMIT), "name": text}
_OBJECT = {"image_id": whole(-CATEGORY_LIMIT, CATEGORY_LIMIT), "category_id": whole(0, CATEGORY_LIMIT), "bbox": _box}


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """A COCO-format annotation file, checked.

    Attributes:
        path: the file.
        images: `images` entries by id, in the file's order.
        objects: `annotations` entries by image id; an image without objects has an empty list.
        categories: id and name of each category, ordered by id; a label is a position in it plus 1.
    """

    path: Path
    images: dict[int, dict[str, Any]]
    objects: dict[int, list[dict[str, Any]]]
    categories: tuple[tuple[int, str], ...]

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
    names = {identity: entry["name"] for identity, entry in _by_id(path, "category", categories, _CATEGORY).items()}
    objects: dict[int, list[dict[str, Any]]] = {identity: [] for identity in images_by_id}
    for position, entry in enumerate(annotations, 1):
        where = f"{path}: {_named('annotation', entry, position)}"
        _check(where, entry, _OBJECT)
        for name, listed in (("image_id", images_by_id), ("category_id", names)):
            if entry[name] not in listed:
                raise DatasetError(f"{where} has {name} {entry[name]}, which is not listed", "mend or remove it")
        objects[entry["image_id"]].append(entry)
    return CocoAnnotations(path, images_by_id, objects, tuple(sorted(names.items())))


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
    `labels` int64 [N] and `masks` uint8 [N, H, W]. Crowd regions and objects without a pixel are left out.

    Args:
        folder: where the images lie.
        annotations: what `read_annotations` gave.
    """

    def __init__(self, folder: str | Path, annotations: CocoAnnotations) -> None:
        self.folder = Path(folder)
        self.annotations = annotations
        self._ids = list(annotations.images)
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
        """Item `index` with image, masks and labels changed by `augment` before boxes are taken from the masks."""
        entry = self.annotations.images[self._ids[index]]
        pixels = load_image(self.path(entry))
        masks, labels = self._objects(entry, pixels.shape[0], pixels.shape[1])
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        target: dict[str, Any] = {"masks": tv_tensors.Mask(torch.from_numpy(masks)), "labels": torch.from_numpy(labels)}
        if augment is not None:
            image, target = augment(image, target)
        return v2.functional.to_dtype(image.as_subclass(torch.Tensor), torch.float32, scale=True), with_boxes(target)

    def _objects(self, entry: dict[str, Any], height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if (entry["height"], entry["width"]) != (height, width):
            raise DatasetError(
                f"{self.path(entry)} is {width}x{height} pixels, its annotations say "
                f"{entry['width']}x{entry['height']}",
                "mend the width and height in the annotation file",
            )
        objects = [o for o in self.annotations.objects[entry["id"]] if not o.get("iscrowd")]
        masks = np.zeros((len(objects), height, width), np.uint8)
        for mask, annotation in zip(masks, objects, strict=True):
            try:
                mask[:] = rle_to_bitmap(segmentation_to_rle(annotation.get("segmentation"), height, width))
            except UsageError as error:
                where = f"{self.annotations.path}: annotation {annotation.get('id')} of {entry['file_name']}"
                raise DatasetError(f"{where}: {error.problem}", "mend or remove it") from error
        ids = self.annotations.category_ids
        return masks, np.array([ids.index(o["category_id"]) + 1 for o in objects], np.int64)


def with_boxes(target: dict[str, Any]) -> dict[str, Any]:
    """Adds the smallest box around each mask and drops objects without a pixel: crops may have cut them off."""
    masks = target["masks"].as_subclass(torch.Tensor)
    rows, columns = masks.amax(2).bool(), masks.amax(1).bool()
    kept = rows.any(1) & columns.any(1)
    masks, rows, columns = masks[kept], rows[kept].to(torch.uint8), columns[kept].to(torch.uint8)
    left, top = columns.argmax(1), rows.argmax(1)
    right = columns.shape[1] - columns.flip(1).argmax(1)
    bottom = rows.shape[1] - rows.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], 1).to(torch.float32)
    return {"boxes": boxes, "labels": target["labels"][kept], "masks": masks}


class AlignedCrop(v2.RandomResizedCrop):  # type: ignore[misc]
    """torchvision's transform with masks sampled at pixel centres, as images are.

    Its own nearest sampling of masks lies half a pixel to the right and below: measured 0.49 pixels on 172 crops, which
    costs a mask of 30 pixels an eighth of its IoU.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crops and resizes one input of the sample."""
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        window = [params[name] for name in ("top", "left", "height", "width")]
        cut = v2.functional.crop_image(inpt.as_subclass(torch.Tensor), *window)
        exact = v2.InterpolationMode.NEAREST_EXACT
        return tv_tensors.Mask(v2.functional.resize_image(cut, list(self.size), interpolation=exact))


def augmentation(
    *, crop: int | None = None, crop_share: tuple[float, float] = (0.15, 0.7), flips: bool = False
) -> Augment:
    """The augmentation of `train`, by torchvision's transforms: crop and scale, flips, light and colour.

    Args:
        crop: side in pixels to which a random crop is resized; None keeps whole images as they are.
        crop_share: range of the crop's share of the image's area: a wide one varies the scale of the objects.
        flips: flip upside down too, for pictures without a natural up.
    """
    steps: list[Any] = []
    if crop is not None:
        # No antialiasing: the exported graph's input is resized without it too.
        steps.append(AlignedCrop(crop, scale=crop_share, ratio=(0.8, 1.25), antialias=False))
    steps.append(v2.RandomHorizontalFlip())
    if flips:
        steps.append(v2.RandomVerticalFlip())
    steps.append(v2.RandomPhotometricDistort(p=0.5))
    transform: Augment = v2.Compose(steps)
    return transform
