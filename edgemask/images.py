"""Images as they come, file or array, to uint8 RGB."""

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgemask.checks import Described, printable, refuse
from edgemask.dependencies import require
from edgemask.errors import ImageError

# Few decoders, all in daily use: each format that Pillow may try is more code that reads a stranger's bytes.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # of the files that are taken from a folder
# Pillow warns from here on and refuses from twice as much; 268 MB as RGB.
PIXEL_LIMIT = 89_478_485

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: str | os.PathLike[str] | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a C-contiguous uint8 [H, W, 3] RGB image.

    Files (JPEG, PNG, BMP, WebP) and Pillow images are turned upright by their EXIF orientation. Alpha is
    dropped, the first frame of an animation is taken, 16-bit grey is scaled to 8 bits. Arrays are taken as
    they are, RGB; one that is contiguous already is not copied.

    Raises:
        ImageError: no such file, none of the formats, damaged, more than 89 million pixels, or of a pixel
            type whose range nobody can know.
        UsageError: an array of another type or shape.
        DependencyMissing: Pillow is too old to read a file safely.
    """
    if isinstance(source, np.ndarray):
        return np.ascontiguousarray(check_array(source))
    if isinstance(source, Image.Image):
        return _decode(source, f"{source.mode} image")
    return _load_file(_path(source))


def _path(source: object) -> Path:
    if isinstance(source, str | os.PathLike):
        return Path(source)
    got = Described(f"{type(source).__module__}.{type(source).__qualname__}")
    remedy = "open bytes with PIL.Image.open(io.BytesIO(...)); turn a tensor into a uint8 [H, W, 3] numpy array"
    refuse("image", "a path, a Pillow image or a numpy array", got, remedy)


def check_array(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Gives an array back that is a uint8 [H, W, 3] image.

    Raises:
        UsageError: any other; the remedy says how to make one of it.
    """
    got = Described(f"{image.dtype} {list(image.shape)}")
    expected = "uint8 [H, W, 3] RGB with H, W >= 1"
    if image.ndim == 4:
        refuse("image", expected, got, "pass a list of images: list(batch)")
    if image.ndim == 2:
        refuse("image", expected, got, "repeat a grey image: numpy.stack([image] * 3, axis=-1)")
    if image.ndim != 3 or 0 in image.shape:
        refuse("image", expected, got)
    if image.shape[2] == 4:
        refuse("image", expected, got, "drop the alpha channel: image[..., :3]")
    if image.shape[2] != 3:
        is_planar = image.shape[0] == 3
        refuse("image", expected, got, "put the channels last: image.transpose(1, 2, 0)" if is_planar else None)
    if image.dtype != np.uint8:
        refuse("image", expected, got, _cast_remedy(image))
    return image


def _cast_remedy(image: NDArray[Any]) -> str:
    if image.dtype.kind == "f" and image.size and np.nanmax(image) <= 1:
        return "scale 0-1 to 0-255: (image * 255).round().astype('uint8')"
    if image.dtype == np.uint16:
        return "scale 16 bits to 8: (image / 257).round().astype('uint8')"
    return "bring the values to 0-255 and cast: image.astype('uint8')"


def _load_file(path: Path) -> NDArray[np.uint8]:
    require("PIL")
    name = printable(str(path))
    try:
        if not path.is_file():
            _refuse_file(name, "it is a folder" if path.is_dir() else "there is no such file")
        with Image.open(path, formats=FORMATS) as image:
            return _decode(image, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        _refuse_file(name, f"it has more than {PIXEL_LIMIT} pixels", error)
    except UnidentifiedImageError as error:
        remedy = "convert it to PNG, or open it with Pillow and pass the Pillow image"
        raise ImageError(f"{name}: no sound JPEG, PNG, BMP or WebP image", remedy) from error
    except OSError as error:
        _refuse_file(name, printable(error.strerror or str(error)), error)


def _refuse_file(name: str, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ImageError(f"{name}: cannot be read as an image: {reason}") from cause


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if not 0 < image.width * image.height <= PIXEL_LIMIT:
        _refuse_file(name, f"expected 1 to {PIXEL_LIMIT} pixels, got {image.width} x {image.height}")
    if image.mode in ("I", "F"):
        remedy = "scale it to 0-255 and cast it to uint8 first: the range of its values is not known"
        raise ImageError(f"{name}: expected 8 or 16 bits a channel, got Pillow mode {image.mode}", remedy)
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        return _rgb(image if upright is None else image.transpose(upright))
    # Damaged files make Pillow raise whatever it runs into: OSError, SyntaxError, struct.error ...
    except Exception as error:
        _refuse_file(name, printable(str(error)) or type(error).__name__, error)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    # A broken EXIF block says nothing about the pixels, which are sound.
    except Exception:
        return 1


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with transparency is made RGB in one step
    return np.array(image.convert("RGB"))
