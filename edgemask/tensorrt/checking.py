"""Which nodes of a graph TensorRT's ONNX parser takes: read from its documents, never run.

`SUPPORT` holds the facts of `docs/operators.md` of onnx/onnx-tensorrt for TensorRT 10.15 (op sets 9 to 24), in
words of our own. What it and `edgemask.tensorrt.rules` know beyond that table is from the parser's source and
changelog up to 10.6, NVIDIA's operator pages of TensorRT 10 and the source of the plugin `ROIAlign_TRT`. Nothing
here was verified on a device: the engine builder has the last word, on data types and shapes above all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgemask.checks import printable
from edgemask.errors import ModelFileError
from edgemask.tensorrt.rules import RULES, VERDICTS, Finding, Verdict, data_types
from edgemask.tensorrt.scope import STANDARD_DOMAINS, Scope, inferred

if TYPE_CHECKING:
    import onnx

    Functions = Mapping[tuple[str, str], onnx.FunctionProto]

SOURCE = "onnx-tensorrt's operator table of TensorRT 10.15, not TensorRT itself: unverified"
OPSETS = range(9, 25)
_WORDS_LIMIT = 300  # of what a library says of a graph

JETPACK_NOTES = (
    "Nothing of this was run on TensorRT: the table and the sources of its parser were read, the builder decides.",
    "JetPack 6.1 and 6.2 carry TensorRT 10.3: later are tensor axes of Pad (10.4), Hann, Hamming and Blackman "
    "windows (10.4) and STFT (10.5).",
    "JetPack 6.0 carries TensorRT 8.6, made for op sets up to 17: it reads INT64 as INT32, knows no local functions, "
    "and op set 18 is beyond it.",
    "JetPack 5.1 carries TensorRT 8.5, the first with RoiAlign, NonZero, Mod and OneHot; K of TopK must be a constant. "
    "JetPack 5.0 carries 8.4, which has none of these and pads what NonMaxSuppression gives.",
    "JetPack 4.6 carries TensorRT 8.2 or 8.0, made for op sets up to 13: a Mask R-CNN of edgemask does not run there.",
    "ONNX Runtime's CUDA wheels before spring 2026 have no kernel for RoiAlign of op set 16 and run it on the CPU.",
)


@dataclass(frozen=True, slots=True)
class Support:
    """An operator that TensorRT's parser takes.

    Attributes:
        types: data types of its data inputs, as in `onnx.TensorProto`.
        note: what holds for every node of it; None where nothing does, or where a rule looks at the node.
    """

    types: frozenset[str]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What TensorRT's parser would make of one node.

    Attributes:
        node: its name, or its first output's; inside a function or a branch after the node that holds it and a slash.
        operator: its type, after the domain where that is not ONNX's own.
        verdict: `runs`; `restricted`, under a condition that `reason` names; `refused`.
        reason: sentences, one for each finding; empty where the node runs.
    """

    node: str
    operator: str
    verdict: Verdict
    reason: str


_HALF = "FLOAT FLOAT16"
_FLOAT = f"{_HALF} BFLOAT16"
_NUMBER = f"{_FLOAT} INT32 INT64"
_ANY = f"{_NUMBER} BOOL"

# By data types. The source of 10.6 takes more than the table says for Equal (BOOL), NonZero (all but UINT8) and
# Constant (INT8, which zero points are).
_BY_TYPES = {
    _HALF: "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression RoiAlign",
    _FLOAT: "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos "
    "Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
    "GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM LayerNormalization "
    "LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu QuantizeLinear "
    "RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize "
    "RotaryEmbedding Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu "
    "Upsample",
    _NUMBER: "Abs Add ArgMax ArgMin DepthToSpace Div Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul Neg "
    "Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK",
    _ANY: "Concat Equal Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape "
    "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    f"{_ANY} INT8": "NonZero",
    f"{_ANY} UINT8": "Cast CastLike",
    f"{_ANY} INT8 FLOAT8E4M3FN FLOAT4E2M1 INT4": "Constant",
    f"{_ANY} FLOAT8E4M3FN FLOAT4E2M1 INT4": "ConstantOfShape",
    f"{_NUMBER} INT8": "Gelu",
    f"{_NUMBER} FLOAT8E4M3FN": "Mean",
    f"{_FLOAT} INT8 FLOAT8E4M3FN": "Attention",
    f"{_FLOAT} INT32": "TensorScatter",
    "INT8 FLOAT8E4M3FN FLOAT4E2M1 INT4": "DequantizeLinear",
    "FLOAT": "STFT",
    "BOOL": "And Not Or Xor",
}
_SEED = "the seed is not followed"
_DIRECTIONS = "a bidirectional one needs the same activations in both directions"
_NOTES = {
    "Attention": "4-D query, key and value, without past, present and soft cap",
    "CumSum": "becomes a loop with a step for each element",
    "DeformConv": "one or two spatial dimensions, padded alike at both ends",
    "Dropout": "outside training only",
    "EyeLike": "the input's shape must be fixed",
    "GRU": _DIRECTIONS,
    "GridSample": "4-D input only",
    "Hardmax": "the axis must have a fixed length",
    "If": "both branches must give outputs of the same rank and of different names",
    "LSTM": f"{_DIRECTIONS}; no coupled input and forget gate, layout 0",
    "Loop": "scan outputs of a length known beforehand, carried values of one shape",
    "NonMaxSuppression": "a data-dependent shape: rows are counted at run time, ties have no set order, and at most "
    "5,000 candidates of an image are looked at, over all classes",
    "NonZero": "a data-dependent shape: rows are counted at run time",
    "RNN": _DIRECTIONS,
    "RandomNormal": _SEED,
    "RandomNormalLike": _SEED,
    "RandomUniform": _SEED,
    "RandomUniformLike": _SEED,
    "RotaryEmbedding": "positions as INT64",
    "STFT": "real input, constant step and window",
    "Scan": "becomes a loop",
    "TensorScatter": "4-D cache and update, axis -2",
}

SUPPORT: Mapping[str, Support] = MappingProxyType(
    {
        operator: Support(frozenset(types.split()), _NOTES.get(operator))
        for types, operators in _BY_TYPES.items()
        for operator in operators.split()
    }
)


def check_tensorrt(proto: "onnx.ModelProto") -> tuple[NodeCheck, ...]:
    """Returns a record for each node that TensorRT's parser would meet, in the graph's order.

    A local function gives a record for its call and one for each node of its body, at every call, since the
    attributes of the call decide. Data types and shapes are those that ONNX's shape inference finds; what it
    leaves open is not held against a node. Unverified: see `SOURCE`.

    Args:
        proto: any ONNX model; it is not changed.

    Raises:
        ModelFileError: the graph is not one that ONNX can follow.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    opset = next((entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS), 0)
    try:
        model = inferred(proto)
        return tuple(_check_nodes(model.graph.node, Scope(opset, [model.graph]), functions, ""))
    except ModelFileError:
        raise
    except Exception as error:  # a node without its inputs, a type that nobody knows, a tensor cut short ...
        words = printable(str(error))[:_WORDS_LIMIT] or type(error).__name__
        raise ModelFileError(f"the graph cannot be followed: {words}", "export the model again") from error


def _check_nodes(
    nodes: "Sequence[onnx.NodeProto]", scope: Scope, functions: "Functions", prefix: str
) -> Iterator[NodeCheck]:
    for node in nodes:
        name = prefix + (node.name or next(filter(None, node.output), ""))
        standard = node.domain in STANDARD_DOMAINS
        function = functions.get((node.domain, node.op_type))
        findings = list(_findings(node, scope) if standard else _foreign(node, function is not None))
        yield NodeCheck(
            node=name,
            operator=node.op_type if standard else f"{node.domain}.{node.op_type}",
            verdict=max((verdict for verdict, _ in findings), key=VERDICTS.index, default="runs"),
            reason="; ".join(reason for _, reason in findings),
        )
        if function is not None:
            body = scope.called(node, function)
            yield from _check_nodes(body.nodes, body, functions, f"{name}/{function.name}/")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _check_nodes(attribute.g.node, scope.inner(attribute.g), functions, f"{name}/")


def _foreign(node: "onnx.NodeProto", local: bool) -> Iterator[Finding]:
    remedy = "edgemask export --target tensorrt writes standard operators instead"
    if local:
        yield (
            "restricted",
            "a local function: TensorRT reads these since 9.0, and takes a tensor that already has the name of one of "
            f"the function's inputs for that input; {remedy}",
        )
    else:
        yield "refused", f"of the domain {node.domain}, which only a plugin of TensorRT could answer; {remedy}"


def _findings(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    support = SUPPORT.get(node.op_type)
    if support is None:
        yield "refused", "not among the operators of TensorRT's parser"
        return
    if scope.opset not in OPSETS:
        yield "refused", f"of op set {scope.opset}; the parser reads {OPSETS[0]} to {OPSETS[-1]}"
        return
    for kind in sorted(data_types(node, scope) - support.types):
        if kind == "DOUBLE" and "FLOAT" in support.types:
            yield "restricted", "DOUBLE is computed as FLOAT"
        else:
            yield "refused", f"{kind} is not among its data types"
    if support.note is not None:
        yield "restricted", support.note
    for rule in RULES:
        yield from rule(node, scope)
