"""Scenes that the project draws itself: overlapping shapes on textured backgrounds, with exact masks.

They are what the sample model is trained on and what `edgemask demo` proves parity on, so that everything can be
tried without a download. A scene depends on its seed and index alone, never on the scenes drawn before it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgemask.errors import OutputError, UsageError
from edgemask.files import creating, write_image
from edgemask.masks import bitmap_to_rle

CLASS_NAMES = ("ellipse", "rectangle", "triangle", "star", "cross")
SCENE_SIZE = 320
OBJECT_SIZES = (12.0, 200.0)  # longest extent in pixels, drawn uniformly
MAX_OBJECTS = 8
MIN_VISIBLE = 0.6  # an object is never covered more than this leaves
_SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Scene:
    """One drawn image and the truth about it.

    Attributes:
        image: uint8 [S, S, 3] RGB.
        masks: bool [N, S, S], the visible pixels of each object; no two masks share a pixel.
        labels: int64 [N], 1-based indices into `CLASS_NAMES`.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]


def draw_scene(index: int, *, seed: int = 0, size: int = SCENE_SIZE, objects: int | None = None) -> Scene:
    """Draws scene `index` of the endless series that `seed` names.

    Args:
        index: position in the series, >= 0.
        seed: names the series.
        size: side of the square image in pixels, at least 32.
        objects: number of objects, 0 for an empty background; None draws it from 1 to `MAX_OBJECTS`.

    Returns:
        The scene. In every second one (by chance) objects overlap, later ones covering earlier ones: the second object
        lies across the first, where there are two.

    Raises:
        UsageError: a negative number, or a scene too small for objects.
    """
    if size < 32:
        raise UsageError(f"a scene of {size} pixels is too small", "use a size of at least 32")
    if min(index, seed, objects or 0) < 0:
        raise UsageError(f"index {index}, seed {seed}, objects {objects}: one is negative", "use numbers from 0 on")
    rng = np.random.default_rng((seed, index))
    overlaps = bool(rng.random() < 0.5)
    count = int(rng.integers(1 + overlaps, MAX_OBJECTS + 1)) if objects is None else objects
    canvas = _texture(rng, size, contrast=rng.uniform(10, 45))
    owner = np.zeros((size, size), np.int16)  # 0 background, k the k-th object
    drawn_areas: list[int] = []
    labels: list[int] = []
    for _ in range(count):
        label = int(rng.integers(1, len(CLASS_NAMES) + 1))
        placed = _place(rng, label, owner, drawn_areas, overlaps=overlaps)
        if placed is None:
            continue
        alpha, (top, left) = placed
        window = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        _paint(rng, canvas[window], alpha)
        labels.append(label)
        owner[window][alpha >= 0.5] = len(labels)
        drawn_areas.append(int((alpha >= 0.5).sum()))
    canvas += rng.normal(0, rng.uniform(2, 14), canvas.shape).astype(np.float32)
    masks = owner[None] == np.arange(1, len(labels) + 1, dtype=np.int16)[:, None, None]
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), masks, np.array(labels, np.int64))


def scenes(count: int, *, seed: int = 0, size: int = SCENE_SIZE) -> Iterator[Scene]:
    """Yields the first `count` scenes of the series `seed`."""
    return (draw_scene(index, seed=seed, size=size) for index in range(count))


def write_scenes(folder: str | Path, count: int, *, seed: int = 0, size: int = SCENE_SIZE) -> Path:
    """Writes scenes as a COCO-format data set: `folder/images/*.jpg` and `folder/annotations.json`.

    Args:
        folder: where to write; created if missing.
        count: number of scenes.
        seed: names the series.
        size: side of the square images in pixels.

    Returns:
        The path of the annotations.

    Raises:
        UsageError: a negative seed, or a scene too small for objects.
        OutputError: the folder or a file in it cannot be written.
        DependencyMissing: faster_coco_eval is not installed.
    """
    folder = Path(folder)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder / 'images'}: {error.strerror}", "name another folder") from error
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes(count, seed=seed, size=size)):
        name = f"{index:06d}.jpg"
        write_image(folder / "images" / name, scene.image)
        images.append({"id": index + 1, "file_name": name, "height": size, "width": size})
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(label),
                    "bbox": mask_extent(mask),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": bitmap_to_rle(mask),
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES, 1)]
    path = folder / "annotations.json"
    with creating(path) as temporary:
        temporary.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8"
        )
    return path


def mask_extent(mask: NDArray[np.bool_]) -> list[int]:
    """Smallest box around the set pixels of a bool [H, W] mask, as COCO's x, y, width, height."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _place(
    rng: np.random.Generator, label: int, owner: NDArray[np.int16], drawn_areas: list[int], *, overlaps: bool
) -> tuple[NDArray[np.float32], tuple[int, int]] | None:
    """Finds a spot for a new object, shrinking it while none is good; None if there is no room at all."""
    size = owner.shape[0]
    extent = rng.uniform(OBJECT_SIZES[0], min(OBJECT_SIZES[1], 0.9 * size))
    for _ in range(40):
        alpha = _shape(rng, label, extent)
        height, width = alpha.shape
        if overlaps and len(drawn_areas) == 1:  # across the edge of the first object
            row, column = rng.choice(np.argwhere(owner > 0))
            top = int(np.clip(row - rng.integers(height), 0, size - height))
            left = int(np.clip(column - rng.integers(width), 0, size - width))
        else:
            top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        covered = owner[top : top + height, left : left + width][alpha >= 0.5]
        if _acceptable(owner, covered, drawn_areas, overlaps=overlaps):
            return alpha, (top, left)
        extent = max(OBJECT_SIZES[0], extent * 0.93)
    return None


def _acceptable(
    owner: NDArray[np.int16], covered: NDArray[np.int16], drawn_areas: list[int], *, overlaps: bool
) -> bool:
    if not overlaps:
        return not covered.any()
    if len(drawn_areas) == 1 and not covered.any():
        return False
    for touched in np.unique(covered[covered > 0]):
        visible = int((owner == touched).sum()) - int((covered == touched).sum())
        if visible < MIN_VISIBLE * drawn_areas[touched - 1]:
            return False
    return True


def _shape(rng: np.random.Generator, label: int, extent: float) -> NDArray[np.float32]:
    """Coverage 0-1 of a randomly turned shape, cropped to it; its longest side is `extent` pixels."""
    outline = _OUTLINES[CLASS_NAMES[label - 1]](rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = outline @ turn.T
    points -= points.min(0)
    points *= extent / points.max()
    width, height = (int(np.ceil(side)) for side in points.max(0))
    width, height = max(width, 1), max(height, 1)
    large = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    ImageDraw.Draw(large).polygon([(x, y) for x, y in (points * _SUPERSAMPLING - 0.5).tolist()], fill=255)
    return np.asarray(large.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


def _ellipse(rng: np.random.Generator) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.5, 1.0)], 1)


def _rectangle(rng: np.random.Generator) -> NDArray[np.float64]:
    height = rng.uniform(0.4, 1.0)
    return np.array([[-1, -height], [1, -height], [1, height], [-1, height]])


def _triangle(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array([[-1, 0.8], [1, 0.8], [rng.uniform(-0.6, 0.6), -rng.uniform(0.5, 1.0)]])


def _star(rng: np.random.Generator) -> NDArray[np.float64]:
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, rng.uniform(0.38, 0.5), 1.0)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)


def _cross(rng: np.random.Generator) -> NDArray[np.float64]:
    w = rng.uniform(0.25, 0.4)
    arm = [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)]
    return np.array(arm, np.float64)


_OUTLINES = dict(zip(CLASS_NAMES, (_ellipse, _rectangle, _triangle, _star, _cross), strict=True))


def _texture(rng: np.random.Generator, size: int, *, contrast: float) -> NDArray[np.float32]:
    """Float32 [S, S, 3]: a colour with noise of three scales, so that edges alone do not give objects away."""
    texture = np.full((size, size, 3), rng.uniform(30, 225, 3), np.float32)
    for cells in (4, 12, 48):
        coarse = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float32)
        texture += (smooth - 128) * np.float32(contrast / 128)
    return texture


def _paint(rng: np.random.Generator, window: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    """Blends an object into its window, in a colour that differs from what lies there."""
    height, width = alpha.shape
    around = window.mean((0, 1))
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - around).max() < 50:
        colour = rng.uniform(0, 255, 3)
    fill = _texture(rng, max(height, width, 8), contrast=rng.uniform(2, 25))[:height, :width]
    fill += (colour - fill.mean((0, 1))).astype(np.float32)
    window += (fill - window) * alpha[..., None]
