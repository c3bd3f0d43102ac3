"""PyTorch model -> one ONNX file that describes itself."""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
import torchvision
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

import edgemask
from edgemask.description import spec_of, weights_digest
from edgemask.errors import EdgemaskError, UsageError
from edgemask.export.cleaning import name_after_stages, remove_dead, remove_outputs, strip_traces
from edgemask.export.graph_module import OUTPUTS, GraphModule
from edgemask.export.onnx_ops import BODY_OPSET, custom_translation_table, inline, local_functions
from edgemask.export.support import check_supported
from edgemask.export.verification import Verification
from edgemask.export.verification import verify as verify_file
from edgemask.files import creating
from edgemask.reference import configured
from edgemask.runtimes import write_model
from edgemask.spec import ModelSpec, class_names_without_background

Canvas = tuple[int, int] | Literal["dynamic"]
Batch = int | Literal["dynamic"]
TARGETS = ("portable", "openvino")
MAX_CELLS = 512  # of a dynamic canvas, a side: 32 pixels each


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
    model: GeneralizedRCNN,
    path: str | Path,
    *,
    shape: Canvas = "dynamic",
    batch: Batch = 1,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    spec: ModelSpec | None = None,
    target: str = "portable",
    score_threshold: float | None = None,
    max_detections: int | None = None,
    proposals: int | None = None,
    verify: bool = True,
) -> ExportReport:
    """Exports a trained torchvision Mask R-CNN as one ONNX file and proves it equal to the model.

    Args:
        model: any instance of torchvision's `MaskRCNN` in evaluation mode; it is not changed.
        path: the file to write; an existing one is replaced only by a whole new one.
        shape: canvas (H, W) after resize and padding, multiples of 32; images that do not fit it are scaled down
            further. Where it is smaller than the model's own `min_size`, its sides become the limits of the resize.
            "dynamic" takes every image as torchvision resizes it.
        batch: images per run; "dynamic" for any number.
        class_names: names of labels 1 … C-1; None takes those of `spec`, or `class_1 …`.
        category_ids: COCO ids of the labels.
        spec: what is known of the model already, as `load_model` gives it.
        target: "portable" holds the custom ops as ONNX functions; "openvino" has them inlined, to be read by OpenVINO
            without edgemask.
        score_threshold: replaces the model's own.
        max_detections: replaces the model's own.
        proposals: replaces the model's own number of proposals after NMS.
        verify: run the file and compare it with PyTorch.

    Returns:
        What was written.

    Raises:
        UnsupportedModel: a part of the model cannot be carried; names it.
        UsageError: an argument that cannot be meant.
        ParityError: the file does not do what the model does; names the first stage that differs.
        OutputError: the file cannot be written.
    """
    started = time.monotonic()
    if target not in TARGETS:
        raise UsageError(f"there is no target {target!r}", f"the targets are: {', '.join(TARGETS)}")
    canvas = None if shape == "dynamic" else (int(shape[0]), int(shape[1]))
    check_supported(model, canvas)
    spec = (spec or spec_of(model)).replace(
        canvas=canvas,
        batch=None if batch == "dynamic" else int(batch),
        source_sha256=weights_digest(model),
        versions=_versions(),
        parity=None,
    )
    if canvas is not None and spec.fixed_size is None and min(canvas) < spec.min_size:
        spec = spec.replace(min_size=min(canvas), max_size=min(spec.max_size, max(canvas)))
    spec = _renamed(spec, class_names, category_ids)
    changes = {"score_threshold": score_threshold, "max_detections": max_detections, "max_proposals": proposals}
    spec = spec.replace(**{name: value for name, value in changes.items() if value is not None})
    model = configured(model, spec)
    proto = build_proto(model, canvas, spec.batch)
    if target == "openvino":
        proto = inline(proto)
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


def build_proto(model: GeneralizedRCNN, canvas: tuple[int, int] | None, batch: int | None) -> onnx.ModelProto:
    """Traces the model and cleans the graph; no spec in it yet.

    Args:
        model: checked and configured.
        canvas: (H, W) of the network input, None for any multiple of 32.
        batch: images per run, None for any number.
    """
    module = GraphModule(model, canvas).eval()
    height, width = module.example_canvas
    count = 2 if batch is None else batch  # a size of 1 would be taken for a constant
    images = torch.zeros((count, 3, height, width))
    sizes = torch.tensor([[height, width]]).expand(count, 2).contiguous()
    with torch.no_grad():
        names = list(module(images, sizes))
    dynamic: dict[str, dict[int, Any]] = {"images": {}, "image_sizes": {}}
    if batch is None:
        dynamic["images"][0] = dynamic["image_sizes"][0] = torch.export.Dim("batch")
    if canvas is None:
        dynamic["images"][2] = 32 * torch.export.Dim("rows", max=MAX_CELLS)
        dynamic["images"][3] = 32 * torch.export.Dim("columns", max=MAX_CELLS)
    with _quiet():
        program = torch.onnx.export(
            module,
            (images, sizes),
            dynamo=True,
            opset_version=BODY_OPSET,
            input_names=list(dynamic),
            output_names=names,
            dynamic_shapes=dynamic,
            custom_translation_table=custom_translation_table(),
        )
    if program is None:
        raise EdgemaskError("torch's exporter gave no program")
    proto: onnx.ModelProto = program.model_proto
    remove_outputs(proto, OUTPUTS)
    remove_dead(proto)
    name_after_stages(proto, names)
    strip_traces(proto)
    proto.functions.extend(local_functions(proto))
    proto.producer_name, proto.producer_version = "edgemask", edgemask.__version__
    return proto


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch's exporter says about itself off the user's terminal; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
