"""Writes the outlines of YOLO-seg, LabelMe or Pascal VOC as one COCO file, which `edgemask train` and `validate` take.

    python scripts/annotations_to_coco.py yolo IMAGES LABELS OUTPUT.json data.yaml
    python scripts/annotations_to_coco.py labelme IMAGES FOLDER_OF_JSON OUTPUT.json NAME NAME ...
    python scripts/annotations_to_coco.py voc JPEGImages SegmentationObject OUTPUT.json NAME NAME ...

The names of the classes, in their order; the same for training and validation. Polygons stay polygons. An image
without a file of YOLO or LabelMe has no objects. Of VOC, `SegmentationClass` is read beside `SegmentationObject`:
number 1 there is the first name.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from edgemask.errors import EdgemaskError
from edgemask.images import IMAGE_SUFFIXES, load_image
from edgemask.masks import bitmap_to_rle, rle_to_bitmap, segmentation_to_rle

Objects = Iterator[tuple[str, Any]]  # name of the class, and COCO's segmentation


def yolo(labels: Path, names: Sequence[str], height: int, width: int) -> Objects:
    """A line of a text file for each object: number of the class, then x y ... as shares of the sides."""
    path = labels.with_suffix(".txt")
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        kind, *points = line.split() or [""]
        if len(points) < 6 or len(points) % 2:
            sys.exit(f"{path}, line {number}: expected a class and the points of an outline")
        if not kind.isdecimal() or int(kind) >= len(names):
            sys.exit(f"{path}, line {number}: {kind} is no number of {', '.join(names)}")
        yield names[int(kind)], [[float(value) * (height, width)[not at % 2] for at, value in enumerate(points)]]


def labelme(labels: Path, names: Sequence[str], height: int, width: int) -> Objects:
    """The polygons of a JSON file; those of one group are parts of one object."""
    objects: dict[Any, tuple[str, list[list[float]]]] = {}
    path = labels.with_suffix(".json")
    shapes = json.loads(path.read_text(encoding="utf-8"))["shapes"] if path.exists() else []
    for number, shape in enumerate(shapes):
        if shape.get("shape_type", "polygon") != "polygon":
            sys.exit(f"{path}, shape {number}: {shape['shape_type']} is no polygon")
        if shape["label"] not in names:
            sys.exit(f"{path}, shape {number}: {shape['label']} is none of {', '.join(names)}")
        group = shape.get("group_id")  # parts of one object share it
        key = ("alone", number) if group is None else (shape["label"], group)
        objects.setdefault(key, (shape["label"], []))[1].append(np.ravel(shape["points"]).tolist())
    yield from objects.values()


def voc(labels: Path, names: Sequence[str], height: int, width: int) -> Objects:
    """The numbers in a picture of objects, with the classes of the picture beside it."""
    kinds, objects = (
        np.asarray(Image.open(folder / labels.with_suffix(".png").name))  # palette indices; 255 is a border
        for folder in (labels.parent.with_name("SegmentationClass"), labels.parent)
    )
    for number in np.setdiff1d(objects, (0, 255)):
        yield names[np.bincount(kinds[objects == number]).argmax() - 1], bitmap_to_rle(objects == number)


READERS = {"yolo": yolo, "labelme": labelme, "voc": voc}


def main(reader: str, images: str, labels: str, output: str, *names: str) -> None:
    """Writes the COCO file of a folder of images."""
    read: Callable[..., Objects] = READERS[reader]
    if not Path(labels).is_dir():
        sys.exit(f"there is no folder {labels}")
    if read is yolo:
        listed = yaml.safe_load(Path(names[0]).read_text(encoding="utf-8"))["names"]
        names = tuple(listed.values() if isinstance(listed, dict) else listed)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    document: dict[str, Any] = {"images": [], "categories": categories, "annotations": []}
    for path in sorted(path for path in Path(images).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
        height, width = load_image(path).shape[:2]
        image = {"id": len(document["images"]) + 1, "file_name": path.name, "height": height, "width": width}
        document["images"].append(image)
        for name, outline in read(Path(labels) / path.name, names, height, width):
            rows, columns = np.nonzero(rle_to_bitmap(segmentation_to_rle(outline, height, width)))
            if len(rows):  # not outside of the image, nor too thin for a pixel
                left, top = int(columns.min()), int(rows.min())
                record = {"image_id": image["id"], "category_id": names.index(name) + 1}
                record |= {"bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]}
                record |= {"segmentation": outline, "area": len(rows), "iscrowd": 0}
                document["annotations"].append(record | {"id": len(document["annotations"]) + 1})
    Path(output).write_text(json.dumps(document), encoding="utf-8")
    print(f"{output}: {len(document['annotations'])} objects in {len(document['images'])} images; {', '.join(names)}")


if __name__ == "__main__":
    if len(sys.argv) < 6 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, EdgemaskError) as error:
        sys.exit(str(error))
