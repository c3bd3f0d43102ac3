"""The image of a benchmark, and one of another size."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edgemask.benchmark.contestants import Picture
from edgemask.canvas import placement_of
from edgemask.errors import ImageError
from edgemask.images import load_image
from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec

DEFAULT_IMAGE_SIZE = (480, 640)
SCENE_SEED = 20_260
Source = str | os.PathLike[str] | Image.Image | Picture


@dataclass(frozen=True, slots=True)
class Photograph:
    """The image that all contestants get.

    Attributes:
        title: the file, or what was drawn.
        pixels: uint8 [H, W, 3] RGB.
        decode: reads it from its file again; None where it is none.
    """

    title: str
    pixels: Picture
    decode: Callable[[], Picture] | None = None


def photograph(image: Source | None, size: tuple[int, int] | None, spec: ModelSpec) -> Photograph:
    """Takes an image, or draws one.

    Args:
        image: the image; None draws one.
        size: (H, W) of the image to draw; None takes the canvas of the spec, or 480 x 640.
        spec: of the first model.

    Raises:
        ImageError: no usable image.
    """
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        return Photograph(path, load_image(path), lambda: load_image(path))
    if image is not None:
        return Photograph("an image in memory", load_image(image))
    height, width = size or spec.canvas or DEFAULT_IMAGE_SIZE
    # Drawn at the usual size and enlarged: a scene has so many objects at any size.
    scene = Image.fromarray(draw_scene(0, seed=SCENE_SEED, objects=8).image)
    pixels = np.array(scene.resize((width, height), Image.Resampling.BILINEAR))
    return Photograph(f"drawn scene {SCENE_SEED}", pixels)


def reshaped(pixels: Picture, spec: ModelSpec) -> Picture | None:
    """The image lying on its side, or a part of it, whichever comes to another canvas; None where none does."""
    height, width = pixels.shape[:2]
    own = placement_of((height, width), spec).canvas
    others = (pixels.transpose(1, 0, 2), pixels[:, : max(1, width // 2)], pixels[: max(1, height // 2)])
    for other in others:
        try:
            canvas = placement_of((other.shape[0], other.shape[1]), spec).canvas
        except ImageError:  # too narrow to be resized
            continue
        if canvas != own:
            return np.ascontiguousarray(other)
    return None
