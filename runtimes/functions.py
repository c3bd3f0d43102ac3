"""Models with the two custom ops as OpenVINO can read and run them.

OpenVINO knows no ONNX local functions, drops a box whose IoU equals the threshold (ONNX and torchvision keep
it), and answers some rois with NaN. `for_openvino` settles all three in a copy of the model; ONNX Runtime
needs none of it.
"""

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
from numpy.typing import NDArray

from edgemask.errors import ModelFileError, UnsupportedModel
from edgemask.ops import DOMAIN

STANDARD_DOMAINS = ("", "ai.onnx")
IOU_THRESHOLD_INPUT = 3  # of NonMaxSuppression


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` with the bodies of its local functions in place of their calls.

    Raises:
        ModelFileError: a node of our domain whose body is not in the model.
    """
    inlined = onnx.inliner.inline_local_functions(model)
    bodiless = sorted({node.op_type for node in inlined.graph.node if node.domain == DOMAIN})
    if bodiless:
        raise ModelFileError(
            f"the model uses {', '.join(bodiless)} and does not hold the function",
            "a tool that rewrote the file may have dropped it: export the model again",
        )
    opsets = [entry for entry in inlined.opset_import if entry.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(opsets)
    return inlined


def for_openvino(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` that computes on OpenVINO what `model` computes on ONNX Runtime.

    Every call of a local function is replaced by its body, and the IoU threshold of every NonMaxSuppression
    by the next float32 above it: measured on OpenVINO 2026.4 (CPU), `>=` with that one equals `>` with the
    model's own in every tie. A device that compares strictly differs only for an IoU that is this very next
    float32. Both forms of an exported file are taken, with functions or inlined; call it once, since a second
    call raises the threshold again.

    Raises:
        UnsupportedModel: a RoiAlign with `half_pixel` coordinates and adaptive sampling, which OpenVINO
            answers with NaN for a roi without area; or a NonMaxSuppression whose threshold the graph
            computes.
    """
    inlined = inline_functions(model)
    for node in inlined.graph.node:
        if node.domain in STANDARD_DOMAINS and node.op_type == "RoiAlign":
            _refuse_nan(node)
        elif node.domain in STANDARD_DOMAINS and node.op_type == "NonMaxSuppression":
            _raise_threshold(inlined.graph, node)
    return inlined


def _refuse_nan(node: onnx.NodeProto) -> None:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    half_pixel = attributes.get("coordinate_transformation_mode", b"half_pixel") == b"half_pixel"
    if half_pixel and attributes.get("sampling_ratio", 0) == 0:
        raise UnsupportedModel(
            f"{node.name or node.output[0]} is a RoiAlign with half_pixel coordinates and adaptive sampling, "
            "which OpenVINO answers with NaN for a roi without area",
            "run the model on ONNX Runtime, or export it with a sampling ratio of 1 or more",
        )


def _raise_threshold(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Give a NonMaxSuppression a threshold of its own, the next float32 above the one it had."""
    threshold = _constant(graph, node.input[IOU_THRESHOLD_INPUT]) if len(node.input) > IOU_THRESHOLD_INPUT else None
    if threshold is None:
        threshold = np.zeros((), np.float32)
    # Above 0 comes a subnormal number, which the CPU plugin takes for 0.
    above = np.maximum(np.nextafter(threshold, np.float32(np.inf)), np.finfo(np.float32).tiny)
    name = f"{node.output[0]}/iou_threshold"
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(above, np.float32), name))
    node.input.extend([""] * (IOU_THRESHOLD_INPUT + 1 - len(node.input)))
    node.input[IOU_THRESHOLD_INPUT] = name


def _constant(graph: onnx.GraphProto, name: str) -> NDArray[np.float32] | None:
    """Return the value that `name` has in every run, or None for an input left out."""
    if not name:
        return None
    for tensor in graph.initializer:
        if tensor.name == name:
            return np.asarray(onnx.numpy_helper.to_array(tensor), np.float32)
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS and name in node.output:
            value = onnx.helper.get_attribute_value(node.attribute[0])
            if isinstance(value, onnx.TensorProto):
                value = onnx.numpy_helper.to_array(value)
            return np.asarray(value, np.float32)
    raise UnsupportedModel(
        f"the graph computes the IoU threshold {name!r} of a NonMaxSuppression",
        "OpenVINO compares it differently from ONNX: make it a constant, or run the model on ONNX Runtime",
    )
