"""A model that gives the tensors at the borders of its stages too."""

import dataclasses
import re
from collections.abc import Mapping

import onnx

from edgemask.errors import ModelFileError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.results import rows_of
from edgemask.runtimes.runtime import Array
from edgemask.spec import ModelSpec

STAGES = (
    *("stage/resize", "backbone", "fpn", "rpn.scores", "rpn.boxes", "proposals", "box_head", "nms", "mask_head"),
    "head",  # of a semantic model
)
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


def stages_of(outputs: Mapping[str, Array], index: int, spec: ModelSpec) -> dict[str, Array]:
    """What a graph with taps gave for one image of the batch, as if it had been alone and its rows flat.

    Args:
        outputs: outputs and taps by name; with them `proposals`, where the graph takes them.
        index: of the image.
        spec: of the model.
    """
    if "semantic" in spec.tasks:
        return {name: value[index : index + 1] for name, value in outputs.items()}
    rois = outputs["proposals"]
    # Without an area: the rows behind the chosen ones.
    scored = (rois[:, 0] == index) & (rois[:, 3:] > rois[:, 1:3]).all(1)
    found = rows_of(outputs, index, spec)
    own = dict(found)
    for name, value in outputs.items():
        if name.startswith(("proposals", "box_head")):
            own[name] = value[scored]
        elif name == "mask_head":
            own[name] = _of_image(value, outputs, index, len(found["boxes"]), spec)
        elif name not in found and name not in ("nms", "batch_index", "num_detections"):
            own[name] = value[index : index + 1]
    return own


def _of_image(value: Array, outputs: Mapping[str, Array], index: int, count: int, spec: ModelSpec) -> Array:
    if spec.outputs == "flat":
        rows: Array = value[outputs["batch_index"] == index]
        return rows
    start = index * spec.max_detections
    return value[start : start + count]
