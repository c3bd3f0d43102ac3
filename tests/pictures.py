"""Pictures to calibrate with: smooth ones, as photographs are, and noise."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def smooth(seed: int, size: tuple[int, int] = (48, 64), greatest: int = 255) -> NDArray[np.uint8]:
    """Spots of colour, uint8 [H, W, 3]; no value is greater than said."""
    coarse = np.random.default_rng(seed).integers(0, greatest + 1, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR))


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> NDArray[np.uint8]:
    """Every value drawn on its own."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def written(folder: Path, pictures: list[NDArray[np.uint8]]) -> list[Path]:
    """Writes them as 000.png and so on."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths
