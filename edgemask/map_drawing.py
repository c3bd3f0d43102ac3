"""Pictures of label maps."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgemask.checks import Described, printable, refuse
from edgemask.drawing import cut_text
from edgemask.masks import import_supervision
from edgemask.semantic import BACKGROUND, SemanticMap, map_label_name

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

_OPACITY = 0.55
_OUTLINE_SHARE = 0.0015  # of the picture's side (root of its area)
_TEXT_SHARE, _TEXT_LEAST = 0.022, 11  # the least number of pixels that can be read
_INK, _PAPER = (24, 24, 24), (255, 255, 255)


def draw_map(image: Picture, found: SemanticMap, class_names: Sequence[str] | None) -> Picture:
    """Returns a copy of the image with its labels as colours, and a legend below it.

    The colours are those that `drawing.draw` gives the same labels. The background stays as it is; each region has an
    outline in its full colour.

    Args:
        image: uint8 [H, W, 3] RGB, the image that the map is of.
        found: its labels; without any but background there is no legend, and the copy is as the image was.
        class_names: C - 1 names by label; control characters are drawn as escapes. None: `class_1` ...

    Returns:
        uint8 [H', W, 3] RGB: the picture and, below its H rows, name and share of the pixels of each label, the
        largest first.

    Raises:
        UsageError: an array of another type or shape, or a map of an image of another size.
        DependencyMissing: supervision is not installed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        refuse("image", "uint8 [H, W, 3] RGB", Described(f"{image.dtype} {list(image.shape)}"))
    if image.shape[:2] != found.image_size:
        refuse("image", f"{found.image_size} (H, W) as the map", image.shape[:2])
    shares = {label: share for label, share in found.present.items() if label != BACKGROUND}
    if not shares:
        return image.copy()
    palette = import_supervision().ColorPalette.DEFAULT
    colours: dict[int, Colour] = {label: palette.by_idx(label).as_rgb() for label in shares}
    entries = [
        (colours[label], f"{printable(map_label_name(label, class_names))} {shares[label]:.1%}")
        for label in sorted(shares, key=lambda label: -shares[label])
    ]
    side = math.sqrt(image.shape[0] * image.shape[1])
    scene = _tinted(image, found.labels, colours, max(1, round(_OUTLINE_SHARE * side)))
    return np.concatenate([scene, _legend(entries, image.shape[1], max(_TEXT_LEAST, round(_TEXT_SHARE * side)))])


def _tinted(image: Picture, labels: NDArray[np.uint8], colours: dict[int, Colour], outline: int) -> Picture:
    """The image under its labels' colours, regions framed by lines of `outline` pixels inside them."""
    table = np.zeros((256, 3), np.float32)
    opacity = np.zeros((256, 1), np.float32)
    for label, colour in colours.items():
        table[label], opacity[label] = colour, _OPACITY
    weight = np.where(_edges(labels, outline)[:, :, None] & (labels != BACKGROUND)[:, :, None], 1.0, opacity[labels])
    mixed = image + (table[labels] - image) * weight
    return np.rint(mixed).astype(np.uint8)


def _edges(labels: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Bool [H, W]: pixels with another label within `distance` rows or columns."""
    edges: NDArray[np.bool_] = np.zeros(labels.shape, np.bool_)
    height, width = labels.shape
    for step in range(1, distance + 1):
        down, across = labels[step:] != labels[:-step], labels[:, step:] != labels[:, :-step]
        edges[step:] |= down
        edges[: max(0, height - step)] |= down
        edges[:, step:] |= across
        edges[:, : max(0, width - step)] |= across
    return edges


def _legend(entries: Sequence[tuple[Colour, str]], width: int, size: int) -> Picture:
    """A strip of `width` pixels on white with a patch of colour before each text, in as many rows as it takes."""
    font = _font(size)
    gap, row = size // 2, round(size * 1.7)
    places, left, top = [], gap, 0
    for colour, text in entries:
        text = cut_text(text, font, width - 3 * gap - size)
        length = size + gap + math.ceil(font.getlength(text))
        if left > gap and left + length > width - gap:
            left, top = gap, top + row
        places.append((left, top, colour, text))
        left += length + 2 * gap
    sheet = Image.new("RGB", (width, top + row), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for left, top, colour, text in places:
        middle = top + row / 2
        pen.rectangle((left, middle - size / 2, left + size - 1, middle + size / 2 - 1), fill=colour)
        pen.text((left + size + gap, middle), text, fill=_INK, font=font, anchor="lm")
    return np.array(sheet)


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl  # supervision needs it too, and it brings a font with more letters than Pillow's

    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
