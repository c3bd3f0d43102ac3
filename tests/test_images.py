"""Images: any sound file becomes RGB, any other one an ImageError."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import ImageError, UsageError
from edgemask.images import load_image

EXIF_ORIENTATION = 0x0112


def picture(height: int = 23, width: int = 37, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# Files


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_file_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture()).save(path, lossless=True)
    for source in (path, str(path), Image.open(path)):
        image = load_image(source)
        assert image.flags.c_contiguous
        assert image.flags.writeable
        np.testing.assert_array_equal(image, picture())


def test_jpeg_is_as_pillow_decodes_it(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


# What must be done to the upright picture so that a viewer that obeys the tag shows it upright again.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.kron(picture(4, 6), np.ones((8, 8, 1), np.uint8))  # blocks of 8, as JPEG's
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    path = tmp_path / f"a.{suffix}"
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True}
    Image.fromarray(stored).save(path, exif=exif, **options)
    difference = load_image(path).astype(int) - upright
    assert np.abs(difference).max() <= (3 if suffix == "jpg" else 0)


def test_broken_exif_does_not_spoil_sound_pixels(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), picture())


GREY = picture()[:, :, 0]
RGB = Image.fromarray(picture())
PALETTE = RGB.quantize(16)


def with_transparency(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.info["transparency"] = bytes(range(16))
    return copy


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(Image.fromarray(GREY), np.stack([GREY] * 3, -1), id="L"),
        pytest.param(Image.fromarray(GREY).convert("LA"), np.stack([GREY] * 3, -1), id="LA"),
        pytest.param(RGB.convert("RGBA"), picture(), id="RGBA"),
        pytest.param(Image.merge("RGBA", [*RGB.split(), Image.new("L", RGB.size, 3)]), picture(), id="faint"),
        pytest.param(PALETTE, np.asarray(PALETTE.convert("RGB")), id="P"),
        pytest.param(with_transparency(PALETTE), np.asarray(PALETTE.convert("RGB")), id="P-transparent"),
        pytest.param(RGB.convert("CMYK"), picture(), id="CMYK"),
        pytest.param(Image.fromarray(GREY > 127), np.stack([(GREY > 127) * np.uint8(255)] * 3, -1), id="1"),
        pytest.param(Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1), id="I;16"),
        pytest.param(
            Image.fromarray((GREY.astype(int) // 2 * 257 + 128).astype(">u2")),
            np.stack([GREY // 2] * 3, -1),
            id="I;16B",
        ),
    ],
)
def test_modes_become_rgb(source: Image.Image, expected: NDArray[np.uint8]) -> None:
    image = load_image(source)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_sixteen_bits_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 65535 - 129, 65535 - 128, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png")[0, :, 1].tolist() == [0, 0, 1, 1, 254, 255, 255]


def test_unknown_range_is_refused() -> None:
    with pytest.raises(ImageError, match="expected 8 or 16 bits a channel, got Pillow mode I") as caught:
        load_image(Image.fromarray(GREY.astype(np.int32)))
    assert caught.value.remedy


def encoded(format_name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 64)).save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "no sound JPEG, PNG, BMP or WebP image", id="empty"),
        pytest.param(b"<html>not found</html>" * 9, "no sound JPEG", id="html"),
        pytest.param(encoded("GIF"), "no sound JPEG", id="gif"),
        pytest.param(encoded("TIFF"), "no sound JPEG", id="tiff"),
        pytest.param(encoded("JPEG")[:-900], "truncated", id="truncated-jpeg"),
        pytest.param(encoded("PNG")[:5000], "truncated", id="truncated-png"),
        pytest.param(encoded("BMP")[:5000], "truncated", id="truncated-bmp"),
        pytest.param(encoded("WEBP")[:500], "decoder", id="truncated-webp"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(path)
    assert caught.value.problem.startswith(f"{path}: ")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="it is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="there is no such file"):
        load_image("a\x00b.png")
    with pytest.raises(ImageError, match=r"a\\x1b\[2J.png"):
        load_image("a\x1b[2J.png")
    with pytest.raises(ImageError, match="name too long"):
        load_image("x" * 5000)


# Arrays


def test_contiguous_array_is_not_copied() -> None:
    image = picture()
    assert load_image(image) is image


@pytest.mark.parametrize("view", [np.flipud, np.fliplr, lambda a: a[::2, 1::3], lambda a: a[:, :, ::-1]])
def test_any_memory_layout_is_taken(view: Any) -> None:
    image = view(picture())
    image.flags.writeable = False
    loaded = load_image(image)
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, image)


@pytest.mark.parametrize(
    ("source", "got", "remedy"),
    [
        (picture().astype(np.float32) / 255, r"float32 \[23, 37, 3\]", "image * 255"),
        (picture().astype(np.float64), "float64", "0-255"),
        (picture().astype(np.uint16), "uint16", "/ 257"),
        (picture().astype(bool), "bool", "0-255"),
        (picture()[:, :, 0], r"uint8 \[23, 37\]", "numpy.stack"),
        (picture().transpose(2, 0, 1), r"uint8 \[3, 23, 37\]", "transpose(1, 2, 0)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]", "alpha"),
        (picture()[None], r"uint8 \[1, 23, 37, 3\]", "list"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]", None),
        (np.zeros((5, 5, 7), np.uint8), r"uint8 \[5, 5, 7\]", None),
        (np.zeros((), np.uint8), r"uint8 \[\]", None),
        (b"bytes", "builtins.bytes", "io.BytesIO"),
        (None, "builtins.NoneType", "uint8"),
    ],
)
def test_unusable_array_is_refused_with_a_remedy(source: Any, got: str, remedy: str | None) -> None:
    with pytest.raises(UsageError, match=f"got {got}") as caught:
        load_image(source)
    assert (caught.value.remedy is None) == (remedy is None)
    assert (remedy or "") in (caught.value.remedy or "")


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_tiff_by_an_opt_in(tmp_path: Path, mode: str) -> None:
    values = np.linspace(0, 65_535 if mode == "I;16" else 255, 35).reshape(5, 7)
    stored = values.astype(np.uint16 if mode == "I;16" else np.uint8)
    grey = np.rint(stored / 257).astype(np.uint8) if mode == "I;16" else stored
    path = tmp_path / "cells.tif"
    Image.fromarray(np.stack([stored] * 3, axis=2) if mode == "RGB" else stored).save(path, compression="tiff_lzw")
    with pytest.raises(ImageError, match="no sound JPEG, PNG, BMP or WebP image") as caught:
        load_image(path)
    assert "EDGEMASK_TIFF=1" in str(caught.value.remedy)
    code = (
        "import sys, numpy; from edgemask.images import IMAGE_SUFFIXES, load_image;"
        "assert '.tif' in IMAGE_SUFFIXES; numpy.save(sys.argv[2], load_image(sys.argv[1]))"
    )
    opted = os.environ | {"EDGEMASK_TIFF": "1"}
    subprocess.run([sys.executable, "-c", code, path, tmp_path / "read.npy"], env=opted, check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "read.npy"), np.stack([grey] * 3, axis=2))
