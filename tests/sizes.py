"""Images of 200 sizes, from a pixel to 4000, and which of them PyTorch refuses."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.canvas import eager_size
from edgemask.errors import ImageError
from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec

NAMED = [(1, 1), (31, 1333), (12, 256), (256, 12), (4000, 3000), (1, 600), (640, 2), (33, 32), (1, 2000), (3000, 1)]


def sizes(count: int = 200) -> list[tuple[int, int]]:
    """Heights and widths: those above, and others from 1 to 4000 that differ by up to a factor of 8."""
    random = np.random.default_rng(8)
    drawn = list(NAMED)
    while len(drawn) < count:
        height = float(np.exp(random.uniform(0, np.log(4000))))
        width = height * float(np.exp(random.uniform(-np.log(8), np.log(8))))
        size = round(height), round(width)
        if 1 <= size[1] <= 4000 and size not in drawn:
            drawn.append(size)
    return drawn


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """A drawn scene, stretched."""
    scene = draw_scene(height % 50, seed=width, objects=6).image
    return np.array(Image.fromarray(scene).resize((width, height), Image.Resampling.BILINEAR))


def is_refused(size: tuple[int, int], spec: ModelSpec) -> bool:
    """Whether a side would be resized to nothing."""
    try:
        eager_size(*size, spec)
    except ImageError:
        return True
    return False
