"""Images with coloured rectangles, their annotations, and a detector that finds them: what validation tests share."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.detections import Detections
from edgemask.masks import bitmap_to_rle
from edgemask.spec import ModelSpec
from edgemask.validation.reports import ModelFacts
from edgemask.validation.sides import LiveSide

SPEC = ModelSpec(
    class_names=("red", "dark", "pale"), category_ids=(3, 5, 90), min_size=64, max_size=128, canvas=(128, 128)
)
SHAPES = ((64, 64), (64, 100), (80, 60), (96, 96), (64, 64))
Fault = Callable[[Detections], Detections]


class Finder:
    """Finds the rectangle of each colour: what a perfect detector would."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen: list[weakref.ref[NDArray[np.uint8]]] = []

    def predict(self, source: NDArray[np.uint8], /, *, proposals: NDArray[np.float32] | None = None) -> Detections:
        self.seen.append(weakref.ref(source))
        boxes, scores, labels = [], [], []
        for label in range(1, 4):
            rows, columns = np.nonzero(source[..., 0] == 50 * label)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                scores.append(1 - label / 10)
                labels.append(label)
        found = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(labels, np.int64),
            np.full((len(labels), 28, 28), 0.99, np.float32),
            image_size=source.shape[:2],
        )
        return self.fault(found)


class FinderSide(LiveSide):
    """The finder as one of the two sides."""

    def __init__(self, fault: Fault = lambda found: found, spec: ModelSpec = SPEC, kind: str = "onnx") -> None:
        self.detector = Finder(fault)
        self.spec = spec
        self.facts = ModelFacts(
            name="m.onnx" if kind == "onnx" else "trained.safetensors",
            kind=kind,
            device="cpu" if kind == "onnx" else "torch",
            sha256="0" * 64,
            bytes=1_000_000 if kind == "onnx" else None,
            precision=spec.precision,
        )


def write_folder(folder: Path) -> Path:
    """Five images with rectangles, the last without any, their annotations, and a text file."""
    rng = np.random.default_rng(0)
    images, objects = [], []
    (folder / "images").mkdir()
    for index, (height, width) in enumerate(SHAPES):
        pixels = np.zeros((height, width, 3), np.uint8)
        for label in range(1, 4) if index < 4 else ():
            left = width // 3 * (label - 1)
            top, right, bottom = int(rng.integers(0, 20)), left + int(rng.integers(8, 19)), int(rng.integers(40, 60))
            pixels[top:bottom, left:right] = 50 * label
            objects.append(
                {
                    "id": len(objects),
                    "image_id": 40 + index,
                    "category_id": SPEC.category_ids[label - 1],
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": bitmap_to_rle(pixels[..., 0] == 50 * label),
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        images.append({"id": 40 + index, "file_name": f"{index}.png", "height": height, "width": width})
    (folder / "images" / "notes.txt").write_text("no image", encoding="utf-8")
    categories = [{"id": i, "name": name} for i, name in zip(SPEC.category_ids, SPEC.class_names, strict=True)]
    document = {"images": images, "categories": categories, "annotations": objects}
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
