"""What the tests of a cluster, and of Ray itself, work on."""

from pathlib import Path

import numpy as np
from PIL import Image
from toy_model import SPEC, busy_proto

from edgemask.cli import main
from edgemask.runtimes import write_model


def write_model_that_moves(folder: Path) -> Path:
    """A model whose boxes and scores move with the image."""
    write_model(busy_proto(), SPEC, folder / "busy.onnx")
    return folder / "busy.onnx"


def write_images(folder: Path, count: int, side: int = 96) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (side, side + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png", compress_level=1)
    return folder


def predicted(model: Path, images: Path, coco: Path, *words: object) -> int:
    return main(["predict", str(model), str(images), "--device", "cpu", "--coco", str(coco), *map(str, words)])
