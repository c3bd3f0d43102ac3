"""The two custom ops in ONNX: schemas, bodies of standard operators, and how torch's exporter emits them.

An exported file holds one node for each op, of the domain `edgemask`, and the bodies as local functions.
Every body (`edgemask.export.onnx_bodies`) uses operators of op set 18 only and holds no If, Loop or Sequence. The
meaning is that of `edgemask.ops`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import onnx
from onnx.defs import OpSchema

from edgemask.errors import UsageError
from edgemask.export.onnx_bodies import NMS_BODY, roi_align_body
from edgemask.ops import DOMAIN, DOMAIN_VERSION, MAX_LEVELS, floor32
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


def _function(
    name: str, attributes: Sequence[str], inputs: Sequence[str], output: str, body: str
) -> onnx.FunctionProto:
    return onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["": {BODY_OPSET}]>\n'
        f"{name} <{', '.join(attributes)}> ({', '.join(inputs)}) => ({output}) {{{body}}}"
    )


def roi_align_function(levels: int, static: bool = False) -> onnx.FunctionProto:
    """Return the body of `MultiScaleRoiAlign_L{levels}`.

    Args:
        levels: of the pyramid, 1 to `MAX_LEVELS`.
        static: every level pools every roi and the roi's own level is chosen, so that no shape depends on data
            and nothing is gathered by data: for compilers such as TensorRT's. Otherwise each level pools its own
            rois only, which is several times less work. With one level there is nothing to choose, and both are
            the same.
    """
    return _function(
        f"{ROI_ALIGN}{levels}",
        list(_ROI_ALIGN_ATTRIBUTES),
        [*(f"level_{level}" for level in range(levels)), "rois"],
        "pooled",
        roi_align_body(levels, static=static),
    )


def nms_function() -> onnx.FunctionProto:
    """Return the body of `BatchedNms`: one NonMaxSuppression."""
    return _function(NMS, list(_NMS_ATTRIBUTES), ["boxes", "scores"], "selected", NMS_BODY)


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


def local_functions(model: onnx.ModelProto, static: bool = False) -> list[onnx.FunctionProto]:
    """Return the bodies of those ops that the nodes of `model` use, to be appended to `model.functions`.

    Args:
        model: whose nodes of our domain are looked at.
        static: as for `roi_align_function`; `BatchedNms` has no static body.

    Raises:
        UsageError: the model holds a node of our domain that we do not define, or its op set is not that of
            the bodies.
    """
    builders: dict[str, Callable[[], onnx.FunctionProto]] = {NMS: nms_function}
    for levels in range(1, MAX_LEVELS + 1):
        builders[f"{ROI_ALIGN}{levels}"] = partial(roi_align_function, levels, static)
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    unknown = [name for name in used if name not in builders]
    if unknown:
        raise UsageError(f"the graph uses {', '.join(unknown)} of the domain {DOMAIN}", "export it with this version")
    versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if used and versions != {BODY_OPSET}:
        raise UsageError(f"the graph uses op set {sorted(versions)}", f"export it with opset_version={BODY_OPSET}")
    return [builders[name]() for name in used]


def inline(model: onnx.ModelProto, static: bool = False) -> onnx.ModelProto:
    """Return a copy with standard operators in place of every node of our domain, its functions in it or not.

    Args:
        model: an exported model.
        static: as for `roi_align_function`; bodies of our ops that the model holds are replaced by it.

    Raises:
        UsageError: as `local_functions`.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    if static:
        foreign = [function for function in whole.functions if function.domain != DOMAIN]
        del whole.functions[:]
        whole.functions.extend(foreign)
    present = {(function.domain, function.name) for function in whole.functions}
    bodies = [body for body in local_functions(model, static) if (body.domain, body.name) not in present]
    whole.functions.extend(bodies)
    return inline_functions(whole)
