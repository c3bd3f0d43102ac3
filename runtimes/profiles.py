"""What each node of a graph did in one run: where, in which arithmetic, for how long, as the libraries tell it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.errors import DeviceUnavailable
from edgemask.runtimes.assignment import heavy_operator

COPY, LAYOUT = "copy", "layout"
ENGINE = "TRTKernel"  # begins the type of the node that is a TensorRT engine
_KERNEL = "_kernel_time"  # ends the name of ONNX Runtime's event for the work itself
_COPIES = ("MemcpyToHost", "MemcpyFromHost")
_LAYOUTS = ("ReorderInput", "ReorderOutput", "Reorder")
# Tensor types of ONNX Runtime and endings of OpenVINO's kernel names, as types of arithmetic.
_ARITHMETIC = {
    **{"float": "float32", "f32": "float32", "float16": "float16", "f16": "float16", "double": "float64"},
    **{"bfloat16": "bfloat16", "bf16": "bfloat16"},
    **dict.fromkeys(["uint8", "int8", "I8", "U8", "i8", "u8"], "int8"),
}
# OpenVINO's types of nodes that do the work of `HEAVY`.
_OPENVINO_HEAVY = {
    **dict.fromkeys(["Convolution", "GroupConvolution"], "Conv"),
    **dict.fromkeys(["ConvolutionBackpropData", "GroupConvolutionBackpropData", "Deconvolution"], "ConvTranspose"),
    **dict.fromkeys(["FullyConnected", "FullyConnectedCompressed", "MatMul"], "Gemm"),
    **dict.fromkeys(["ROIAlign", "ROIAlignRotated"], "RoiAlign"),
    **dict.fromkeys(["NonMaxSuppression", "NonMaxSuppressionIEInternal"], "NonMaxSuppression"),
    "TopK": "TopK",
}


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One node in one run.

    Attributes:
        name: its name in the graph as the library optimised it.
        operator: its type in the library's words.
        heavy: the operator of `edgemask.runtimes.assignment.HEAVY` whose work it does; None of the others.
        kind: `copy` between devices, `layout` for another order of the same numbers, else empty.
        provider: what ran it: a provider of ONNX Runtime, a device of OpenVINO.
        arithmetic: type that it computed in, such as float32 or int8; empty where the library does not tell.
        microseconds: how long it took.
        bytes: what it moved, of copies; else 0.
    """

    name: str
    operator: str
    heavy: str | None
    kind: str
    provider: str
    arithmetic: str
    microseconds: float
    bytes: int


def onnxruntime_nodes(path: str | Path) -> tuple[NodeRun, ...]:
    """The nodes of the last run in a profile that ONNX Runtime wrote.

    Args:
        path: the JSON file.

    Raises:
        DeviceUnavailable: there is no node in it.
    """
    events = json.loads(Path(path).read_text(encoding="utf-8"))
    starts = [event["ts"] for event in events if event.get("name") == "model_run"]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    nodes = tuple(_onnxruntime_node(event) for event in kernels if event["ts"] >= max(starts, default=0))
    if not nodes:
        raise DeviceUnavailable("ONNX Runtime's profile names no node", "take a newer onnxruntime")
    return nodes


def _onnxruntime_node(event: Mapping[str, Any]) -> NodeRun:
    arguments = event["args"]
    operator = arguments["op_name"]
    kind = COPY if operator in _COPIES else LAYOUT if operator in _LAYOUTS else ""
    return NodeRun(
        name=event["name"].removesuffix(_KERNEL),
        operator=operator,
        heavy=heavy_operator(operator),
        kind=kind,
        provider=arguments["provider"],
        arithmetic=_of_tensors(operator, arguments.get("input_type_shape", [])),
        microseconds=float(event["dur"]),
        bytes=int(arguments.get("output_size", 0)) if kind == COPY else 0,
    )


def _of_tensors(operator: str, inputs: Iterable[Mapping[str, Any]]) -> str:
    """The arithmetic of a node by the type of its first input; of an engine nothing is known."""
    first = next((name for entry in inputs for name in entry), "")
    return "" if operator.startswith(ENGINE) else _ARITHMETIC.get(first, first)


def openvino_nodes(profile: Iterable[Any], device: str) -> tuple[NodeRun, ...]:
    """The nodes that ran, of the profile of an OpenVINO request, which leaves out those below a microsecond.

    Args:
        profile: its `profiling_info`.
        device: what ran it, in OpenVINO's words; it does not tell of single nodes.

    Raises:
        DeviceUnavailable: there is no node in it.
    """
    nodes = tuple(_openvino_node(node, device) for node in profile if node.status.name == "EXECUTED")
    if not nodes:
        raise DeviceUnavailable("OpenVINO's profile names no node", "take a newer openvino")
    return nodes


def _openvino_node(node: Any, device: str) -> NodeRun:
    ending = node.exec_type.rpartition("_")[2]
    return NodeRun(
        name=node.node_name,
        operator=node.node_type,
        heavy=_OPENVINO_HEAVY.get(node.node_type),
        kind=LAYOUT if node.node_type in _LAYOUTS else "",
        provider=device,
        arithmetic=_ARITHMETIC.get(ending, ending),
        microseconds=node.real_time.total_seconds() * 1e6,
        bytes=0,
    )
