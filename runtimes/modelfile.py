"""The ONNX file of a model: sealed with a digest when written, checked before a runtime sees it.

The digest is the SHA-256 over the bytes of the file with its own 64 hexadecimal digits taken as zeros.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message

from edgemask.dependencies import require
from edgemask.errors import ModelFileError
from edgemask.files import creating, remedy_for_path
from edgemask.spec import DIGEST_KEY, SPEC_KEY, ModelSpec

SIZE_LIMIT = 2**31 - 1  # of a protobuf message
# Not com.microsoft, which our files do without: its EPContext loads a compiled model from the file, or from another.
DOMAINS = frozenset({"", "ai.onnx", "edgemask"})
# Where ORT_LOAD_CONFIG_FROM_MODEL=1 is set, ONNX Runtime takes session options from this metadata entry, and told not
# to (`read_config_from_model=0`) it opens no model at all.
OPTIONS_KEY = "ort_config"
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
        DependencyMissing: the package onnx is too old to read it safely.
    """
    require("onnx")
    path = Path(path)
    data = file_bytes(path)
    _refuse_lookalikes(path, data)
    if data.count(_ENTRY) != 1:
        _refuse_unsealed(path, data)
    digest = _check_seal(path, data)
    proto, metadata = parse_model(path, data)
    if metadata.get(DIGEST_KEY) != digest or SPEC_KEY not in metadata:
        raise ModelFileError(f"{path} holds no edgemask model: its metadata lack {SPEC_KEY}", "export it again")
    if OPTIONS_KEY in metadata:
        raise ModelFileError(f"{path} brings options for ONNX Runtime ({OPTIONS_KEY})", "export it again: ours do not")
    try:
        spec = ModelSpec.from_json(metadata[SPEC_KEY])
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error.problem}", error.remedy) from error
    _refuse_outside(path, proto)
    _refuse_nested_functions(path, proto)
    _check_names(path, proto.graph, spec)
    return ModelFile(path, data, proto, spec, digest)


def write_model(proto: onnx.ModelProto, spec: ModelSpec, path: str | Path) -> str:
    """Writes a model with its spec, sealed, whole or not at all.

    Args:
        proto: the model; its own metadata is kept, spec and digest are replaced in place.
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


def file_bytes(path: Path) -> bytes:
    """What is in a file that may be a model.

    Raises:
        ModelFileError: there is none, or it is too large to be one.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be read for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise ModelFileError(f"{path} is {kind}", "name the ONNX file itself")
        if status.st_size > SIZE_LIMIT:
            raise ModelFileError(
                f"{path} has {status.st_size} bytes, an ONNX file at most {SIZE_LIMIT}", "check the path"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", remedy_for_path(path)) from error
    except ValueError as error:  # a path with a null character
        raise ModelFileError(f"cannot read {str(path)!a}: {error}", "check the path") from error


def _refuse_lookalikes(path: Path, data: bytes) -> None:
    head = data[:256].lstrip().lower()
    if not data:
        raise ModelFileError(f"{path} is empty", "copy or export it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path} is a Git LFS pointer, not the model itself", "run `git lfs pull`")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelFileError(f"{path} is a web page, not a model", "download the file itself")


def _check_seal(path: Path, data: bytes) -> str:
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
    return digest.hexdigest()


def _refuse_unsealed(path: Path, data: bytes) -> NoReturn:
    proto, metadata = parse_model(path, data)
    if not metadata.keys() & {SPEC_KEY, DIGEST_KEY}:
        known = f"it was written by {proto.producer_name[:80]!a}" if proto.producer_name else "it names no producer"
        raise ModelFileError(
            f"{path} holds no edgemask model: {known} and has no {SPEC_KEY} metadata",
            "export the PyTorch model with `edgemask export`",
        )
    found = f"the digest {metadata[DIGEST_KEY][:80]!a}" if DIGEST_KEY in metadata else "no digest"
    raise ModelFileError(
        f"{path} is not sealed: it has {found}, expected one of {len(_BLANK)} digits",
        "copy or export it again; other tools must not rewrite it",
    )


def parse_model(path: Path, data: bytes) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model and its metadata, unchecked; of a key that comes twice, the last value, as ONNX Runtime takes it.

    Raises:
        ModelFileError: no ONNX, or with names that are no text.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        is_text = all(isinstance(word, str) for message in _messages(proto) for word in _texts(message))
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{path} is no ONNX model, or a truncated one: {error}", "copy or export it again"
        ) from error
    if not is_text:  # of a format this old, protobuf gives such names as bytes, and libraries take them for names
        raise ModelFileError(f"{path} is no ONNX model: it has names that are not UTF-8", "copy or export it again")
    return proto, {entry.key: entry.value for entry in proto.metadata_props}


def _refuse_outside(path: Path, proto: onnx.ModelProto) -> None:
    """A model brings everything along, and only operators that the runtimes know."""
    foreign: set[str] = set()
    for message in _messages(proto):
        if isinstance(message, onnx.NodeProto):
            foreign |= {message.domain} - DOMAINS
        elif isinstance(message, onnx.TensorProto) and (
            message.data_location == onnx.TensorProto.EXTERNAL or message.external_data
        ):
            raise ModelFileError(f"{path} keeps weights in other files", "export it again: one file holds everything")
    if foreign:
        raise ModelFileError(
            f"{path} uses operators of {_listed(foreign)}", "only ONNX's and edgemask's own operators are run"
        )


def _refuse_nested_functions(path: Path, proto: onnx.ModelProto) -> None:
    """Runtimes put bodies in place of calls without end: recursion crashes them, and calls in a row fill the memory."""
    bodies = {(_domain(function.domain), function.name) for function in proto.functions}
    inside = (message for function in proto.functions for message in _messages(function))
    calls = {(_domain(node.domain), node.op_type) for node in inside if isinstance(node, onnx.NodeProto)}
    if nested := bodies & calls:
        names = _listed(name for _, name in nested)
        raise ModelFileError(f"{path} has functions that call functions: {names}", "export it again: ours call none")


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(ascii(name[:80]) for name in names))


def _messages(root: Message) -> Iterator[Message]:
    """A protobuf message and all within it, at any depth: graphs of graphs, tensors of attributes, bodies, training."""
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting += [value] if isinstance(value, Message) else value


def _texts(message: Message) -> Iterator[str | bytes]:
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value


def graph_inputs(spec: ModelSpec) -> tuple[str, ...]:
    """Names of what the graph of a model takes, in order."""
    return ("images", "image_sizes", *(["proposals"] if spec.proposals == "input" else []))


def graph_outputs(spec: ModelSpec) -> tuple[str, ...]:
    """Names of what the graph of a model gives, in order."""
    if "semantic" in spec.tasks:
        return ("labels", "scores")
    first = "batch_index" if spec.outputs == "flat" else "num_detections"
    further = {"masks": "masks", "keypoints": "keypoint_heatmaps"}
    return (first, "boxes", "scores", "labels", *(name for task, name in further.items() if task in spec.tasks))


def _check_names(path: Path, graph: onnx.GraphProto, spec: ModelSpec) -> None:
    sides = (("takes", graph_inputs(spec), graph.input), ("gives", graph_outputs(spec), graph.output))
    for verb, expected, values in sides:
        missing = sorted(set(expected) - {value.name for value in values})
        if missing:
            raise ModelFileError(f"the graph of {path} {verb} no {', '.join(missing)}", "export the model again")
