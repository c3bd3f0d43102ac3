"""Passes over the exported graph: names after the stages, nothing in it about the machine that exported it."""

import ast
import re
from collections import Counter
from collections.abc import Iterable

import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
_UNKNOWN = re.compile(r"u\d+")  # a size that torch's tracer cannot know
_INNER = re.compile(r"__\d+$")  # how onnx's inliner ends the names of a body's own tensors
IR_VERSION = 8  # the first with local functions: the older the version, the more runtimes read it


def remove_outputs(model: onnx.ModelProto, kept: Iterable[str]) -> None:
    """Takes all outputs but `kept` from the graph; their tensors stay inside it under their names."""
    kept = set(kept)
    removed = [output for output in model.graph.output if output.name not in kept]
    known = {value.name for value in model.graph.value_info}
    model.graph.value_info.extend(output for output in removed if output.name not in known)
    for output in removed:
        model.graph.output.remove(output)


def remove_dead(model: onnx.ModelProto) -> None:
    """Removes nodes, constants and shapes that no output of the graph depends on."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    live = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            live.append(node)
    del graph.node[:]
    graph.node.extend(reversed(live))
    for field in (graph.initializer, graph.value_info):
        kept = [entry for entry in field if entry.name in needed]
        del field[:]
        field.extend(kept)


def drop_defaults(model: onnx.ModelProto) -> None:
    """Leaves `reduction="none"` away, which is the default: TensorRT's parser refuses a ScatterND that writes it."""
    for node in model.graph.node:
        written = [entry for entry in node.attribute if entry.name == "reduction" and entry.s == b"none"]
        for entry in written:
            node.attribute.remove(entry)


def name_after_stages(model: onnx.ModelProto, kept: Iterable[str]) -> None:
    """Names every node `stage/path/operator`, its outputs after it unless they are in `kept`, and constants by number.

    Weights keep the names that they have in the PyTorch model.
    """
    kept = set(kept) | {value.name for value in [*model.graph.input, *model.graph.output]}
    constants = (tensor for tensor in model.graph.initializer if "." not in tensor.name)
    renamed = {tensor.name: f"constant/{number}" for number, tensor in enumerate(constants)}
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        stem = f"{_module_path(node)}/{node.op_type}"
        taken[stem] += 1
        node.name = stem if taken[stem] == 1 else f"{stem}_{taken[stem]}"
        for index, output in enumerate(node.output):
            if output and output not in kept:
                renamed[output] = node.name if index == 0 else f"{node.name}:{index}"
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for entry in [*model.graph.value_info, *model.graph.initializer]:
        entry.name = renamed.get(entry.name, entry.name)


def _module_path(node: onnx.NodeProto) -> str:
    """Path of the sub-module that a node was traced in; `graph` for what lies between the stages."""
    scopes = [ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == _SCOPES]
    path: str = scopes[0][-2] if scopes and len(scopes[0]) > 1 else ""
    return "graph" if not path or path.startswith("_") else path.replace(".", "/")


def name_rows(model: onnx.ModelProto) -> None:
    """Calls the number of rows of the detections and of the proposals by their names, not `u3`."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    renamed = {}
    for name, rows in (("proposals", "rois"), ("scores", "detections")):
        first = next((value.type.tensor_type.shape.dim[0].dim_param for value in values if value.name == name), "")
        if _UNKNOWN.fullmatch(first):
            renamed[first] = rows
    for value in values:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in renamed:
                side.dim_param = renamed[side.dim_param]


def name_inlined(model: onnx.ModelProto) -> None:
    """Names the nodes that an inliner put in place of a call `call/body/operator_number`; it leaves them nameless."""
    body: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name:
            continue
        body.append(node)
        if _INNER.search(node.output[0]):
            continue
        for number, inner in enumerate(body):
            inner.name = f"{node.output[0]}/body/{inner.op_type}_{number}"
        body = []


def strip_traces(model: onnx.ModelProto) -> None:
    """Removes doc strings and metadata: the exporter writes stack traces with the paths of its machine."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    entries = [graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for entry in entries:
        entry.doc_string = ""
        del entry.metadata_props[:]
    del model.metadata_props[:]
    graph.name = "edgemask"
    model.ir_version = IR_VERSION
