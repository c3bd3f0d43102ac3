"""Every mode of Pillow and every EXIF orientation gives the boxes of the documented conversion, done by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enduring import DEVICES, RUNTIMES, ModelOf
from finding import Finding
from numpy.typing import NDArray
from PIL import Image, ImageCms

import edgemask
from edgemask.detections import Detections
from edgemask.errors import ImageError
from edgemask.images import load_image
from edgemask.scenes import draw_scene

Array = NDArray[Any]
Loader = Callable[[Any], NDArray[np.uint8]]
SCENE = draw_scene(3, size=96).image[:80]
GREY = SCENE.mean(2).astype(np.uint8)
RGB = Image.fromarray(SCENE)
ALPHA = Image.fromarray(np.arange(GREY.size, dtype=np.uint32).astype(np.uint8).reshape(GREY.shape))
PALETTE = RGB.quantize(64)
ORIENTATION = 0x0112
SURE = 0.1  # twice what the sample gives at all: a level of rounding makes objects come and go on that threshold
# What is stored so that a viewer that obeys the tag shows the scene.
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def three(grey: Array) -> Array:
    return np.repeat(np.asarray(grey, np.float64)[:, :, None], 3, 2)


def of_palette(image: Image.Image) -> Array:
    colours = np.array(image.getpalette("RGB")).reshape(-1, 3)
    numbers = np.asarray(image)
    return colours[numbers if numbers.ndim == 2 else numbers[:, :, 0]]


def of_cmyk(image: Image.Image) -> Array:
    ink = 255 - np.asarray(image, np.float64)
    return ink[:, :, :3] * ink[:, :, 3:] / 255


def of_ycbcr(image: Image.Image) -> Array:
    """JFIF."""
    y, cb, cr = np.moveaxis(np.asarray(image, np.float64), 2, 0) - np.array([0, 128, 128])[:, None, None]
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 2)


def of_lab(image: Image.Image) -> Array:
    """CIE L*a*b* of the white point D50 to sRGB, adapted by Bradford's matrix."""
    stored = np.asarray(image)
    lightness = stored[:, :, 0] / 255 * 100
    a, b = (stored[:, :, channel].view(np.int8).astype(np.float64) for channel in (1, 2))
    middle = (lightness + 16) / 116
    root = np.stack([middle + a / 500, middle, middle - b / 200], 2)
    xyz = np.where(root > 6 / 29, root**3, (root - 4 / 29) * 3 * (6 / 29) ** 2) * [0.96422, 1, 0.82521]
    linear = (
        xyz
        @ np.array(
            [
                [3.1338561, -1.6168667, -0.4906146],
                [-0.9787684, 1.9161415, 0.0334540],
                [0.0719453, -0.2289914, 1.4052427],
            ]
        ).T
    )
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def lab_of(image: Image.Image) -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert converted is not None
    return converted


def palette_with_alpha() -> Image.Image:
    image = Image.merge("LA", [Image.fromarray(np.asarray(PALETTE)), ALPHA]).convert("PA")
    image.putpalette(PALETTE.getpalette("RGB") or [])
    return image


DEEP = (np.asarray(GREY, np.uint16) * 257).astype(np.uint16)
MODES: dict[str, tuple[Image.Image, Array]] = {
    "1": (Image.fromarray(GREY > 127), three((GREY > 127) * 255)),
    "L": (Image.fromarray(GREY), three(GREY)),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), ALPHA]), three(GREY)),
    "P": (PALETTE, of_palette(PALETTE)),
    "PA": (palette_with_alpha(), of_palette(palette_with_alpha())),
    "RGB": (RGB, SCENE),
    "RGBA": (Image.merge("RGBA", [*RGB.split(), ALPHA]), SCENE),
    "CMYK": (RGB.convert("CMYK"), of_cmyk(RGB.convert("CMYK"))),
    "YCbCr": (RGB.convert("YCbCr"), of_ycbcr(RGB.convert("YCbCr"))),
    "I;16": (Image.fromarray(DEEP), three(DEEP / 257)),
    "F, 0-1": (Image.fromarray(GREY.astype(np.float32) / 255), three(GREY)),
    "F, 0-255": (Image.fromarray(GREY.astype(np.float32)), three(GREY)),
    "LAB": (lab_of(RGB), of_lab(lab_of(RGB))),
}
UNKNOWN: dict[str, Image.Image] = {
    "negative": Image.fromarray(GREY.astype(np.float32) - 100),
    "beyond 255": Image.fromarray(GREY.astype(np.float32) * 2),
    "either range": Image.fromarray(GREY.astype(np.float32) / GREY.max() * np.float32(1.5)),
    "NaN": Image.fromarray(np.where(GREY > 99, np.float32(np.nan), GREY.astype(np.float32))),
    "I": Image.fromarray(GREY.astype(np.int32)),
}


def sources(folder: Path) -> dict[str, tuple[Any, Array]]:
    """What is loaded, and what must come of it: 13 images by mode, and 8 files by orientation."""
    turned = {}
    for number, store in STORED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = number
        path = folder / f"{number}.png"
        Image.fromarray(np.ascontiguousarray(store(SCENE))).save(path, exif=exif)
        turned[f"EXIF {number}"] = path, SCENE
    return MODES | turned


def apart(one: Detections, other: Detections) -> float:
    """By how many pixels the sure objects of each differ from the nearest of their label in the other; inf: none."""
    worst = 0.0
    for own, others in ((one, other), (other, one)):
        for label, box in zip(own.labels[own.scores >= SURE], own.boxes[own.scores >= SURE], strict=True):
            distances = np.abs(others.boxes[others.labels == label] - box).max(1, initial=0)
            worst = max(worst, float(distances.min(initial=np.inf)))
    return worst if one.image_size == other.image_size else np.inf


def farthest(detector: edgemask.runtimes.Detector, folder: Path, load: Loader = load_image) -> dict[str, float]:
    """By how many pixels the boxes of each differ from those of the conversion by hand; infinite for other objects."""
    found = {}
    for name, (source, by_hand) in sources(folder).items():
        expected = detector.predict(by_hand.round().clip(0, 255).astype(np.uint8))
        assert (expected.scores >= SURE).any(), name
        found[name] = apart(detector.predict(load(source)), expected)
    return found


@pytest.mark.soak
@pytest.mark.parametrize("device", DEVICES)
def test_boxes_of_the_documented_conversion(model_of: ModelOf, tmp_path: Path, device: str, finding: Finding) -> None:
    with edgemask.load(model_of("sample"), device=device) as detector:
        found = farthest(detector, tmp_path)
        unseen = farthest(detector, tmp_path, blind_to_exif)
    assert {name: pixels for name, pixels in found.items() if not pixels <= 1} == {}
    assert unseen["EXIF 6"] > 1, "the boxes tell one picture from another"
    worst = max(found.values())
    finding(f"{len(found)} of {len(found)} images, at most {worst:.2f} px apart", where=RUNTIMES[device])


def unlike(folder: Path, load: Loader = load_image) -> list[str]:
    """The images that are not those of the conversion by hand, within a level of rounding."""
    return [
        name
        for name, (source, by_hand) in sources(folder).items()
        if load(source).shape != by_hand.shape or np.abs(load(source) - by_hand.round().clip(0, 255)).max() > 1
    ]


def test_pixels_of_the_documented_conversion(tmp_path: Path) -> None:
    assert unlike(tmp_path) == []


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_range_that_nobody_can_know_is_refused(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(UNKNOWN[name])
    assert caught.value.remedy


def blind_to_exif(source: Any) -> NDArray[np.uint8]:
    return np.asarray(Image.open(source)) if isinstance(source, Path) else load_image(source)


def clipping(source: Any) -> NDArray[np.uint8]:
    """As Pillow itself makes 8 bits of 16."""
    is_deep = isinstance(source, Image.Image) and source.mode == "I;16"
    return np.array(source.convert("L").convert("RGB")) if is_deep else load_image(source)


@pytest.mark.parametrize(("loader", "named"), [(blind_to_exif, "EXIF 6"), (clipping, "I;16")])
def test_a_wrong_loader_is_seen(tmp_path: Path, loader: Loader, named: str) -> None:
    assert named in unlike(tmp_path, loader)
