"""Traces the graph module with torch's exporter and cleans what comes out."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch

import edgemask
from edgemask.errors import EdgemaskError
from edgemask.export.cleaning import (
    drop_defaults,
    name_after_stages,
    name_rows,
    remove_dead,
    remove_outputs,
    strip_traces,
)
from edgemask.export.graph_module import GraphModule
from edgemask.export.onnx_ops import BODY_OPSET, custom_translation_table, local_functions
from edgemask.export.semantic_graph import SemanticGraph
from edgemask.spec import ModelSpec

MAX_CELLS = 512  # of a dynamic canvas, a side: 32 pixels each
_EXAMPLE_ROIS = 7  # of an image, traced in place of any number


def build_proto(module: GraphModule | SemanticGraph, spec: ModelSpec) -> onnx.ModelProto:
    """Traces the module and cleans the graph; no spec in it yet.

    Args:
        module: in evaluation mode.
        spec: says what of the inputs is fixed.
    """
    inputs, dynamic = _example_inputs(module.example_canvas, spec)
    with torch.no_grad():
        outputs, taps = ([*values] for values in module(*inputs.values()))
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=BODY_OPSET,
            input_names=list(inputs),
            output_names=outputs + taps,
            dynamic_shapes=dynamic,
            custom_translation_table=custom_translation_table(),
        )
    if program is None:
        raise EdgemaskError("torch's exporter gave no program")
    proto: onnx.ModelProto = program.model_proto
    remove_outputs(proto, outputs)
    remove_dead(proto)
    drop_defaults(proto)
    name_after_stages(proto, outputs + taps)
    name_rows(proto)
    strip_traces(proto)
    proto.functions.extend(local_functions(proto))
    proto.producer_name, proto.producer_version = "edgemask", edgemask.__version__
    return proto


def _example_inputs(
    canvas: tuple[int, int], spec: ModelSpec
) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, Any]]]:
    """Inputs to trace with, and which of their sides may change."""
    count = 2 if spec.batch is None else spec.batch  # a size of 1 would be taken for a constant
    inputs = {
        "images": torch.zeros((count, 3, *canvas)),
        "image_sizes": torch.tensor([canvas]).expand(count, 2).contiguous(),
    }
    dynamic: dict[str, dict[int, Any]] = {"images": {}, "image_sizes": {}}
    if spec.batch is None:
        dynamic["images"][0] = dynamic["image_sizes"][0] = torch.export.Dim("batch")
    if spec.canvas is None:
        dynamic["images"][2] = 32 * torch.export.Dim("rows", max=MAX_CELLS)
        dynamic["images"][3] = 32 * torch.export.Dim("columns", max=MAX_CELLS)
    if spec.proposals == "input":
        height, width = canvas
        box = [height / 4, width / 4, height / 2, width / 2]
        if spec.outputs == "padded":
            assert spec.max_proposals is not None
            rois, dynamic["proposals"] = count * spec.max_proposals, {}
        else:
            rois, dynamic["proposals"] = count * _EXAMPLE_ROIS, {0: torch.export.Dim("rois", min=1)}
        inputs["proposals"] = torch.tensor([[0.0, *box]]).repeat(rois, 1)
    return inputs, dynamic


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
