"""Arrays in a zip archive: written the same bytes every time, read without trust in what the archive says of itself."""

import io
import json
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgemask.checks import Described, printable, refuse
from edgemask.errors import ModelFileError, UsageError
from edgemask.runs.entries import DIMENSION_LIMIT, is_storable

# What deflate makes small can be made large by a stranger at no cost, 1 to 1,032; what is stored costs him its size.
# The largest SemanticMap, 16384 x 16384, has 1.25 GiB; masks of 1,000 detections have 3 MB.
DEFLATED_LIMIT = 64 << 20  # bytes of one image, unpacked
SIZE_LIMIT = 2 << 30  # bytes of one image
JSON_LIMIT = 32 << 20  # bytes: about 150,000 images
# Measured on the masks of 9,021 nuclei, 28 MB: level 1 leaves 87.6 % in 0.72 s, level 6 leaves 87.2 % in 1.01 s.
COMPRESSION_LEVEL = 1

_HEADER_LIMIT = 10_000  # characters that numpy parses
_HEADER_ROOM = 1024  # bytes that numpy writes at most before an array of 16 dimensions
_ENCRYPTED = 1  # flag bit of a zip member
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,  # what the parser of a header says of a deep nest
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserWarning,  # numpy's, of a header that Python 2 wrote, where warnings are errors
    ValueError,
)


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> None:
    """Writes the arrays of one image, one after the other.

    Where the archive compresses, what would pass `DEFLATED_LIMIT` is stored instead.

    Raises:
        UsageError: more than `SIZE_LIMIT`.
    """
    sizes = {name: array.nbytes + _HEADER_ROOM for name, array in arrays.items()}
    if (size := sum(sizes.values())) > SIZE_LIMIT:
        refuse("arrays of one image", f"at most {SIZE_LIMIT} bytes", size, "keep the stages of smaller images")
    deflated = 0
    for name, array in arrays.items():
        is_small = deflated + sizes[name] <= DEFLATED_LIMIT
        deflated += sizes[name] if is_small else 0
        _write_member(archive, prefix + name, array, as_archive=is_small)


def write_json(archive: zipfile.ZipFile, name: str, record: Mapping[str, Any]) -> None:
    """Writes JSON values as a uint8 array, which `numpy.load` takes as it takes the others.

    Raises:
        UsageError: more than `JSON_LIMIT`.
    """
    text = json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii")
    if len(text) + _HEADER_ROOM > JSON_LIMIT:
        refuse(name, f"at most {JSON_LIMIT} bytes of JSON", len(text), "store the run in parts, of fewer images each")
    _write_member(archive, name, np.frombuffer(text, np.uint8), as_archive=True)


def _write_member(archive: zipfile.ZipFile, name: str, array: NDArray[Any], *, as_archive: bool) -> None:
    """Writes one array, compressed as the archive says or stored; zipfile dates it 1980, so the bytes stay the same."""
    member = f"{name}.npy" if as_archive else zipfile.ZipInfo(f"{name}.npy")
    with archive.open(member, "w") as stream:
        npy.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


class ArrayArchive:
    """An archive of arrays that anybody may have written: sizes are checked before anything is unpacked.

    Args:
        path: of the file. It stays open.

    Raises:
        ModelFileError: there is no such file.
        UsageError: it is no sound zip archive.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._size = _regular_size(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            refuse("archive", "a whole zip file", Described(_reason(error)))
        names = self._zip.namelist()
        if len(set(names)) != len(names):
            self.close()
            refuse("archive", "each member once", Described("one more than once"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def read(self, names: Iterable[str], prefix: str = "") -> dict[str, NDArray[Any]]:
        """Reads the arrays of one image.

        Returns:
            Read-only arrays by name, of whole numbers, floats or bools.

        Raises:
            UsageError: one is missing, broken or of another type, or they are larger than an image may be.
        """
        members = {name: self._member(prefix + name) for name in names}
        deflated = [member for member in members.values() if member.compress_type == zipfile.ZIP_DEFLATED]
        for group, limit, how in ((deflated, DEFLATED_LIMIT, "deflated"), (members.values(), SIZE_LIMIT, "in all")):
            if (size := sum(member.file_size for member in group)) > limit:
                refuse("arrays of one image", f"at most {limit} bytes {how}", size)
        return {name: self._array(member) for name, member in members.items()}

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads what `write_json` wrote.

        Raises:
            UsageError: it is missing, too large, or no JSON object.
        """
        member = self._member(name)
        if member.file_size > JSON_LIMIT:
            refuse(name, f"at most {JSON_LIMIT} bytes of JSON", member.file_size)
        array = self._array(member)
        if array.dtype != np.uint8 or array.ndim != 1:
            refuse(name, "uint8 [bytes]", Described(f"{array.dtype} {list(array.shape)}"))
        return parse_json(name, array.tobytes())

    def _member(self, name: str) -> zipfile.ZipInfo:
        """Where an array lies, once what the archive says about it can be true."""
        member = self._zip.NameToInfo.get(f"{name}.npy")
        if member is None:
            refuse("archive", f"a member {name}.npy", Described("none"))
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored and member.compress_type != zipfile.ZIP_DEFLATED:
            refuse(member.filename, "stored or deflated", Described(f"compression {member.compress_type}"))
        if member.flag_bits & _ENCRYPTED:
            refuse(member.filename, "no password", Described("an encrypted member"))
        within = 0 <= member.header_offset <= self._size - member.compress_size
        if not within or (is_stored and member.file_size != member.compress_size):
            refuse(member.filename, "bytes of this file", Described(f"{member.file_size} that it cannot hold"))
        return member

    def _array(self, member: zipfile.ZipInfo) -> NDArray[Any]:
        try:
            with self._zip.open(member) as stream:
                content = stream.read()  # no more than the size that was checked; its checksum is, too
            return _parse_array(member.filename, content)
        except UsageError:
            raise
        except _BROKEN as error:
            refuse(member.filename, "a whole .npy", Described(_reason(error)))


def parse_json(name: str, text: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UsageError: it is none.
    """
    try:
        record = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        refuse(name, "JSON", Described(_reason(error)))
    if not isinstance(record, dict):
        refuse(name, "a JSON object", record)
    return record


def _parse_array(name: str, content: bytes) -> NDArray[Any]:
    stream = io.BytesIO(content)
    if (version := npy.read_magic(stream)) != (1, 0):
        refuse(name, "version (1, 0) of .npy", version)
    shape, is_fortran, dtype = npy.read_array_header_1_0(stream, max_header_size=_HEADER_LIMIT)
    if not is_storable(dtype):
        refuse(name, "little-endian whole numbers, floats or bools", Described(str(dtype)))
    if is_fortran or len(shape) > DIMENSION_LIMIT or any(side < 0 for side in shape):
        order = "Fortran" if is_fortran else "C"
        refuse(name, f"up to {DIMENSION_LIMIT} dimensions in C order", Described(f"{order} order, shape {shape}"))
    start, size = stream.tell(), math.prod(shape) * dtype.itemsize
    if len(content) - start != size:
        refuse(name, f"{size} bytes for {dtype} {list(shape)}", Described(str(len(content) - start)))
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _regular_size(path: str | os.PathLike[str]) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ModelFileError(f"cannot read {printable(os.fspath(path))}: {_reason(error)}", "check the path") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be read for ever
        raise ModelFileError(f"{printable(os.fspath(path))} is no file", "name the file of the stored run itself")
    return status.st_size


def _reason(error: BaseException) -> str:
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
