"""Bytes of image files that a decoder has to refuse, and of those that only look as if.

from image_bytes import bombs, encoded, mutated, planted
"""

import functools
import io
import itertools
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from edgemask.images import PIXEL_LIMIT

NEAR = math.isqrt(PIXEL_LIMIT)  # a side of the largest square that is not refused for its size
FOREIGN = ("GIF", "TIFF", "ICO", "PPM", "TGA", "PCX", "SGI", "PDF")
_VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {"progressive": True}),
    ("JPEG", "CMYK", {"subsampling": 0}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("PNG", "LA", {}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "1", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("PNG", "RGB", {"save_all": True}),
    ("WEBP", "RGB", {"save_all": True}),
)


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@functools.cache
def _file(kind: str, mode: str, options: tuple[tuple[str, Any], ...]) -> bytes:
    image = Image.new("I;16", (40, 30), 9000) if mode == "I;16" else noise().convert(mode)
    more = {"append_images": [noise(seed=seed) for seed in (1, 2)]} if ("save_all", True) in options else {}
    buffer = io.BytesIO()
    image.save(buffer, kind, **dict(options), **more)
    return buffer.getvalue()


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A sound file of 40 x 30 pixels; with `save_all`, of three frames."""
    return _file(kind, mode, tuple(options.items()))


# Files from their parts


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2, interlaced: int = 0, before: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(width: int, height: int, data: bytes, *, bits: int = 24, compression: int = 0) -> bytes:
    palette = bytes(4 << bits) if bits <= 8 else b""
    start = 54 + len(palette)
    sizes = struct.pack("<2sIIIIii", b"BM", start + len(data), 0, start, 40, width, height)
    return sizes + struct.pack("<HHIIiiII", 1, bits, compression, len(data), 0, 0, 0, 0) + palette + data


def jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """A small file that says another size."""
    data = bytearray(encoded("JPEG", progressive=progressive))
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width: int, height: int, *, lossless: bool = False) -> bytes:
    """A small file that says another size: 14 bits for each side."""
    data = bytearray(encoded("WEBP", lossless=lossless))
    if lossless:
        place = data.index(b"VP8L") + 9
        (bits,) = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", data, place, bits & ~0xFFF_FFFF | (height - 1 & 0x3FFF) << 14 | (width - 1 & 0x3FFF))
    else:
        struct.pack_into("<HH", data, data.index(b"\x9d\x01\x2a") + 3, width, height)
    return bytes(data)


def animated_webp(width: int, height: int) -> bytes:
    """A sound frame of 40 x 30 pixels on a canvas of another size."""
    frame = b"".join(struct.pack("<I", value)[:3] for value in (0, 0, 39, 29, 100)) + b"\0" + encoded("WEBP")[12:]
    canvas = struct.pack("<I", 2) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    parts = [(b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", frame)]
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bombs() -> dict[str, bytes]:
    """Files of a few hundred bytes that say 50,000 x 50,000 pixels, or the most that their format can say."""
    return {
        "PNG of 50,000 x 50,000": png(50_000, 50_000, zlib.compress(bytes(1000))),
        "BMP of 50,000 x 50,000": bmp(50_000, 50_000, bytes(1000)),
        "BMP of 50,000 x 50,000, run lengths": bmp(50_000, 50_000, b"\1\1\0\0", bits=8, compression=1),
        "JPEG of 65,535 x 65,535": jpeg(65_535, 65_535),
        "JPEG of 65,535 x 65,535, progressive": jpeg(65_535, 65_535, progressive=True),
        "WebP of 16,383 x 16,383": webp(16_383, 16_383),
        "WebP of 16,384 x 16,384, lossless": webp(16_384, 16_384, lossless=True),
        "WebP of 50,000 x 50,000, animated": animated_webp(50_000, 50_000),
    }


# Files to be refused: by construction, not by what a decoder makes of them


def _cut_late() -> bytes:
    """A PNG of as many pixels as may be, all sound but the last rows: decoded as a whole before that is known."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    rows = packer.compress(bytes(100 * (3 * NEAR + 1))) + packer.flush(zlib.Z_FULL_FLUSH)
    return png(NEAR, NEAR, start + rows * (NEAR // 100 - 1))


@functools.cache
def planted() -> dict[str, bytes]:
    """Files written by hand to be expensive, or to be wrong where a mutation hardly gets."""
    start = zlib.compressobj().compress(bytes(100_000))
    flat, text = zlib.compress(bytes(30 * 121)), b"a\0\0" + zlib.compress(bytes(50_000_000))
    near = {
        "RGB": {},
        "palette": {"colour": 3, "before": chunk(b"PLTE", bytes(768))},
        "16-bit": {"colour": 0, "depth": 16},
        "interlaced": {"interlaced": 1},
    }
    return {
        "empty": b"",
        "text": b"<html>not found</html>" * 9,
        "a PNG whose last rows are missing": _cut_late(),
        **{f"nearly empty PNG, {name}": png(NEAR, NEAR, start, **how) for name, how in near.items()},  # type: ignore[arg-type]
        "nearly empty BMP": bmp(NEAR, NEAR, bytes(1000)),
        "nearly empty BMP, palette": bmp(NEAR, NEAR, bytes(1000), bits=8),
        "nearly empty JPEG": jpeg(NEAR, NEAR)[:-300],
        "nearly empty JPEG, progressive": jpeg(NEAR, NEAR, progressive=True)[:-300],
        "nearly empty WebP": webp(NEAR, NEAR),
        "nearly empty WebP, lossless": webp(NEAR, NEAR, lossless=True),
        "run lengths of one wide row": bmp(PIXEL_LIMIT, 1, b"\1\1\0\0", bits=8, compression=1),
        "run lengths of half a byte": bmp(NEAR, NEAR, b"\xff\x11" * 9, bits=4, compression=2),
        "a bomb in a text": png(40, 30, flat, before=chunk(b"zTXt", text)),
        "a bomb in an international text": png(40, 30, flat, before=chunk(b"iTXt", b"a\0\1\0\0\0" + text[3:])),
        "a bomb in a profile": png(40, 30, flat, before=chunk(b"iCCP", text)),
        **{f"{kind} without a width": data for kind, data in _sized(0, 30).items()},
        **{f"{kind} without a height": data for kind, data in _sized(40, 0).items()},
        "BMP of negative width": bmp(-40, 30, bytes(3600)),
        **bombs(),
    }


def _sized(width: int, height: int) -> dict[str, bytes]:
    files = {"PNG": png(width, height, zlib.compress(bytes(9999))), "BMP": bmp(width, height, bytes(9999))}
    return files | {"JPEG": jpeg(width, height), "WebP": webp(width, height)}


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def _flipped(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(min(len(content), chance.choice([64, 10**6])))] = chance.randrange(256)
    return bytes(changed)


def _dropped(chance: random.Random, content: bytes) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randint(1, 40) :]


def _inserted(chance: random.Random, content: bytes) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + chance.choice([bytes(20), chance.randbytes(20), content[:200]]) + content[start:]


def _length_changed(chance: random.Random, content: bytes) -> bytes:
    """Four bytes become a number that is an extreme of its type."""
    start = chance.randrange(min(len(content), 200))
    number = struct.pack(chance.choice("<>") + "I", chance.choice([0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]))
    return content[:start] + number + content[start + 4 :]


def _wrong_magic(chance: random.Random, content: bytes) -> bytes:
    others = [encoded(kind)[:16] for kind in ("JPEG", "PNG", "BMP", "WEBP") if encoded(kind)[:2] != content[:2]]
    return chance.choice([*others, chance.randbytes(16)]) + content[16:]


def _foreign(chance: random.Random, content: bytes) -> bytes:
    return _flipped(chance, encoded(chance.choice(FOREIGN)))


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _cut,
    _flipped,
    _dropped,
    _inserted,
    _length_changed,
    _wrong_magic,
    _foreign,
)


def mutated(seed: int) -> Iterator[tuple[str, bytes]]:
    """Endlessly: what was done to which file, and its bytes. Some of them are still pictures."""
    chance = random.Random(seed)
    for change, (kind, mode, options) in zip(itertools.cycle(_MUTATIONS), itertools.cycle(_VARIANTS), strict=False):
        yield f"{kind} {mode}{change.__name__.replace('_', ' ')}", change(chance, encoded(kind, mode, **options))
