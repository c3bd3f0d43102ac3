"""Annotations of other tools become COCO's: the same pixels, by COCO's own filling of polygons."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from script_files import script_module

from edgemask.datasets import CocoDataset, read_annotations

HEIGHT, WIDTH = 40, 60
# Two nuclei and a cell in two parts: left, top, right, bottom in pixels.
SQUARES = {"nucleus": [[(4, 6, 20, 18)], [(30, 22, 50, 38)]], "cell": [[(40, 2, 46, 8), (50, 2, 58, 12)]]}


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def wanted() -> list[tuple[str, NDArray[np.uint8]]]:
    found = []
    for name, objects in SQUARES.items():
        for parts in objects:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            for left, top, right, bottom in parts:
                mask[top:bottom, left:right] = 1
            found.append((name, mask))
    return found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "JPEGImages").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "JPEGImages" / name)
    return tmp_path / "JPEGImages"


def yolo(folder: Path) -> list[str]:
    (folder / "labels").mkdir()
    lines = [
        " ".join([str(kind), *(f"{x / WIDTH:.8f} {y / HEIGHT:.8f}" for x, y in corners(parts[0]))])
        for kind, objects in enumerate(SQUARES.values())
        for parts in objects
    ]
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    (folder / "labels" / "b.txt").touch()
    (folder / "data.yaml").write_text("names: {0: nucleus, 1: cell}\n")
    return [str(folder / "labels"), str(folder / "out.json"), str(folder / "data.yaml")]


def labelme(folder: Path) -> list[str]:
    (folder / "labels").mkdir()
    shapes = [
        {"label": name, "points": corners(box), "shape_type": "polygon", "group_id": 7 if len(parts) > 1 else None}
        for name, objects in SQUARES.items()
        for parts in objects
        for box in parts
    ]
    for name, listed in (("a", shapes), ("b", [])):
        (folder / "labels" / f"{name}.json").write_text(json.dumps({"shapes": listed}))
    return [str(folder / "labels"), str(folder / "out.json"), *SQUARES]


def voc(folder: Path) -> list[str]:
    kinds, objects = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for number, (name, mask) in enumerate(wanted(), 1):
        kinds[mask > 0], objects[mask > 0] = list(SQUARES).index(name) + 1, number
    kinds[0], objects[0] = 255, 255  # the border, of no object
    for name, pixels in (("SegmentationClass", kinds), ("SegmentationObject", objects)):
        (folder / name).mkdir()
        for file, shown in (("a.png", pixels), ("b.png", np.zeros_like(pixels))):
            image = Image.fromarray(shown).convert("P")
            image.putpalette(list(range(256)) * 3)
            image.putdata(shown.ravel().tolist())
            image.save(folder / name / file)
    return [str(folder / "SegmentationObject"), str(folder / "out.json"), *SQUARES]


def converted(reader: str, images: Path, words: list[str]) -> Any:
    with script_module("scripts/annotations_to_coco.py") as script:
        script.main(reader, str(images), *words)
    return CocoDataset(images, read_annotations(words[1]))


@pytest.mark.parametrize("write", [yolo, labelme, voc], ids=lambda write: write.__name__)
def test_the_same_pixels(write: Any, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = converted(write.__name__, images, write(tmp_path))
    assert capsys.readouterr().out.endswith("3 objects in 2 images; nucleus, cell\n")
    _, target = data[0]
    names = [data.annotations.class_names[label - 1] for label in target["labels"]]
    expected = wanted()
    if write is yolo:  # one outline for each object
        expected[2][1][:, 48:] = 0
    assert names == [name for name, _ in expected]
    for mask, (_, want) in zip(target["masks"].numpy(), expected, strict=True):
        np.testing.assert_array_equal(mask, want)
    boxes = [
        [*entry["bbox"][:2], *np.add(entry["bbox"][:2], entry["bbox"][2:])] for entry in data.annotations.objects[1]
    ]
    np.testing.assert_array_equal(boxes, target["boxes"].numpy())
    assert len(data[1][1]["boxes"]) == 0


def test_boxes_are_no_outlines(images: Path, tmp_path: Path) -> None:
    words = yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(SystemExit, match=r"a\.txt, line 1: expected a class and the points"):
        converted("yolo", images, words)


@pytest.mark.parametrize("kind", ["2", "-1", "cell"])
def test_classes_of_another_number_are_named(images: Path, tmp_path: Path, kind: str) -> None:
    words = yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text(f"{kind} 0.5 0.5 0.2 0.2 0.1 0.9\n")
    with pytest.raises(SystemExit, match=rf"a\.txt, line 1: {kind} is no number of nucleus, cell"):
        converted("yolo", images, words)


@pytest.mark.parametrize("write", [yolo, labelme], ids=lambda write: write.__name__)
def test_images_without_a_file_have_no_objects(
    write: Any, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write(tmp_path)
    next((tmp_path / "labels").glob("b.*")).unlink()
    converted(write.__name__, images, words)
    assert "3 objects in 2 images" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no folder"):
        converted(write.__name__, images, [str(tmp_path / "nowhere"), *words[1:]])


@pytest.mark.parametrize("words", [[], ["yolo", "images"], ["coco", "a", "b", "c", "d"]])
def test_words_that_cannot_be_meant_show_how(words: list[str]) -> None:
    ended = run(*words)
    assert ended.returncode == 1
    assert "annotations_to_coco.py yolo IMAGES LABELS OUTPUT.json data.yaml" in ended.stderr


def test_files_that_are_missing_are_named(images: Path, tmp_path: Path) -> None:
    words = [*yolo(tmp_path)[:2], str(tmp_path / "nowhere.yaml")]
    ended = run("yolo", str(images), *words)
    assert ended.returncode == 1
    assert ended.stderr == f"[Errno 2] No such file or directory: '{tmp_path / 'nowhere.yaml'}'\n"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).resolve().parents[1] / "scripts" / "annotations_to_coco.py"
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=60, check=False)


def test_other_shapes_are_named(images: Path, tmp_path: Path) -> None:
    words = labelme(tmp_path)
    shape = {"label": "cell", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    (tmp_path / "labels" / "b.json").write_text(json.dumps({"shapes": [shape]}))
    with pytest.raises(SystemExit, match=r"b\.json, shape 0: rectangle is no polygon"):
        converted("labelme", images, words)
    shape = {"label": "virus", "points": [[1, 1], [9, 9], [1, 9]]}
    (tmp_path / "labels" / "b.json").write_text(json.dumps({"shapes": [shape]}))
    with pytest.raises(SystemExit, match=r"b\.json, shape 0: virus is none of nucleus, cell"):
        converted("labelme", images, words)
