"""Files appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import OutputError

JPEG_QUALITY = 95
_unfinished: set[Path] = set()


@contextlib.contextmanager
def creating(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which replaces `path` when the block ends well.

    A reader sees the old file or the new one, never a part; after an exception the old file is as it was. Of a link,
    the file that it leads to is replaced.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or `path` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it is there already, and is no file", "name another place with -o")
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        _unfinished.add(temporary)
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}", "free some space or name another place with -o") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)


def write_image(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Writes a picture, whole or not at all: as JPEG where the path ends in .jpg or .jpeg, else as PNG.

    Args:
        path: where to.
        pixels: uint8 [H, W, 3] RGB.

    Raises:
        OutputError: the file cannot be written.
    """
    is_jpeg = Path(path).suffix.lower() in {".jpg", ".jpeg"}
    with creating(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG" if is_jpeg else "PNG", quality=JPEG_QUALITY)


def remove_unfinished() -> None:
    """Removes the temporary files of every `creating` block that still runs: for a process about to end at once."""
    for temporary in tuple(_unfinished):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
