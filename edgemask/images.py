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

TIFF_SETTING = "EDGEMASK_TIFF"
_TIFF = os.environ.get(TIFF_SETTING) == "1"
_TIFF_SUFFIXES = (".tif", ".tiff")
# Few decoders, all in daily use: each format that Pillow may try is more code that reads a stranger's bytes.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", *(("TIFF",) if _TIFF else ()))
# Of the files that are taken from a folder.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp", *(_TIFF_SUFFIXES if _TIFF else ()))
_SHOWN_FORMATS = "JPEG, PNG, BMP, WebP or TIFF" if _TIFF else "JPEG, PNG, BMP or WebP"
# 248 MiB while Pillow decodes them, four bytes a pixel, which also a file may cost that turns out to be broken.
PIXEL_LIMIT = 65_000_000
_RUN_LENGTH_LIMIT = 8_000_000  # of a run-length encoded BMP: Pillow decodes it byte by byte, in Python

_BAND = 1 << 20  # pixels turned into an array at a time: a large image needs little more than itself and the array
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
_RANGE_REMEDY = "scale it to 0-255 and cast it to uint8 first: the range of its values is not known"


def load_image(source: str | os.PathLike[str] | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a C-contiguous uint8 [H, W, 3] RGB image.

    Files (JPEG, PNG, BMP, WebP; TIFF where the environment has EDGEMASK_TIFF=1 when edgemask is imported) and
    Pillow images are turned upright by their EXIF orientation. Alpha is
    dropped, the first frame of an animation is taken. Of 16 bits a channel, grey is divided by 257, and colour
    keeps its high byte. CMYK and YCbCr are converted by Pillow's formulas, without a profile; LAB, of the white
    point D50, by profiles to sRGB. Pillow's floats (mode F) are grey: within 0-1 they are multiplied by 255,
    others within 0-255 are rounded; if the greatest lies between 1 and 2, it could be either, and is refused.
    Arrays are taken as they are, RGB; one that is contiguous already is not copied.

    Raises:
        ImageError: no such file, none of the formats, damaged, more than 65 million pixels (8 million of a
            run-length encoded BMP), or of a pixel type whose range nobody can know.
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
        if path.suffix.lower() in _TIFF_SUFFIXES and not _TIFF:
            remedy = f"set {TIFF_SETTING}=1 in the environment to have TIFF read, or convert it to PNG"
        raise ImageError(f"{name}: no sound {_SHOWN_FORMATS} image", remedy) from error
    except ImageError:
        raise
    # Damaged files make Pillow raise whatever it runs into: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        _refuse_file(name, _words(error), error)


def _words(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _refuse_file(name: str, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ImageError(f"{name}: cannot be read as an image: {reason}") from cause


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    limit = _RUN_LENGTH_LIMIT if _is_run_length_encoded(image) else PIXEL_LIMIT
    if not 0 < image.width * image.height <= limit:
        _refuse_file(name, f"expected 1 to {limit} pixels, got {image.width} x {image.height}")
    if image.mode == "I":
        raise ImageError(f"{name}: expected 8 or 16 bits a channel, got Pillow mode I", _RANGE_REMEDY)
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        if image.mode == "F":
            image = Image.fromarray(_levels(np.asarray(image), name))
        return _pixels(image if upright is None else image.transpose(upright))
    except ImageError:
        raise
    except Exception as error:
        _refuse_file(name, _words(error), error)


def _is_run_length_encoded(image: Image.Image) -> bool:
    return any(tile.codec_name == "bmp_rle" for tile in getattr(image, "tile", ()))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    # A broken EXIF block says nothing about the pixels, which are sound.
    except Exception:
        return 1


def _levels(values: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    """Grey of a range that its values tell, as 0-255."""
    least, greatest = values.min(), values.max()
    # Written so that a NaN is wrong too. What filters make of 0-1 goes beyond 1, yet not as far as 2.
    if not (least >= 0 and (greatest <= 1 or 2 <= greatest <= 255)):
        problem = f"expected values within 0-1, or within 0-255 and up to 2 at least, got {least:g} to {greatest:g}"
        raise ImageError(f"{name}: {problem}", _RANGE_REMEDY)
    levels: NDArray[np.uint8] = (values * 255 if greatest <= 1 else values).round().astype(np.uint8)
    return levels


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        band = pixels[top : top + step]
        band[:] = _rgb(image.crop((0, top, image.width, top + len(band))))
    return pixels


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "LAB":  # which Pillow converts by profiles alone
        from PIL import ImageCms

        lab, srgb, exact = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), ImageCms.Flags.NOOPTIMIZE
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=exact)
        return np.asarray(transform.apply(image))
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with transparency is made RGB in one step
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
