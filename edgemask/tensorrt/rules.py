"""What TensorRT's ONNX parser asks of single nodes beyond their operator: the rules behind `edgemask.tensorrt`.

Sources as there; unverified, as there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgemask.tensorrt.scope import Scope

if TYPE_CHECKING:
    import onnx

Verdict = Literal["runs", "restricted", "refused"]
Finding = tuple[Verdict, str]

VERDICTS: tuple[Verdict, ...] = ("runs", "restricted", "refused")
MAX_TOP_K = 3840  # entries that TopK can give; NVIDIA/TensorRT issue 2721
MAX_NMS_CANDIDATES = 5000  # 2000 on the oldest devices, of compute capability 5.3 and 6.2

# Inputs that must not be computed, and inputs that decide a shape; by their place.
_CONSTANT_INPUTS = {
    "CumSum": (1,),
    "OneHot": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    **dict.fromkeys(["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"], (1,)),
    **dict.fromkeys(["ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"], (1,)),
}
_SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
_TYPED_BY_OUTPUT = {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike"}
_RESIZE_MODES = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}


def data_types(node: "onnx.NodeProto", scope: Scope) -> set[str]:
    """Returns the known types of a node's data inputs, as its schema names them, indices and the like left out."""
    import onnx

    try:
        formal = onnx.defs.get_schema(node.op_type, scope.opset, "").inputs
    except onnx.defs.SchemaError:
        return set()
    kinds = [parameter.type_str for parameter in formal]
    data = "T" if "T" in kinds else next(iter(kinds), None)
    names = [name for place, name in enumerate(node.input) if kinds[min(place, len(kinds) - 1)] == data]
    if node.op_type in _TYPED_BY_OUTPUT:
        names += node.output
    return {scope.types[name] for name in names if name in scope.types}


def _attribute(node: "onnx.NodeProto", name: str, default: Any = None) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _given(node: "onnx.NodeProto", places: Sequence[int]) -> list[str]:
    return [node.input[place] for place in places if place < len(node.input) and node.input[place]]


def _inputs(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    for name in _given(node, _CONSTANT_INPUTS.get(node.op_type, ())):
        if scope.constant(name) is None:
            yield "refused", f"{name} is computed and must be a constant"
    for name in _given(node, _SHAPE_INPUTS.get(node.op_type, ())):
        if name not in scope.settled:
            yield "restricted", f"a data-dependent shape: {name} does not follow from shapes alone"


def _top_k(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type != "TopK":
        return
    count = scope.constant(node.input[1]) if len(node.input) > 1 else _attribute(node, "k")
    if count is None:
        yield "restricted", f"K is computed, which the parser takes since 8.6; more than {MAX_TOP_K} fails at run time"
    elif int(np.asarray(count).item()) > MAX_TOP_K:
        yield "refused", f"K is {int(np.asarray(count).item())}, more than {MAX_TOP_K}"
    if _attribute(node, "sorted", 1) == 0:
        yield "refused", "unsorted; sorted must be 1"
    rank, axis = len(scope.shapes.get(node.input[0], ())), _attribute(node, "axis", -1)
    if rank and axis % rank < rank - 4:
        yield "refused", f"axis {axis} of {rank}, not one of the last four"


def _nms(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type != "NonMaxSuppression":
        return
    computed = [name for name in _given(node, (2, 3, 4)) if scope.constant(name) is None]
    if computed:
        yield "restricted", f"{', '.join(computed)}: limit and thresholds are known to build as constants only"
    sides = scope.shapes.get(node.input[1], ())[1:]
    candidates = int(np.prod([side or 0 for side in sides])) if sides else 0
    if candidates > MAX_NMS_CANDIDATES:
        counted = f"only the {MAX_NMS_CANDIDATES} best above the score threshold count"
        yield "restricted", f"{candidates} pairs of box and class: {counted}"


def _roi_align(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type != "RoiAlign":
        return
    ratio = _attribute(node, "sampling_ratio")
    if ratio is None:
        yield "restricted", "sampling_ratio is left out: the parser reads 1, ONNX means 0"
    half_pixel = scope.opset >= 16 and _attribute(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel"
    if half_pixel and ratio == 0:
        yield "restricted", "half_pixel with adaptive sampling gives NaN for a roi without width or height"


def _scatter(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type != "ScatterND":
        return
    reduction = _attribute(node, "reduction")
    if reduction not in {None, "none"}:
        yield "refused", f"reduction {reduction}; only none"
    elif reduction is not None:
        yield "restricted", "reduction is written out, which parsers up to 10.6 at least refuse, even as none"


def _resize(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type != "Resize":
        return
    mode = _attribute(node, "coordinate_transformation_mode", "half_pixel")
    if mode not in _RESIZE_MODES:
        yield "refused", f"coordinates {mode}; one of {', '.join(sorted(_RESIZE_MODES))}"
    if _attribute(node, "antialias", 0):
        yield "refused", "antialiasing"
    policy = _attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        yield "refused", f"keep_aspect_ratio_policy {policy}; only stretch"
    if _attribute(node, "mode", "nearest") == "cubic":
        yield "restricted", "cubic: the table names nearest and linear only"


def _window(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type in {"AveragePool", "LpPool", "MaxPool"} and set(_attribute(node, "dilations", [])) - {1}:
        yield "refused", "dilated pooling"
    if node.op_type in {"BatchNormalization", "LayerNormalization", "MaxPool"} and any(node.output[1:]):
        yield "refused", "only the first output is given"
    if node.op_type == "BatchNormalization" and _attribute(node, "training_mode", 0):
        yield "refused", "in training mode"


def _arithmetic(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    if node.op_type == "Pow" and data_types(node, scope) & {"INT32", "INT64"}:
        yield "restricted", "integers, which parsers up to 10.6 at least refuse"


def _quantization(node: "onnx.NodeProto", scope: Scope) -> Iterator[Finding]:
    for name in _given(node, (2,) if node.op_type in {"DequantizeLinear", "QuantizeLinear"} else ()):
        zero_point = scope.constant(name)
        if zero_point is not None and np.any(zero_point):
            yield "refused", "a zero point other than 0"
        elif scope.types.get(name) == "UINT8":
            yield "restricted", "UINT8 is quantized as INT8"


RULES: tuple[Callable[["onnx.NodeProto", Scope], Iterator[Finding]], ...] = (
    _inputs,
    _top_k,
    _nms,
    _roi_align,
    _scatter,
    _resize,
    _window,
    _arithmetic,
    _quantization,
)
