"""The loader of images, to be fuzzed behind the checksums of PNG. See `scripts/fuzz.py`."""

import contextlib
import io
import struct
import tempfile
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from edgemask import images
from edgemask.errors import EdgemaskError

PIXELS = 1_000_000  # of an image that is still decoded: larger ones cost the fuzzer its time, and reach no other code
LONGEST = 2048
MUTATIONS = ()
TOKENS = ("Exif\0\0", "MM\0*", "II*\0", "IDAT", "acTL", "VP8L", "ANMF", "iCCP")

_folder = tempfile.TemporaryDirectory(prefix="edgemask-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_file = Path(_folder.name) / "file"


def run(data: bytes) -> None:
    """Reads an image file, with true checksums where it is a PNG."""
    _file.write_bytes(with_checksums(data))
    with contextlib.suppress(EdgemaskError), mock.patch.object(images, "PIXEL_LIMIT", PIXELS):
        image = images.load_image(_file)
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert 0 < image.shape[0] * image.shape[1] <= PIXELS
        assert image.flags.c_contiguous


def seeds() -> list[bytes]:
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (5, 7, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(generator.integers(0, 65536, (3, 4), np.uint16))
    other = picture.rotate(90, expand=False)
    forms: list[tuple[Image.Image, dict[str, object]]] = [
        (picture, {"format": "PNG", "exif": exif}),
        (picture.convert("RGBA"), {"format": "PNG"}),
        (picture.convert("P"), {"format": "PNG", "transparency": 1}),
        (picture.convert("1"), {"format": "PNG"}),
        (picture, {"format": "PNG", "save_all": True, "append_images": [other]}),
        (deep, {"format": "PNG"}),
        (picture, {"format": "JPEG", "exif": exif}),
        (picture.convert("CMYK"), {"format": "JPEG", "progressive": True}),
        (picture.convert("L"), {"format": "JPEG", "restart_marker_blocks": 1}),
        (picture, {"format": "BMP"}),
        (picture.convert("P"), {"format": "BMP"}),
        (picture, {"format": "WEBP", "lossless": True, "exif": exif}),
        (picture.convert("RGBA"), {"format": "WEBP"}),
        (picture, {"format": "WEBP", "save_all": True, "append_images": [other]}),
    ]
    return [_encoded(image, **options) for image, options in forms]


def _encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that fit them; other bytes as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    changed, place = bytearray(data), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", changed, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(changed)
