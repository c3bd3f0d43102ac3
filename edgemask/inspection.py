"""What is in a model file: the record behind `edgemask inspect`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.checks import did_you_mean
from edgemask.errors import DependencyMissing, ModelFileError, UsageError
from edgemask.spec import DIGEST_KEY, SPEC_KEY, ModelSpec
from edgemask.tensorrt import JETPACK_NOTES, SOURCE, NodeCheck, check_tensorrt

if TYPE_CHECKING:
    import onnx

    from edgemask.runtimes import RuntimeOptions
    from edgemask.runtimes.placement import DevicePlacement


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of the graph; an entry of its shape is a number, or the name of a dimension left open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


TARGETS = ("tensorrt",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheck:
    """What another engine's parser would make of a graph, as far as its documents tell.

    Attributes:
        target: the engine, one of `TARGETS`.
        source: what the graph was held against.
        operators: how many nodes of each operator run, are restricted, are refused; the most refused first. Nodes
            inside local functions count at every call.
        nodes: those restricted or refused, in the graph's order.
        notes: what holds for devices and releases.
    """

    target: str
    source: str
    operators: dict[str, dict[str, int]]
    nodes: tuple[NodeCheck, ...]
    notes: tuple[str, ...]

    @property
    def refused(self) -> tuple[NodeCheck, ...]:
        """The nodes that would not run."""
        return tuple(check for check in self.nodes if check.verdict == "refused")


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
        target: what was asked about another engine; None where nothing was.
        placement: where the model runs on a device; None where none was asked for.
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
    target: TargetCheck | None = None
    placement: "DevicePlacement | None" = None


def inspect_model(
    path: str | Path,
    target: str | None = None,
    *,
    device: str | None = None,
    options: "RuntimeOptions | None" = None,
    fallback: bool = False,
) -> Inspection:
    """Reads a model file; a file that was changed since it was written is described too, and not run.

    Args:
        path: an ONNX file written by edgemask.
        target: an engine of `TARGETS`, to be asked which nodes it would take; its documents answer, not itself. It is
            asked about sound files alone.
        device: where to run it on a drawn scene, to see what ran where; see `edgemask.load`. None runs nothing.
        options: how to open it there.
        fallback: as for `edgemask.load`.

    Raises:
        UsageError: another target, or another device.
        DeviceUnavailable: the device cannot run it here.
        ModelFileError: no such file, no ONNX, or nothing of edgemask in it.
        DependencyMissing: onnx is not installed.
    """
    if target is not None and target not in TARGETS:
        remedy = did_you_mean(target, TARGETS, f"expected {' or '.join(TARGETS)}")
        raise UsageError(f"nothing is known of the target {target!r}", remedy)
    try:
        from edgemask.runtimes.modelfile import read_model
    except ImportError as error:
        raise DependencyMissing(f"reading a model file needs {error.name}", "pip install 'edgemask[cpu]'") from error
    path = Path(path)
    try:
        model, problem = read_model(path).proto, None
    except ModelFileError as error:
        if target is not None:  # following functions that call functions has no end
            raise
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
        inputs=tuple(tensor_info(value) for value in graph.input),
        outputs=tuple(tensor_info(value) for value in graph.output),
        nodes=len(graph.node),
        operators=_counted((_operator(node) for node in graph.node), by_count=True),
        stages=_counted(node.name.partition("/")[0] or "unnamed" for node in graph.node),
        functions={f"{function.domain}.{function.name}": len(function.node) for function in model.functions},
        parameters=sum(_size(tensor) for tensor in graph.initializer),
        target=None if target is None else _check_target(model, target),
        placement=None if device is None or problem is not None else _placement(path, device, options, fallback),
    )


def _placement(path: Path, device: str, options: "RuntimeOptions | None", fallback: bool) -> "DevicePlacement":
    from edgemask.runtimes import load

    with load(path, device=device, options=options, fallback=fallback) as detector:
        return detector.placement()


def _check_target(model: "onnx.ModelProto", target: str) -> TargetCheck:
    checks = check_tensorrt(model)
    operators: dict[str, dict[str, int]] = {}
    for check in checks:
        operators.setdefault(check.operator, {"runs": 0, "restricted": 0, "refused": 0})[check.verdict] += 1
    order = sorted(operators.items(), key=lambda item: (-item[1]["refused"], -item[1]["restricted"], item[0]))
    return TargetCheck(
        target=target,
        source=SOURCE,
        operators=dict(order),
        nodes=tuple(check for check in checks if check.verdict != "runs"),
        notes=JETPACK_NOTES,
    )


def _read_unsound(path: Path, error: ModelFileError) -> "onnx.ModelProto":
    """Parses a file that `read_model` refused; raises its error where there is nothing to describe."""
    from edgemask.runtimes.modelfile import file_bytes, parse_model

    try:
        model, metadata = parse_model(path, file_bytes(path))
    except ModelFileError:
        raise error from None
    if SPEC_KEY not in metadata:
        raise error
    return model


def _operator(node: "onnx.NodeProto") -> str:
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _counted(words: Iterable[str], *, by_count: bool = False) -> dict[str, int]:
    counts: Mapping[str, int] = Counter(words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))) if by_count else dict(counts)


def tensor_info(value: "onnx.ValueInfoProto") -> TensorInfo:
    """Name, type and shape of an input or output."""
    import onnx

    kind = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else side.dim_param or "?" for side in kind.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:
        dtype = f"type {kind.elem_type}"
    return TensorInfo(value.name, dtype, shape)


def _size(tensor: "onnx.TensorProto") -> int:
    count = 1
    for side in tensor.dims:
        count *= side
    return count
