"""COCO-format data sets for training and evaluation, and the augmentation of images, boxes and masks together."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from faster_coco_eval.core import mask as coco_mask
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgemask.errors import DatasetError
from edgemask.images import load_image

Sample = tuple[torch.Tensor, dict[str, Any]]
Augment = Callable[[tv_tensors.Image, dict[str, Any]], Sample]


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
    """Reads and checks a COCO-format annotation file.

    Raises:
        DatasetError: no such file, not COCO format, or an entry that contradicts another; names the entry.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
        images = {entry["id"]: entry for entry in document["images"]}
        categories = sorted((entry["id"], str(entry["name"])) for entry in document["categories"])
        annotations = list(document["annotations"])
    except OSError as error:
        raise DatasetError(f"cannot read annotations {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is no COCO annotation file: {type(error).__name__} {error}",
            "expected a JSON object with the lists images, annotations and categories",
        ) from error
    known = {identity for identity, _ in categories}
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in annotations:
        _check_object(path, entry, images, known)
        objects[entry["image_id"]].append(entry)
    if not images or not categories:
        raise DatasetError(f"{path} names no image or no category", "expected at least one of each")
    return CocoAnnotations(path, images, {i: objects.get(i, []) for i in images}, tuple(categories))


def _check_object(path: Path, entry: Any, images: dict[int, Any], categories: set[int]) -> None:
    where = f"{path}: annotation {entry.get('id') if isinstance(entry, dict) else entry!r}"
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
        image, category = entry["image_id"], entry["category_id"]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where} is broken: {type(error).__name__} {error}", "mend or remove it") from error
    if image not in images:
        raise DatasetError(f"{where} belongs to image {image}, which is not listed", "mend or remove it")
    if category not in categories:
        raise DatasetError(f"{where} has category {category}, which is not listed", "mend or remove it")
    if not (np.isfinite([x, y, width, height]).all() and width >= 0 and height >= 0):
        raise DatasetError(f"{where} has the box {entry['bbox']}", "expected finite [x, y, width, height]")


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
            raise DatasetError(
                f"{len(missing)} of {len(self._ids)} images are not in {self.folder}: {', '.join(missing[:3])} …",
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

    def _objects(
        self, entry: dict[str, Any], height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
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
                mask[:] = segmentation_bitmap(annotation["segmentation"], height, width)
            except (ValueError, KeyError, TypeError) as error:
                raise DatasetError(
                    f"{self.annotations.path}: annotation {annotation['id']} of {entry['file_name']} "
                    f"has a broken segmentation: {error}",
                    "mend or remove it",
                ) from error
        ids = self.annotations.category_ids
        return masks, np.array([ids.index(o["category_id"]) + 1 for o in objects], np.int64)


def segmentation_bitmap(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Draws a COCO segmentation (polygons, RLE or compressed RLE) as uint8 [H, W] of 0 and 1.

    Raises:
        ValueError: none of the three, or for another image size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(f"an RLE of size {segmentation.get('size')} for an image of {[height, width]}")
        runs = segmentation
        if isinstance(segmentation["counts"], list):
            runs = coco_mask.frPyObjects(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        raise ValueError(f"expected polygons or an RLE, got {type(segmentation).__name__}")
    bitmap: NDArray[np.uint8] = coco_mask.decode(runs)
    return bitmap


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
        steps.append(v2.RandomResizedCrop(crop, scale=crop_share, ratio=(0.8, 1.25), antialias=False))
    steps.append(v2.RandomHorizontalFlip())
    if flips:
        steps.append(v2.RandomVerticalFlip())
    steps.append(v2.RandomPhotometricDistort(p=0.5))
    transform: Augment = v2.Compose(steps)
    return transform
