"""Where a model really runs: which node on which device, in which arithmetic, with how much of the time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgemask.runtimes.profiles import COPY, ENGINE, LAYOUT, NodeRun
from edgemask.spec import ModelSpec

_OTHER = "others"
# Arithmetic that a file of a precision asks of its heavy nodes, beside float32.
_OF_FILES = {"fp32": (), "fp16": ("float16",), "int8": ("int8",)}
_INDICES = ("int32", "int64", "I32", "I64", "i32", "i64")  # TopK and NMS take them too, and round nothing
_OF_OPTIONS = {"bf16": ("bfloat16",), "fp16": ("float16",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Nodes of one kind in one run.

    Attributes:
        operator: the heavy operator whose work they do, `copy`, `layout` or `others`.
        provider: what ran them: a provider of ONNX Runtime, a device of OpenVINO.
        arithmetic: types that they computed in; empty where the library does not tell, or it does not matter.
        nodes: how many.
        milliseconds: of all of them together.
        share: of the run's time, 0 to 1.
        bytes: what they moved, of copies.
    """

    operator: str
    provider: str
    arithmetic: str
    nodes: int
    milliseconds: float
    share: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlacement:
    """Where a model ran.

    Attributes:
        device: the device that it was opened on.
        promised: providers on which the heavy nodes have to be.
        precision: of the file.
        image: what it was run on.
        providers: nodes and time by provider.
        operators: the same by heavy operator, provider and arithmetic, and the rest.
        problems: what is not as promised, in sentences; none where all is well.
        notes: what else a reader should know.
    """

    device: str
    promised: tuple[str, ...]
    precision: str
    image: str
    providers: tuple[Share, ...]
    operators: tuple[Share, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every heavy node is where it was promised, in the arithmetic that was asked for."""
        return not self.problems


def placement_of(
    nodes: Sequence[NodeRun],
    *,
    device: str,
    promised: Sequence[str],
    strays: Iterable[str],
    spec: ModelSpec,
    heavy: bool,
    precision: str,
    image: str,
) -> DevicePlacement:
    """What the nodes of one run come to.

    Args:
        nodes: of the run.
        device: the device that the model was opened on.
        promised: providers on which the heavy nodes have to be.
        strays: heavy nodes that the library assigned elsewhere, in words.
        spec: of the model.
        heavy: whether the graph has heavy nodes.
        precision: of `RuntimeOptions`.
        image: what it was run on.
    """
    total = sum(node.microseconds for node in nodes) or 1.0
    elsewhere = dict.fromkeys(strays)
    told = [node for node in nodes if node.heavy]
    for share in _shares([node for node in told if node.provider not in promised], total):
        elsewhere[f"{share.nodes} {share.operator} on {share.provider}"] = None
    problems = [f"not on {device}: {stray}" for stray in elsewhere]
    wanted = {"float32", "", *_INDICES, *_OF_FILES[spec.precision], *_OF_OPTIONS.get(precision, ())}
    if heavy and not told and not _engines(nodes):
        problems.append("the library tells of none of the graph's heavy nodes")
    unasked = _shares([node for node in told if node.arithmetic not in wanted], total)
    problems += [f"{share.nodes} {share.operator} in {share.arithmetic}, which nobody asked for" for share in unasked]
    return DevicePlacement(
        device=device,
        promised=tuple(promised),
        precision=spec.precision,
        image=image,
        providers=_by_provider(nodes, total),
        operators=_shares(nodes, total),
        problems=tuple(problems),
        notes=tuple(_notes(nodes, told, spec, precision)),
    )


def _shares(nodes: Sequence[NodeRun], total: float) -> tuple[Share, ...]:
    """By operator, provider and arithmetic, the slowest first; the rest by provider alone."""
    groups: dict[tuple[str, str, str], list[NodeRun]] = {}
    for node in nodes:
        operator = node.heavy or node.kind or _OTHER
        key = (operator, node.provider, node.arithmetic if node.heavy else "")
        groups.setdefault(key, []).append(node)
    shares = [_share(*key, group, total) for key, group in groups.items()]
    return tuple(sorted(shares, key=lambda share: -share.milliseconds))


def _by_provider(nodes: Sequence[NodeRun], total: float) -> tuple[Share, ...]:
    names = dict.fromkeys(node.provider for node in nodes)
    shares = [_share("", name, "", [node for node in nodes if node.provider == name], total) for name in names]
    return tuple(sorted(shares, key=lambda share: -share.milliseconds))


def _share(operator: str, provider: str, arithmetic: str, nodes: Sequence[NodeRun], total: float) -> Share:
    time = sum(node.microseconds for node in nodes)
    return Share(
        operator=operator,
        provider=provider,
        arithmetic=arithmetic,
        nodes=len(nodes),
        milliseconds=time / 1000,
        share=time / total,
        bytes=sum(node.bytes for node in nodes),
    )


def _notes(nodes: Sequence[NodeRun], heavy: Sequence[NodeRun], spec: ModelSpec, precision: str) -> Iterable[str]:
    types = {node.arithmetic for node in heavy}
    missing = [name for name in _OF_FILES[spec.precision] if name not in types]
    hidden = _engines(nodes) or "" in types
    if missing and not hidden:
        yield f"the file is {spec.precision}, yet nothing heavy is computed in {missing[0]} here"
    if precision == "tf32":
        yield "float32 on this device is TF32, as asked"
    copies = sum(node.kind == COPY for node in nodes)
    if copies:
        yield f"{copies} copies between devices in each run"
    layouts = sum(node.kind == LAYOUT for node in nodes)
    if layouts:
        yield f"{layouts} changes of layout in each run"
    if hidden:
        yield "what TensorRT does inside an engine is not told: neither its operators nor their arithmetic"


def _engines(nodes: Sequence[NodeRun]) -> bool:
    return any(node.operator.startswith(ENGINE) for node in nodes)
