"""What is in a model file: the record behind `edgemask inspect`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.errors import DependencyMissing, ModelFileError
from edgemask.spec import DIGEST_KEY, SPEC_KEY, ModelSpec

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of the graph; an entry of its shape is a number, or the name of a dimension left open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is in a model file.

    Attributes:
        path: the file.
        bytes: its size.
        sound: whether the digest fits the contents and nothing in the file comes from outside.
        problem: what is wrong with it, in a sentence; None where it is sound.
        digest: SHA-256 that the file holds of itself, hexadecimal.
        spec: what the file says about itself.
        ir_version: version of the ONNX format.
        opsets: version of each operator set, by domain; the standard one is `ai.onnx`.
        producer: program that wrote the graph.
        inputs: of the graph.
        outputs: of the graph.
        nodes: operators in the graph, a local function as one.
        operators: how many of each operator type, the most frequent first.
        stages: how many of each stage, in the graph's order; a node's name starts with its stage.
        functions: operators inside each local function.
        parameters: numbers stored as weights and constants.
    """

    path: str
    bytes: int
    sound: bool
    problem: str | None
    digest: str | None
    spec: ModelSpec
    ir_version: int
    opsets: dict[str, int]
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: dict[str, int]
    stages: dict[str, int]
    functions: dict[str, int]
    parameters: int


def inspect_model(path: str | Path) -> Inspection:
    """Reads a model file without running it; a file that was changed since it was written is described too.

    Args:
        path: an ONNX file written by edgemask.

    Raises:
        ModelFileError: no such file, no ONNX, or nothing of edgemask in it.
        DependencyMissing: onnx is not installed.
    """
    try:
        from edgemask.runtimes.modelfile import read_model
    except ImportError as error:
        raise DependencyMissing(f"reading a model file needs {error.name}", "pip install 'edgemask[cpu]'") from error
    path = Path(path)
    try:
        model, problem = read_model(path).proto, None
    except ModelFileError as error:
        model, problem = _read_unsound(path, error), error.problem
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    graph = model.graph
    return Inspection(
        path=str(path),
        bytes=path.stat().st_size,
        sound=problem is None,
        problem=problem,
        digest=metadata.get(DIGEST_KEY),
        spec=ModelSpec.from_json(metadata[SPEC_KEY]),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_tensor(value) for value in graph.input),
        outputs=tuple(_tensor(value) for value in graph.output),
        nodes=len(graph.node),
        operators=_counted((_operator(node) for node in graph.node), by_count=True),
        stages=_counted(node.name.partition("/")[0] or "unnamed" for node in graph.node),
        functions={f"{function.domain}.{function.name}": len(function.node) for function in model.functions},
        parameters=sum(_size(tensor) for tensor in graph.initializer),
    )


def _read_unsound(path: Path, error: ModelFileError) -> "onnx.ModelProto":
    """Parses a file that `read_model` refused; raises its error where there is nothing to describe."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError):
        raise error from None
    if all(entry.key != SPEC_KEY for entry in model.metadata_props):
        raise error
    return model


def _operator(node: "onnx.NodeProto") -> str:
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _counted(words: Iterable[str], *, by_count: bool = False) -> dict[str, int]:
    counts: Mapping[str, int] = Counter(words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))) if by_count else dict(counts)


def _tensor(value: "onnx.ValueInfoProto") -> TensorInfo:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else side.dim_param or "?" for side in kind.shape.dim)
    return TensorInfo(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)


def _size(tensor: "onnx.TensorProto") -> int:
    count = 1
    for side in tensor.dims:
        count *= side
    return count
