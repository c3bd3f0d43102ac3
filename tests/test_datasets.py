"""COCO-format data: what is broken is named, and what is drawn stays on its object."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from edgemask.augmentation import augmentation, with_boxes
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.errors import DatasetError, ImageError
from edgemask.masks import bitmap_to_rle

HEIGHT, WIDTH = 40, 60
SQUARE = np.s_[10:20, 30:45]  # rows, columns


def square() -> np.ndarray[Any, np.dtype[np.bool_]]:
    bitmap = np.zeros((HEIGHT, WIDTH), np.bool_)
    bitmap[SQUARE] = True
    return bitmap


def document() -> dict[str, Any]:
    """Two images, the second without objects; sparse category ids that are not in order."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 50,
                "image_id": 7,
                "category_id": 90,
                "bbox": [30, 10, 15, 10],
                "segmentation": bitmap_to_rle(square()),
            }
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images: a white square on black, and nothing."""
    for name, shown in (("a.png", square()), ("b.png", np.zeros_like(square()))):
        Image.fromarray(np.where(shown[..., None], np.uint8(255), np.uint8(0)).repeat(3, 2)).save(tmp_path / name)
    return tmp_path


def opened(folder: Path, content: dict[str, Any]) -> CocoDataset:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return CocoDataset(folder, read_annotations(path))


def test_annotations_by_image_and_label(folder: Path) -> None:
    found = opened(folder, document()).annotations
    assert found.class_names == ("person", "toothbrush")
    assert found.category_ids == (1, 90)
    assert list(found.images) == [7, 3]
    assert [entry["id"] for entry in found.objects[7]] == [50]
    assert found.objects[3] == []


def test_item(folder: Path) -> None:
    image, target = opened(folder, document())[0]
    assert image.dtype == torch.float32
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.unique().tolist() == [0, 1]
    assert target["labels"].tolist() == [2], "category 90 is the second by id"
    assert target["labels"].dtype == torch.int64
    assert target["boxes"].tolist() == [[30, 10, 45, 20]]
    assert target["boxes"].dtype == torch.float32
    assert target["masks"].dtype == torch.uint8
    np.testing.assert_array_equal(target["masks"][0].numpy(), square())


@pytest.mark.parametrize("augment", [None, augmentation(crop=32, flips=True)])
def test_an_image_without_objects(folder: Path, augment: Any) -> None:
    image, target = opened(folder, document()).augmented(1, augment)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert target["masks"].shape == (0, *image.shape[1:])


SQUARE_POLYGON = [30, 10, 45, 10, 45, 20, 30, 20]
SQUARE_RUNS = [30 * HEIGHT + 10, *[10, 30] * 14, 10, 20 + 15 * HEIGHT]


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param([SQUARE_POLYGON], id="polygon"),
        pytest.param([[30, 10, 38, 10, 38, 20, 30, 20], [38, 10, 45, 10, 45, 20, 38, 20]], id="polygons"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": SQUARE_RUNS}, id="uncompressed run lengths"),
    ],
)
def test_forms_of_segmentation(folder: Path, segmentation: Any) -> None:
    content = document()
    content["annotations"][0]["segmentation"] = segmentation
    _, target = opened(folder, content)[0]
    np.testing.assert_array_equal(target["masks"][0].numpy(), square())
    assert target["boxes"].tolist() == [[30, 10, 45, 20]]


def test_boxes_come_from_masks(folder: Path) -> None:
    content = document()
    content["annotations"][0]["bbox"] = [0, 0, 5, 5]
    _, target = opened(folder, content)[0]
    assert target["boxes"].tolist() == [[30, 10, 45, 20]]


def test_crowds_are_left_out(folder: Path) -> None:
    content = document()
    crowd = copy.deepcopy(content["annotations"][0]) | {"id": 51, "iscrowd": 1, "category_id": 1}
    content["annotations"].insert(0, crowd)
    _, target = opened(folder, content)[0]
    assert target["labels"].tolist() == [2]
    assert len(target["masks"]) == len(target["boxes"]) == 1


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return apply


def remove(*path: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return apply


OBJECT = ("annotations", 0)


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        pytest.param(change(*OBJECT, "bbox", to=[1, 2, 3]), "annotation 50: bbox", id="bbox of three"),
        pytest.param(change(*OBJECT, "bbox", to=[1, 2, math.nan, 4]), r"annotation 50: bbox\[2\]", id="bbox with NaN"),
        pytest.param(change(*OBJECT, "bbox", to=[1, 2, 10**400, 4]), r"annotation 50: bbox\[2\]", id="endless bbox"),
        pytest.param(change(*OBJECT, "bbox", to=[1, 2, 3, -4]), "annotation 50: width and height", id="negative"),
        pytest.param(remove(*OBJECT, "bbox"), "annotation 50: bbox", id="no bbox"),
        pytest.param(change(*OBJECT, "image_id", to=8), "annotation 50 has image_id 8", id="unknown image"),
        pytest.param(change(*OBJECT, "image_id", to=[7]), "annotation 50: image_id", id="image id that is a list"),
        pytest.param(change(*OBJECT, "category_id", to=2), "annotation 50 has category_id 2", id="unknown category"),
        pytest.param(remove(*OBJECT, "category_id"), "annotation 50: category_id", id="no category"),
        pytest.param(remove(*OBJECT, "image_id"), "annotation 50: image_id", id="no image"),
        pytest.param(change(*OBJECT, to="text"), "annotation number 1: entry", id="an annotation that is text"),
        pytest.param(remove("images", 1, "file_name"), "image 3: file_name", id="no file name"),
        pytest.param(remove("images", 1, "height"), "image 3: height", id="no height"),
        pytest.param(remove("images", 1, "id"), "image number 2: id", id="an image without id"),
        pytest.param(change("images", 1, "id", to=7), "image 7 has the id of another image", id="an image id twice"),
        pytest.param(change("categories", 1, "id", to=90), "category 90 has the id", id="a category id twice"),
        pytest.param(change("categories", 1, "id", to=-1), "category -1: id", id="a negative category id"),
        pytest.param(remove("categories", 1, "name"), "category 1: name", id="a category without name"),
        pytest.param(change("categories", to=[]), "no category", id="no categories"),
        pytest.param(change("images", to=[]), "no image", id="no images"),
        pytest.param(remove("annotations"), "KeyError 'annotations'", id="no list of annotations"),
        pytest.param(change("images", to=5), "TypeError", id="images that are a number"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, damage: Callable[[dict[str, Any]], None], shown: str) -> None:
    content = document()
    damage(content)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"broken\.json.*{shown}") as caught:
        read_annotations(path)
    assert caught.value.remedy is not None


@pytest.mark.parametrize("text", [b"", b"<html>", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_no_annotations(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "broken.json").write_bytes(text)
    with pytest.raises(DatasetError, match=r"broken\.json is no COCO annotation file"):
        read_annotations(tmp_path / "broken.json")


def test_a_missing_annotation_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.json: No such file"):
        read_annotations(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("segmentation", "shown"),
    [
        pytest.param({"size": [WIDTH, HEIGHT], "counts": SQUARE_RUNS}, "40 x 60", id="of another size"),
        pytest.param({"size": [HEIGHT, WIDTH], "counts": [5]}, "counts that fill", id="run lengths too short"),
        pytest.param([[1, 2, 3]], "polygon 0", id="half a point"),
        pytest.param([], "polygons or run lengths", id="no polygon"),
        pytest.param(None, "polygons or run lengths", id="none"),
    ],
)
def test_broken_segmentations_are_named(folder: Path, segmentation: Any, shown: str) -> None:
    content = document()
    content["annotations"][0]["segmentation"] = segmentation
    dataset = opened(folder, content)
    with pytest.raises(DatasetError, match=rf"annotations\.json: annotation 50 of a\.png: .*{shown}"):
        dataset[0]


def test_missing_images_are_counted(folder: Path) -> None:
    (folder / "b.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images are not in .*: b\.png\n"):
        opened(folder, document())


def test_an_image_of_another_size(folder: Path) -> None:
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is 40x60 pixels, its annotations say 60x40"):
        opened(folder, document())[0]


def test_a_file_that_is_no_image(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"a\.png"):
        opened(folder, document())[0]


@pytest.mark.parametrize("flips", [False, True])
def test_flips_and_light_keep_the_mask_on_its_object(folder: Path, flips: bool) -> None:
    dataset, augment = opened(folder, document()), augmentation(flips=flips)
    places = set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, target = dataset.augmented(0, augment)
        inside = target["masks"][0].bool()
        grey = image.mean(0)
        assert inside.sum() == square().sum()
        assert grey[inside].min() > grey[~inside].max() + 0.3
        places.add(tuple(target["boxes"][0].tolist()))
    assert len(places) == (4 if flips else 2), "each flip came"


def test_crops_keep_the_mask_on_its_object(folder: Path) -> None:
    dataset, augment = opened(folder, document()), augmentation(crop=64, crop_share=(0.1, 0.6))
    left, offsets = [], []
    for seed in range(40):
        torch.manual_seed(seed)
        image, target = dataset.augmented(0, augment)
        assert image.shape == (3, 64, 64)
        assert target["masks"].shape[1:] == (64, 64)
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])
        left.append(len(target["boxes"]))
        if not left[-1]:
            assert image.std((1, 2)).max() < 0.05, "an object that is cut off is not to be seen"
            continue
        inside = target["masks"][0].bool()
        x0, y0, x1, y1 = (int(side) for side in target["boxes"][0])
        assert inside[y0:y1, x0:x1].all(), "the box of a square is filled by its mask"
        if min(x0, y0) > 0 and max(x1, y1) < 64:
            grey = image.mean(0)
            rows, columns = torch.nonzero(grey > (grey.min() + grey.max()) / 2, as_tuple=True)
            assert abs(x0 - columns.min()) <= 1
            assert abs(x1 - columns.max() - 1) <= 1
            offsets += [y0 - rows.min(), y1 - rows.max() - 1]
    assert 5 < sum(left) < 40, "some crops miss the object, others do not"
    assert len(offsets) > 10
    assert max(map(abs, offsets)) <= 1
    assert abs(np.mean(offsets)) <= 0.2


def test_crops_vary_the_scale(folder: Path) -> None:
    dataset, augment = opened(folder, document()), augmentation(crop=64, crop_share=(0.2, 1.0))
    areas = []
    for seed in range(30):
        torch.manual_seed(seed)
        _, target = dataset.augmented(0, augment)
        areas += target["masks"].sum((1, 2)).tolist()
    assert max(areas) > 2 * min(areas)


def test_with_boxes_drops_what_has_no_pixel() -> None:
    masks = torch.zeros((4, 6, 8), dtype=torch.uint8)
    masks[0, 2, 3] = 1
    masks[2, 0, 0] = masks[2, 5, 7] = 1
    labels = torch.tensor([4, 5, 6, 7])
    found = with_boxes({"masks": tv_tensors.Mask(masks), "labels": labels})
    assert found["boxes"].tolist() == [[3, 2, 4, 3], [0, 0, 8, 6]]
    assert found["labels"].tolist() == [4, 6]
    assert found["masks"].shape == (2, 6, 8)
    assert type(found["masks"]) is torch.Tensor


@pytest.mark.data
def test_shared_data_are_sound(shared_data: Path) -> None:
    nuclei = read_annotations(shared_data / "nuclei" / "annotations" / "instances_val.json")
    dataset = CocoDataset(shared_data / "nuclei" / "val", nuclei)
    _, target = dataset[0]
    assert len(target["boxes"]) == len(nuclei.objects[next(iter(nuclei.images))])
    coco = read_annotations(shared_data / "coco" / "annotations" / "instances_val.json")
    assert len(coco.class_names) == 80
    assert coco.category_ids[-1] == 90
