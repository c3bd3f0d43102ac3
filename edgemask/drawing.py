"""Pictures of detections."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgemask.checks import Described, printable, refuse
from edgemask.detections import Detections, name_of
from edgemask.masks import import_supervision

Picture = NDArray[np.uint8]

# Shares of the picture's side (root of its area), and the least number of pixels that can be read or seen.
_TEXT_SHARE, _TEXT_LEAST = 0.018, 11
_LINE_SHARE, _LINE_LEAST = 0.003, 2
_MASK_OPACITY = 0.45
_BRIGHT = 140
# The limbs of COCO's person, by numbers of its 17 keypoints from 1 on, as in its annotation files.
_PERSON_POINTS = 17
_PERSON_LIMBS = [(16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9)]
_PERSON_LIMBS += [(8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]
_GAP = 6
_INK, _PAPER = (24, 24, 24), (255, 255, 255)


def draw(
    image: Picture,
    detections: Detections,
    class_names: Sequence[str] | None,
    *,
    minimum_score: float = 0.5,
    minimum_keypoint_score: float = 0.0,
    most_named: int | None = None,
) -> Picture:
    """Returns a copy of the image with masks, boxes, names and scores drawn on it, one colour per class.

    Keypoints are dots; where there are 17, they are taken for COCO's person and joined to its skeleton.

    Args:
        image: uint8 [H, W, 3] RGB, the image that the detections are of.
        detections: its objects; without any left to draw the copy is as the image was.
        class_names: C - 1 names by label; control characters are drawn as escapes. None: `class_1` ...
        minimum_score: objects below it are left out.
        minimum_keypoint_score: keypoints below it are left out with the lines to them. A keypoint has a place even
            where the object's part is out of sight, and its score is a logit whose scale differs by model: below 0
            the head saw nothing in the whole box; Detectron, on whose head torchvision's is modelled, draws from 2.
        most_named: of more objects than this, names and scores are left out: they would hide the picture.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        UsageError: an array of another type or shape, or detections of an image of another size.
        DependencyMissing: supervision is not installed.
    """
    _check_picture("image", image)
    if image.shape[:2] != detections.image_size:
        refuse("image", f"{detections.image_size} (H, W) as the detections", image.shape[:2])
    shown = detections[detections.scores >= minimum_score]
    if not len(shown):
        return image.copy()
    library = import_supervision()
    names = [printable(name_of(int(label), class_names)) for label in shown.labels]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, shown.scores, strict=True)]
    # The surest object is drawn last, on top; supervision paints in blue, green, red.
    order = np.arange(len(shown))[::-1]
    found: Any = shown.to_supervision()[order]
    texts = [texts[row] for row in order]
    scene = np.ascontiguousarray(image[:, :, ::-1])
    line = _pixels(image, _LINE_SHARE, _LINE_LEAST)
    scene = library.MaskAnnotator(opacity=_MASK_OPACITY).annotate(scene, found)
    scene = library.BoxAnnotator(thickness=line).annotate(scene, found)
    if shown.keypoints is not None and shown.keypoint_scores is not None:
        seen = shown.keypoint_scores >= minimum_keypoint_score
        scene = _with_keypoints(library, scene, shown.keypoints[order, :, :2], seen[order], line)
    if most_named is None or len(shown) <= most_named:
        scene = _label_annotator(library, image).annotate(scene, found, labels=texts)
    return np.ascontiguousarray(scene[:, :, ::-1])


def _with_keypoints(
    library: Any, scene: Picture, points: NDArray[np.float32], seen: NDArray[np.bool_], line: int
) -> Picture:
    """Draws points [N, K, 2] of (x, y), where bool [N, K] says so, yellow on black to be seen on any ground."""
    height, width = scene.shape[:2]
    # Beyond the picture there is nothing to see, and a number that is not finite cannot be drawn.
    inside = ((points >= 0) & (points <= (width, height))).all(axis=2)
    found = library.KeyPoints(xy=points, visible=seen & inside)
    for colour, rim in ((library.Color.BLACK, 1), (library.Color.YELLOW, 0)):
        if points.shape[1] == _PERSON_POINTS:
            limbs = library.EdgeAnnotator(color=colour, thickness=line + 2 * rim, edges=_PERSON_LIMBS)
            scene = limbs.annotate(scene, found)
        scene = library.VertexAnnotator(color=colour, radius=line + 1 + rim).annotate(scene, found)
    return scene


def _pixels(image: Picture, share: float, least: int) -> int:
    return max(least, round(share * math.sqrt(image.shape[0] * image.shape[1])))


def _label_annotator(library: Any, image: Picture) -> Any:
    import matplotlib as mpl  # supervision needs it too, and it brings a font with more letters than Pillow's

    size = _pixels(image, _TEXT_SHARE, _TEXT_LEAST)
    backgrounds = library.ColorPalette.DEFAULT.colors
    inks = [library.Color.BLACK if _brightness(c.as_rgb()) > _BRIGHT else library.Color.WHITE for c in backgrounds]
    return library.RichLabelAnnotator(
        font_path=str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"),
        font_size=size,
        text_color=library.ColorPalette(inks),
        text_padding=max(2, size // 5),
        smart_position=True,
    )


def _brightness(rgb: tuple[int, int, int]) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def side_by_side(images: Sequence[Picture], titles: Sequence[str]) -> Picture:
    """Returns the images beside each other, scaled to the tallest one's height, each under its title.

    Args:
        images: uint8 [H, W, 3] RGB, of any sizes.
        titles: one per image; cut off where it is wider than its image.

    Returns:
        uint8 [H', W', 3] RGB on white.

    Raises:
        UsageError: no image, an array of another type or shape, or another number of titles.
    """
    if not images or len(images) != len(titles):
        refuse("titles", "as many as images, at least 1", Described(f"{len(titles)} for {len(images)} images"))
    for index, image in enumerate(images):
        _check_picture(f"images[{index}]", image)
    height = max(image.shape[0] for image in images)
    panels = [_of_height(image, height) for image in images]
    size = max(_pixels(np.asarray(panel), _TEXT_SHARE * 1.2, _TEXT_LEAST + 2) for panel in panels)
    bar = round(size * 1.8)
    font = ImageFont.load_default(size)
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, bar + height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    left = 0
    for panel, title in zip(panels, titles, strict=True):
        sheet.paste(panel, (left, bar))
        text = cut_text(printable(title), font, panel.width)
        pen.text((left + panel.width / 2, bar / 2), text, fill=_INK, font=font, anchor="mm")
        left += panel.width + _GAP
    return np.array(sheet)


def _of_height(image: Picture, height: int) -> Image.Image:
    panel = Image.fromarray(np.ascontiguousarray(image))
    if panel.height == height:
        return panel
    width = max(1, round(panel.width * height / panel.height))
    return panel.resize((width, height), Image.Resampling.BILINEAR)


def cut_text(text: str, font: Any, width: int) -> str:
    """Text that is no wider than `width` pixels, with three dots where something is missing."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _check_picture(name: str, image: Picture) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        refuse(name, "uint8 [H, W, 3] RGB", Described(f"{image.dtype} {list(image.shape)}"))
