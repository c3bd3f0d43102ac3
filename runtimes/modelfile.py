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

from edgemask.dependencies import require
from edgemask.errors import ModelFileError
from edgemask.files import creating
from edgemask.spec import DIGEST_KEY, SPEC_KEY, ModelSpec

SIZE_LIMIT = 2**31 - 1  # of a protobuf message
DOMAINS = frozenset({"", "ai.onnx", "edgemask", "com.microsoft"})
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
    data = _read(path)
    _refuse_lookalikes(path, data)
    if data.count(_ENTRY) != 1:
        _refuse_unsealed(path, data)
    digest = _check_seal(path, data)
    proto, metadata = _parse(path, data)
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
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
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
    proto, metadata = _parse(path, data)
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


def _parse(path: Path, data: bytes) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model and its metadata; of a key that comes twice, the last value, as ONNX Runtime takes it."""
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        return proto, {entry.key: entry.value for entry in proto.metadata_props}
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{path} is no ONNX model, or a truncated one: {error}", "copy or export it again"
        ) from error


def _refuse_outside(path: Path, proto: onnx.ModelProto) -> None:
    """A model brings everything along, and only operators that the runtimes know."""
    training = [part for entry in proto.training_info for part in (entry.initialization, entry.algorithm)]
    foreign: set[str] = set()
    for nodes, tensors in _parts([proto.graph, *proto.functions, *training]):
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
            raise ModelFileError(f"{path} keeps weights in other files", "export it again: one file holds everything")
        foreign |= {node.domain for node in nodes} - DOMAINS
    if foreign:
        raise ModelFileError(
            f"{path} uses operators of {_listed(foreign)}", "only ONNX's and edgemask's own operators are run"
        )


def _refuse_nested_functions(path: Path, proto: onnx.ModelProto) -> None:
    """Runtimes put bodies in place of calls without end: recursion crashes them, and calls in a row fill the memory."""
    bodies = {(_domain(function.domain), function.name) for function in proto.functions}
    calls = {(_domain(node.domain), node.op_type) for nodes, _ in _parts(proto.functions) for node in nodes}
    if nested := bodies & calls:
        names = _listed(name for _, name in nested)
        raise ModelFileError(f"{path} has functions that call functions: {names}", "export it again: ours call none")


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(ascii(name[:80]) for name in names))


def _parts(
    roots: Iterable[onnx.GraphProto | onnx.FunctionProto],
) -> Iterator[tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]:
    """Nodes and tensors of graphs and functions, and of every graph within an attribute of theirs."""
    waiting = list(roots)
    while waiting:
        part = waiting.pop()
        tensors: list[onnx.TensorProto] = []
        sparse: list[onnx.SparseTensorProto] = []
        attributes = [attribute for node in part.node for attribute in node.attribute]
        if isinstance(part, onnx.GraphProto):
            tensors += part.initializer
            sparse += part.sparse_initializer
        else:
            attributes += part.attribute_proto
        for attribute in attributes:
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            tensors += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for pair in sparse:
            tensors += [pair.values, pair.indices]
        yield list(part.node), tensors


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
