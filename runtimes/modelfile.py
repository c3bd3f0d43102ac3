"""The ONNX file of a model: sealed with a digest when written, checked before a runtime sees it.

The digest is the SHA-256 over the bytes of the file with its own 64 hexadecimal digits taken as zeros.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgemask.errors import ModelFileError
from edgemask.files import creating
from edgemask.spec import DIGEST_KEY, SPEC_KEY, ModelSpec

SIZE_LIMIT = 2**31 - 1  # of a protobuf message
DOMAINS = frozenset({"", "ai.onnx", "edgemask", "com.microsoft"})
_BLANK = b"0" * 64
# The entry of the digest in `metadata_props` as protobuf writes it: key and value with their tags and lengths.
_ENTRY = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY.encode() + b"\x12" + bytes([len(_BLANK)])


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was read and found sound.

    Attributes:
        path: where it was read from.
        data: its bytes.
        proto: the same, parsed.
        spec: what it says about itself.
        digest: its seal, hexadecimal.
    """

    path: Path
    data: bytes
    proto: onnx.ModelProto
    spec: ModelSpec
    digest: str

    @property
    def metadata(self) -> Mapping[str, str]:
        """All metadata of the file."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}


def read_model(path: str | Path) -> ModelFile:
    """Reads a model file and checks seal, spec and contents.

    Raises:
        ModelFileError: no such file, no ONNX, no edgemask model, changed since it was written, or with operators or
            data from outside.
    """
    path = Path(path)
    data = _read(path)
    _refuse_lookalikes(path, data)
    if _ENTRY in data:
        _check_seal(path, data)
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelFileError(
            f"{path} is no ONNX model, or a truncated one: {error}", "copy or export it again"
        ) from error
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if SPEC_KEY not in metadata or DIGEST_KEY not in metadata:
        known = f"it was written by {proto.producer_name!r}" if proto.producer_name else "it names no producer"
        raise ModelFileError(
            f"{path} holds no edgemask model: {known} and has no {SPEC_KEY} metadata",
            "export the PyTorch model with `edgemask export`",
        )
    if _ENTRY + metadata[DIGEST_KEY].encode() not in data:
        raise ModelFileError(f"{path} has the broken digest {metadata[DIGEST_KEY][:80]!r}", "copy or export it again")
    _refuse_outside(path, proto)
    return ModelFile(path, data, proto, ModelSpec.from_json(metadata[SPEC_KEY]), metadata[DIGEST_KEY])


def write_model(proto: onnx.ModelProto, spec: ModelSpec, path: str | Path) -> str:
    """Writes a model with its spec, sealed, whole or not at all.

    Args:
        proto: the model; its own metadata is kept, spec and digest are replaced.
        spec: what the file says about itself.
        path: where to.

    Returns:
        The digest.

    Raises:
        ModelFileError: larger than a protobuf message may be.
        OutputError: the file cannot be written.
    """
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    del proto.metadata_props[:]
    for key, value in (kept | {SPEC_KEY: spec.to_json(), DIGEST_KEY: _BLANK.decode()}).items():
        proto.metadata_props.add(key=key, value=value)
    from google.protobuf.message import EncodeError

    try:
        blank = proto.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelFileError(
            f"the model is larger than {SIZE_LIMIT} bytes, the limit of one ONNX file", "export a smaller model"
        ) from error
    digest = hashlib.sha256(blank).hexdigest()
    with creating(path) as temporary:
        temporary.write_bytes(blank.replace(_ENTRY + _BLANK, _ENTRY + digest.encode(), 1))
    return digest


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise ModelFileError(f"{path} has {size} bytes, an ONNX file at most {SIZE_LIMIT}", "check the path")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", "check the path") from error


def _refuse_lookalikes(path: Path, data: bytes) -> None:
    head = data[:256].lstrip().lower()
    if not data:
        raise ModelFileError(f"{path} is empty", "copy or export it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path} is a Git LFS pointer, not the model itself", "run `git lfs pull`")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelFileError(f"{path} is a web page, not a model", "download the file itself")


def _check_seal(path: Path, data: bytes) -> None:
    position = data.index(_ENTRY) + len(_ENTRY)
    found = data[position : position + len(_BLANK)]
    digest = hashlib.sha256(data[:position])
    digest.update(_BLANK)
    digest.update(memoryview(data)[position + len(_BLANK) :])
    if digest.hexdigest().encode() != found:
        raise ModelFileError(
            f"{path} was changed or cut since edgemask wrote it: its digest does not fit its contents",
            "copy or export it again; other tools must not rewrite it",
        )


def _refuse_outside(path: Path, proto: onnx.ModelProto) -> None:
    """A model brings everything along, and only operators that the runtimes know."""
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelFileError(f"{path} keeps weights in other files", "export it again: one file holds everything")
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    foreign = sorted({node.domain for node in nodes} - DOMAINS)
    if foreign:
        raise ModelFileError(f"{path} uses operators of {', '.join(foreign)}", "only ONNX's and edgemask's own are run")
