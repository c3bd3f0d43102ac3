"""Keypoints go with the pixels that they mark, and left ones are left in the picture that is seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from edgemask.augmentation import augmentation, mirrored
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.errors import DatasetError

HEIGHT, WIDTH = 60, 80
NAMES = ["nose", "left_eye", "right_eye"]
# A face that looks at the camera: its left eye is on the right. Numbers of pixels, and COCO's visibility.
FACE = {"nose": (40, 36), "left_eye": (52, 24), "right_eye": (30, 20)}
DOT = 3  # half a side: 7x7 pixels around each point


def face(**visibility: int) -> list[float]:
    return [number for name in NAMES for number in (*FACE[name], visibility.get(name, 2))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for x, y in FACE.values():
        pixels[y - DOT : y + DOT + 1, x - DOT : x + DOT + 1] = 230
    Image.fromarray(pixels).save(tmp_path / "face.png")
    return tmp_path


def opened(folder: Path, *, tasks: tuple[str, ...] = ("boxes", "masks", "keypoints"), **changes: Any) -> CocoDataset:
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 40, 35], "keypoints": face()} | changes
    entry.setdefault("segmentation", [[20, 10, 60, 10, 60, 45, 20, 45]])
    content = {
        "images": [{"id": 1, "file_name": "face.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}],
        "annotations": [entry],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return CocoDataset(folder, read_annotations(folder / "annotations.json"), tasks)


def test_keypoints_of_an_item(folder: Path) -> None:
    _, target = opened(folder, keypoints=face(right_eye=0, nose=1))[0]
    assert target["keypoints"].dtype == torch.float32
    assert target["keypoints"].tolist() == [[[40, 36, 1], [52, 24, 1], [0, 0, 0]]]
    assert type(target["keypoints"]) is torch.Tensor


@pytest.mark.parametrize("changes", [{"keypoints": None}, {"keypoints": []}, {"keypoints": [0] * 9}])
def test_objects_without_marked_keypoints_stay(folder: Path, changes: dict[str, Any]) -> None:
    _, target = opened(folder, **changes)[0]
    assert target["keypoints"].shape == (1, 3, 3)
    assert not target["keypoints"].any()


@pytest.mark.parametrize(("points", "shown"), [([1, 2], "9 entries"), ([float("nan")] * 9, r"keypoints\[0\]")])
def test_broken_keypoints_are_named(folder: Path, points: list[float], shown: str) -> None:
    with pytest.raises(DatasetError, match=rf"annotation 1 of face\.png: .*{shown}"):
        opened(folder, keypoints=points)[0]


def test_a_model_with_keypoints_needs_a_list_of_them(folder: Path) -> None:
    opened(folder)
    content = json.loads((folder / "annotations.json").read_text())
    del content["categories"][0]["keypoints"]
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="no category with a list of keypoints"):
        CocoDataset(folder, read_annotations(folder / "annotations.json"), ("boxes", "keypoints"))
    content["categories"] = [{"id": at, "name": str(at), "keypoints": NAMES[:at]} for at in (1, 2)]
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="categories have different keypoints"):
        read_annotations(folder / "annotations.json")


def test_objects_without_an_outline_where_no_masks_are_learnt(folder: Path) -> None:
    _, target = opened(folder, tasks=("boxes",), segmentation=[])[0]
    assert target["boxes"].tolist() == [[20, 10, 60, 45]]
    assert set(target) == {"boxes", "labels"}
    with pytest.raises(DatasetError, match="polygons or run lengths"):
        opened(folder, segmentation=[])[0]


def test_who_changes_places_with_whom() -> None:
    coco = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
    assert mirrored(coco) == [0, 2, 1, 4, 3]
    assert mirrored(["left", "tip", "right", "left_only", "bright_spot"]) == [2, 1, 0, 3, 4]
    assert mirrored([]) == []


@pytest.mark.parametrize("flips", [False, True])
def test_left_stays_left_of_who_is_seen(folder: Path, flips: bool) -> None:
    dataset, augment = opened(folder), augmentation(flips=flips, keypoint_names=NAMES)
    places = set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, target = dataset.augmented(0, augment)
        nose, left, right = (tuple(map(int, point[:2])) for point in target["keypoints"][0])
        upright = nose[1] > left[1]
        assert (left[0] > right[0]) == upright, "who stands on the head has the left eye on the left"
        grey = image.mean(0)
        middle = (grey.min() + grey.max()) / 2
        for x, y in (nose, left, right):
            dot = grey[y - DOT - 1 : y + DOT + 2, x - DOT - 1 : x + DOT + 2] > middle
            assert dot[1:-1, 1:-1].all(), "all of the dot around it"
            assert dot.sum() == (2 * DOT + 1) ** 2, "and no more"
        places.add((nose, left, right))
    assert len(places) == (4 if flips else 2), "each flip came"


def test_crops_keep_keypoints_on_their_pixels(folder: Path) -> None:
    dataset, augment = opened(folder), augmentation(crop=128, crop_share=(0.1, 0.6), keypoint_names=NAMES)
    offsets, seen = [], []
    for seed in range(60):
        torch.manual_seed(seed)
        image, target = dataset.augmented(0, augment)
        grey = image.mean(0).numpy()
        for x, y, visible in target["keypoints"].reshape(-1, 3).tolist():
            seen.append(visible)
            if not visible:
                assert (x, y) == (0, 0)
                continue
            assert min(x, y) > -0.5
            assert max(x, y) < 127.5
            found = middle_of_dot(grey, round(x), round(y))
            if found is not None:
                offsets.append(np.subtract(found, (x, y)))
    assert 0.1 < np.mean(seen) < 0.9, "some are cut off, others are not"
    assert len(offsets) > 20
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.15, "half a pixel off would be 0.3 and more at these scales"


def middle_of_dot(grey: np.ndarray[Any, np.dtype[np.float32]], x: int, y: int) -> tuple[float, float] | None:
    """Of the bright pixels around one; None if they reach the border of the image."""
    bright = grey > (grey.min() + grey[y, x]) / 2
    rows, columns = np.nonzero(ndimage.label(bright)[0] == ndimage.label(bright)[0][y, x])
    if min(*rows, *columns) == 0 or max(*rows, *columns) == len(grey) - 1:
        return None
    return float(columns.mean()), float(rows.mean())
