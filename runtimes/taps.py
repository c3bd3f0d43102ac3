"""A model that gives the tensors at the borders of its stages too."""

import dataclasses
import re

import onnx

from edgemask.errors import ModelFileError
from edgemask.runtimes.modelfile import ModelFile

STAGES = ("stage/resize", "backbone", "fpn", "rpn.scores", "rpn.boxes", "proposals", "box_head", "nms", "mask_head")
_TAP = re.compile(rf"({'|'.join(map(re.escape, STAGES))})(\.\w+)?")


def with_taps(model: ModelFile) -> ModelFile:
    """Gives a copy whose graph has every stage tensor (`fpn.0`, `proposals`, …) as a further output.

    Raises:
        ModelFileError: the graph names no stage.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    present = {output.name for output in proto.graph.output}
    shapes = {value.name: value for value in proto.graph.value_info}
    produced = [name for node in proto.graph.node for name in node.output]
    taps = [name for name in produced if _TAP.fullmatch(name) and name not in present]
    if not taps:
        raise ModelFileError(f"the graph of {model.path} names no stage", "export the model again")
    proto.graph.output.extend(shapes.get(name) or onnx.ValueInfoProto(name=name) for name in taps)
    return dataclasses.replace(model, proto=proto, data=proto.SerializeToString())
