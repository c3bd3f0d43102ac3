"""PyTorch model -> one ONNX file that describes itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
import torchvision
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

import edgemask
from edgemask.description import spec_of, weights_digest
from edgemask.errors import UsageError
from edgemask.export.cleaning import name_inlined
from edgemask.export.graph_module import GraphModule
from edgemask.export.half import PRECISIONS, compute_in_half
from edgemask.export.onnx_ops import inline
from edgemask.export.semantic_graph import SemanticGraph, check_semantic
from edgemask.export.support import check_supported, check_target
from edgemask.export.tracing import build_proto
from edgemask.export.verification import Verification
from edgemask.export.verification import verify as verify_file
from edgemask.files import creating
from edgemask.models import Model
from edgemask.optest import op_records
from edgemask.reference import configured
from edgemask.runtimes import write_model
from edgemask.spec import ModelSpec, class_names_without_background

Canvas = tuple[int, int] | Literal["dynamic"]
Batch = int | Literal["dynamic"]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export_onnx` wrote.

    Attributes:
        path: the file.
        spec: what the file says about itself.
        nodes: operators in the graph, the custom ops as one each.
        bytes: size of the file.
        seconds: time of the export, without verification.
        verification: how the file compares with PyTorch; None if that was not asked for.
    """

    path: str
    spec: ModelSpec
    nodes: int
    bytes: int
    seconds: float
    verification: Verification | None


def export_onnx(
    model: Model,
    path: str | Path,
    *,
    shape: Canvas = "dynamic",
    batch: Batch = 1,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    spec: ModelSpec | None = None,
    target: str = "portable",
    precision: str = "fp32",
    score_threshold: float | None = None,
    max_detections: int | None = None,
    proposals: int | Literal["rpn", "input"] = "rpn",
    verify: bool = True,
) -> ExportReport:
    """Exports a trained torchvision model as one ONNX file and proves it equal to the model.

    Args:
        model: any instance of torchvision's `FasterRCNN`, `MaskRCNN` or `KeypointRCNN` in evaluation mode, or one with
            masks and keypoints; or of its `FCN` or `DeepLabV3`. It is not changed.
        path: the file to write; an existing one is replaced only by a whole new one.
        shape: canvas (H, W) after resize and padding, multiples of 32; images that do not fit it are scaled down
            further. Where it is smaller than the model's own `min_size`, its sides become the limits of the resize.
            "dynamic" takes every image as torchvision resizes it.
        batch: images per run; "dynamic" for any number.
        class_names: names of labels 1 … C-1; None takes those of `spec`, or `class_1 …`.
        category_ids: COCO ids of the labels.
        spec: what is known of the model already, as `load_model` gives it.
        target: "portable" holds the custom ops as ONNX functions; "openvino" has them inlined, to be read by OpenVINO
            without edgemask; "tensorrt" too, and its outputs are padded to `max_detections` rows per image, which
            `num_detections` counts. It needs a fixed canvas and batch.
        precision: "fp32", or "fp16": convolutions and matrix products with float16 weights, computed in float16 where a
            runtime does so (each runtime's class says what it does); boxes, pooling, suppression, probabilities,
            inputs and outputs stay float32.
        score_threshold: replaces the model's own.
        max_detections: replaces the model's own.
        proposals: a number replaces the model's own number of proposals after NMS; "input" leaves the RPN out: boxes
            are given to `Detector.predict` with each image (Fast R-CNN).
        verify: run the file and compare it with PyTorch.

    Returns:
        What was written.

    Raises:
        UnsupportedModel: a part of the model cannot be carried; names it. With "fp16": a weight, or what a layer gives
            for the images that verify the export, lies beyond the range of float16.
        UsageError: an argument that cannot be meant.
        ParityError: the file does not do what the model does; names the first stage that differs.
        OutputError: the file cannot be written.
    """
    started = time.monotonic()
    _check_precision(precision)
    canvas = None if shape == "dynamic" else (int(shape[0]), int(shape[1]))
    limits = {"score_threshold": score_threshold, "max_detections": max_detections} | _of_proposals(proposals)
    limits = {name: value for name, value in limits.items() if value is not None}
    if isinstance(model, GeneralizedRCNN):
        check_supported(model, canvas)
    else:
        check_semantic(model, canvas, limits)
    spec = _renamed(spec or spec_of(model), class_names, category_ids).replace(
        canvas=canvas,
        precision=precision,
        batch=None if batch == "dynamic" else int(batch),
        source_sha256=weights_digest(model),
        versions=_versions(),
        parity=None,
        **limits,
    )
    if canvas is not None and spec.fixed_size is None and min(canvas) < spec.min_size:
        spec = spec.replace(min_size=min(canvas), max_size=min(spec.max_size, max(canvas)))
    if target == "tensorrt" and isinstance(model, GeneralizedRCNN):
        spec = spec.replace(outputs="padded", max_proposals=spec.max_proposals or model.rpn.post_nms_top_n())
    check_target(model, spec, target)
    proto = build_proto(_graph(model, spec).eval(), spec)
    if precision == "fp16":
        compute_in_half(proto)
    spec = spec.replace(ops=op_records(proto))
    if target != "portable":
        proto = inline(proto, static=target == "tensorrt")
        name_inlined(proto)
    onnx.checker.check_model(proto, full_check=True)
    seconds = time.monotonic() - started
    verification = None
    with creating(path) as temporary:
        write_model(proto, spec, temporary)
        if verify:
            verification = verify_file(model, temporary)
            spec = spec.replace(parity={"device": verification.device} | verification.parity.summary())
            write_model(proto, spec, temporary)
    return ExportReport(str(path), spec, len(proto.graph.node), Path(path).stat().st_size, seconds, verification)


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(
            f"there is no precision {precision!r} to export in",
            f"the precisions are: {', '.join(PRECISIONS)}; `edgemask quantize` makes INT8 of an exported file",
        )


def _of_proposals(proposals: int | str) -> dict[str, Any]:
    """What the argument means for the spec."""
    if proposals == "rpn":
        return {}
    return {"proposals": proposals} if isinstance(proposals, str) else {"max_proposals": proposals}


def _graph(model: Model, spec: ModelSpec) -> GraphModule | SemanticGraph:
    if isinstance(model, GeneralizedRCNN):
        return GraphModule(configured(model, spec), spec)
    return SemanticGraph(model, spec)


def _renamed(spec: ModelSpec, class_names: Sequence[str] | None, category_ids: Sequence[int] | None) -> ModelSpec:
    if class_names is not None:
        names = class_names_without_background(class_names)
        if len(names) != len(spec.class_names):
            raise UsageError(
                f"{len(names)} class names for a model of {len(spec.class_names)} classes",
                "give one name per class, in label order, with or without __background__",
            )
        spec = spec.replace(class_names=names)
    return spec if category_ids is None else spec.replace(category_ids=tuple(category_ids))


def _versions() -> dict[str, str]:
    return {
        "edgemask": edgemask.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "onnx": onnx.__version__,
    }
