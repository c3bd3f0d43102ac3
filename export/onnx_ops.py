"""The two custom ops in ONNX: schemas, bodies of standard operators, and how torch's exporter emits them.

An exported file holds one node for each op, of the domain `edgemask`, and the bodies as local functions.
Every body uses operators of op set 18 only and holds no If, Loop or Sequence. The meaning is that of
`edgemask.ops`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import onnx
from onnx.defs import OpSchema

from edgemask.errors import UsageError
from edgemask.ops import (
    DOMAIN,
    DOMAIN_VERSION,
    LEVEL_TOLERANCE,
    MAX_CANONICAL_LEVEL,
    MAX_LEVELS,
    floor32,
)
from edgemask.runtimes.functions import inline_functions

BODY_OPSET = 18
MIN_IR_VERSION = 8  # the first with local functions
ROI_ALIGN, NMS = "MultiScaleRoiAlign_L", "BatchedNms"

_INT, _FLOAT, _FLOATS, _STRING = (
    OpSchema.AttrType.INT,
    OpSchema.AttrType.FLOAT,
    OpSchema.AttrType.FLOATS,
    OpSchema.AttrType.STRING,
)
_ROI_ALIGN_ATTRIBUTES = {
    "output_height": _INT,
    "output_width": _INT,
    "sampling_ratio": _INT,
    "coordinate_transformation_mode": _STRING,
    "spatial_scales": _FLOATS,
    "canonical_scale": _FLOAT,
    "canonical_level": _INT,
}
_NMS_ATTRIBUTES = {"iou_threshold": _FLOAT, "score_threshold": _FLOAT, "max_per_class": _INT}

# Corners and area are computed as edgemask.ops does, in float32, in this order: the level of a roi is the
# same bit.
_ROI_ALIGN_HEAD = """
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    head_and_box = Constant <value_ints = [1, 4]> ()
    batch_column, boxes = Split <axis = 1> (rois, head_and_box)
    batch_float = Squeeze (batch_column, one)
    batch = Cast <to = 7> (batch_float)
    scales = Constant <value_floats: floats = @spatial_scales> ()
"""
_ROI_ALIGN_LEVELS = """
    coarser = Constant <value_ints = [{coarser}]> ()
    coarser_scales = Gather (scales, coarser)
    powers_of_two = Constant <value_floats = [{powers}]> ()
    canonical_level_index = Constant <value_int: int = @canonical_level> ()
    canonical_stride = Gather (powers_of_two, canonical_level_index)
    canonical_side = Constant <value_float: float = @canonical_scale> ()
    stride_ratio = Mul (canonical_stride, coarser_scales)
    threshold_side = Div (canonical_side, stride_ratio)
    threshold_area = Mul (threshold_side, threshold_side)
    tolerance = Constant <value_float = {tolerance}> ()
    thresholds = Mul (threshold_area, tolerance)
    upper_left, lower_right = Split <axis = 1, num_outputs = 2> (boxes)
    sides = Sub (lower_right, upper_left)
    width, height = Split <axis = 1, num_outputs = 2> (sides)
    area = Mul (width, height)
    reached = GreaterOrEqual (area, thresholds)
    reached_count = Cast <to = 7> (reached)
    level = ReduceSum <keepdims = 0> (reached_count, one)
    scale = Gather (scales, level)
    scale_column = Unsqueeze (scale, one)
    scaled = Mul (boxes, scale_column)
"""
_ROI_ALIGN_LEVEL = """
    number_{i} = Constant <value_int = {i}> ()
    at_{i} = Equal (level, number_{i})
    positions_{i} = NonZero (at_{i})
    index_{i} = Squeeze (positions_{i}, zero)
    rois_{i} = Gather (scaled, index_{i})
    batch_{i} = Gather (batch, index_{i})
    pooled_{i} = {roi_align} (level_{i}, rois_{i}, batch_{i})
"""
# The parts stand in the order of the levels; scattering 0, 1, … to `order` inverts that permutation.
_ROI_ALIGN_MERGE = """
    order = Concat <axis = 0> ({indices})
    parts = Concat <axis = 0> ({parts})
    start = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    end_vector = Shape (order)
    end = Squeeze (end_vector, zero)
    ascending = Range (start, end, step)
    place = ScatterElements <axis = 0> (order, order, ascending)
    pooled = Gather (parts, place)
"""
_ROI_ALIGN_CALL = """RoiAlign <
        mode = "avg", spatial_scale = 1.0,
        output_height: int = @output_height, output_width: int = @output_width,
        sampling_ratio: int = @sampling_ratio,
        coordinate_transformation_mode: string = @coordinate_transformation_mode>"""
_NMS_BODY = """
    limit = Constant <value_int: int = @max_per_class> ()
    overlap = Constant <value_float: float = @iou_threshold> ()
    lowest = Constant <value_float: float = @score_threshold> ()
    selected = NonMaxSuppression <center_point_box = 0> (boxes, scores, limit, overlap, lowest)
"""


def _function(
    name: str, attributes: Sequence[str], inputs: Sequence[str], output: str, body: str
) -> onnx.FunctionProto:
    return onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["": {BODY_OPSET}]>\n'
        f"{name} <{', '.join(attributes)}> ({', '.join(inputs)}) => ({output}) {{{body}}}"
    )


def roi_align_function(levels: int) -> onnx.FunctionProto:
    """Return the body of `MultiScaleRoiAlign_L{levels}`: for each level a RoiAlign of its rois."""
    names = [f"level_{level}" for level in range(levels)]
    if levels == 1:
        body = "scaled = Mul (boxes, scales)\n" + f"pooled = {_ROI_ALIGN_CALL} (level_0, scaled, batch)"
    else:
        body = _ROI_ALIGN_LEVELS.format(
            coarser=", ".join(str(level) for level in range(1, levels)),
            powers=", ".join(f"{2.0**level}" for level in range(MAX_CANONICAL_LEVEL + 1)),
            tolerance=repr(float(LEVEL_TOLERANCE)),
        )
        body += "".join(_ROI_ALIGN_LEVEL.format(i=level, roi_align=_ROI_ALIGN_CALL) for level in range(levels))
        body += _ROI_ALIGN_MERGE.format(
            indices=", ".join(f"index_{level}" for level in range(levels)),
            parts=", ".join(f"pooled_{level}" for level in range(levels)),
        )
    return _function(
        f"{ROI_ALIGN}{levels}",
        list(_ROI_ALIGN_ATTRIBUTES),
        [*names, "rois"],
        "pooled",
        _ROI_ALIGN_HEAD + body,
    )


def nms_function() -> onnx.FunctionProto:
    """Return the body of `BatchedNms`: one NonMaxSuppression."""
    return _function(NMS, list(_NMS_ATTRIBUTES), ["boxes", "scores"], "selected", _NMS_BODY)


def _schemas() -> list[OpSchema]:
    def schema(name: str, inputs: Sequence[str], output: str, kind: str, attributes: dict[str, Any]) -> OpSchema:
        return OpSchema(
            name,
            DOMAIN,
            DOMAIN_VERSION,
            f"edgemask.ops defines it; its body is the local function {name}.",
            inputs=[OpSchema.FormalParameter(parameter, "tensor(float)") for parameter in inputs],
            outputs=[OpSchema.FormalParameter(output, kind)],
            attributes=[OpSchema.Attribute(key, value, required=True) for key, value in attributes.items()],
        )

    return [
        schema(NMS, ["boxes", "scores"], "selected", "tensor(int64)", _NMS_ATTRIBUTES),
        *(
            schema(
                f"{ROI_ALIGN}{levels}",
                [*(f"level_{level}" for level in range(levels)), "rois"],
                "pooled",
                "tensor(float)",
                _ROI_ALIGN_ATTRIBUTES,
            )
            for levels in range(1, MAX_LEVELS + 1)
        ),
    ]


def custom_translation_table() -> dict[Any, Callable[..., Any]]:
    """Return what `torch.onnx.export(dynamo=True, custom_translation_table=…)` needs to emit the two ops.

    `iou_threshold` is written as its `floor32`. The exporter writes the nodes and their domain, but no bodies:
    append `local_functions(model)`.
    """
    import torch
    from onnxscript.values import Op, Opset

    import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask

    opset = Opset(DOMAIN, DOMAIN_VERSION)
    ops = {schema.name: Op(opset, schema.name, schema) for schema in _schemas()}

    def multi_scale_roi_align(
        features: Sequence[Any],
        rois: Any,
        output_height: int,
        output_width: int,
        sampling_ratio: int,
        spatial_scales: Sequence[float],
        canonical_scale: float,
        canonical_level: int,
        coordinate_transformation_mode: str,
    ) -> Any:
        return ops[f"{ROI_ALIGN}{len(features)}"](
            *features,
            rois,
            output_height=output_height,
            output_width=output_width,
            sampling_ratio=sampling_ratio,
            coordinate_transformation_mode=coordinate_transformation_mode,
            spatial_scales=[float(scale) for scale in spatial_scales],
            canonical_scale=float(canonical_scale),
            canonical_level=canonical_level,
        )

    def batched_nms(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, max_per_class: int) -> Any:
        return ops[NMS](
            boxes,
            scores,
            iou_threshold=floor32(iou_threshold),
            score_threshold=float(score_threshold),
            max_per_class=max_per_class,
        )

    return {
        torch.ops.edgemask.multi_scale_roi_align.default: multi_scale_roi_align,
        torch.ops.edgemask.batched_nms.default: batched_nms,
    }


def local_functions(model: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """Return the bodies of those ops that the nodes of `model` use, to be appended to `model.functions`.

    Raises:
        UsageError: the model holds a node of our domain that we do not define, or its op set is not that of
            the bodies.
    """
    builders: dict[str, Callable[[], onnx.FunctionProto]] = {NMS: nms_function}
    for levels in range(1, MAX_LEVELS + 1):
        builders[f"{ROI_ALIGN}{levels}"] = partial(roi_align_function, levels)
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    unknown = [name for name in used if name not in builders]
    if unknown:
        raise UsageError(f"the graph uses {', '.join(unknown)} of the domain {DOMAIN}", "export it with this version")
    versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if used and versions != {BODY_OPSET}:
        raise UsageError(f"the graph uses op set {sorted(versions)}", f"export it with opset_version={BODY_OPSET}")
    return [builders[name]() for name in used]


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with standard operators in place of every node of our domain, its functions in it or not.

    Raises:
        UsageError: as `local_functions`.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    present = {(function.domain, function.name) for function in whole.functions}
    bodies = [body for body in local_functions(model) if (body.domain, body.name) not in present]
    whole.functions.extend(bodies)
    return inline_functions(whole)
