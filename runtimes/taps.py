"""A model that gives the tensors at the borders of its stages too, and these tensors by image."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from edgemask.checks import refuse
from edgemask.errors import ModelFileError
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.results import rows_of
from edgemask.runtimes.runtime import Array
from edgemask.spec import ModelSpec

STAGES = (
    *("stage/resize", "backbone", "fpn", "rpn.scores", "rpn.boxes", "proposals", "box_head", "nms", "mask_head"),
    "head",  # of a semantic model
)
# What the branches behind the detections give, a row for each.
BRANCHES = ("mask_head", "masks", "keypoint_heatmaps")
_TAP = re.compile(rf"({'|'.join(map(re.escape, STAGES))})(\.\w+)?")
_BY_PROPOSAL = ("box_head", "box_head.boxes")
_OUTPUTS = ("boxes", "scores", "labels", "masks", "keypoint_heatmaps")
_BY_DETECTION = (*_OUTPUTS, "mask_head")
_COUNTERS = ("batch_index", "num_detections")


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


def stages_of(
    outputs: Mapping[str, Array], index: int, spec: ModelSpec, fed: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """What a graph with taps gave for one image of the batch, as if it had been alone and its rows flat.

    Args:
        outputs: outputs and taps by name; with them `proposals`, where the graph takes them.
        index: of the image.
        spec: of the model.
        fed: of a graph that was cut, what its stages took in place of `proposals` and of the detections, in the
            graph's own layout: their own outputs have a row for each of these.
    """
    if "semantic" in spec.tasks:
        return {name: value[index : index + 1] for name, value in outputs.items()}
    fed = outputs if fed is None else {**outputs, **fed}
    own = rows_of(outputs, index, spec) if "boxes" in outputs else {}
    for name, value in outputs.items():
        if name == "proposals":
            own[name] = value[_scored(value, index)]
        elif name in _BY_PROPOSAL:
            own[name] = value[_scored(fed["proposals"], index)]
        elif name in BRANCHES:
            own[name] = _of_detections(name, value, index, fed, spec)
        elif name not in (*own, *_COUNTERS) and not name.startswith("nms"):
            own[name] = value[index : index + 1]
    if "mask_head" in own and own["mask_head"].ndim == 4:  # of all classes, as version 0.1.0 exported it
        own["mask_head"] = own["mask_head"][np.arange(len(own["labels"])), own["labels"]]
    return own


def _scored(rois: Array, index: int) -> NDArray[np.bool_]:
    """Which rows are proposals of an image; those without an area lie behind the chosen ones."""
    scored: NDArray[np.bool_] = (rois[:, 0] == index) & (rois[:, 3:] > rois[:, 1:3]).all(1)
    return scored


def _of_detections(name: str, value: Array, index: int, fed: Mapping[str, Array], spec: ModelSpec) -> Array:
    """The rows of an image in what a branch gave."""
    if spec.outputs == "flat":
        own: Array = value[fed["batch_index"] == index]
        return own
    if name == "mask_head":  # not shaped by images
        value = value.reshape(-1, spec.max_detections, *value.shape[1:])
    rows: Array = value[index, : int(fed["num_detections"][index])]
    return rows


def batch_of(record: Mapping[str, Array], spec: ModelSpec) -> dict[str, Array]:
    """The way back from `stages_of`: stage tensors and outputs of a batch of one image, repeated as often as it takes.

    Args:
        record: of one image, as `edgemask.stage_record` has it.
        spec: of the model; says how many images a batch has, and whether rows are padded.

    Returns:
        By the names of the graph. Padded proposals are rows without an area, padded detections rows of zeros.

    Raises:
        UsageError: more proposals or detections than the graph has room for.
    """
    copies = spec.batch or 1
    if "semantic" in spec.tasks:
        return {name: np.repeat(value, copies, 0) for name, value in record.items()}
    padded = spec.outputs == "padded"
    proposals = (spec.max_proposals or 0) if padded else len(record["proposals"])
    detections = spec.max_detections if padded else len(record["boxes"])
    batch: dict[str, Array] = {}
    for name, value in record.items():
        if name == "proposals":
            boxes = np.tile(_with_room(name, value[:, 1:], proposals), (copies, 1))
            batch[name] = _rois(boxes, copies)
        elif name in _BY_PROPOSAL:
            batch[name] = np.concatenate([_with_room(name, value, proposals)] * copies)
        elif name in _BY_DETECTION:
            batch[name] = np.concatenate([_with_room(name, value, detections)] * copies)
        else:
            batch[name] = np.repeat(value, copies, 0)
    batch["nms.rois"] = _rois(batch["boxes"], copies)
    if not padded:
        return batch | {"batch_index": np.repeat(np.arange(copies), detections)}
    present = np.tile(np.arange(detections) < len(record["boxes"]), copies)
    batch |= {"nms.labels": batch["labels"], "nms.present": present}
    by_image = {
        name: batch[name].reshape(copies, detections, *batch[name].shape[1:]) for name in _OUTPUTS if name in batch
    }
    return batch | by_image | {"num_detections": np.full(copies, len(record["boxes"]))}


def _with_room(name: str, rows: Array, count: int) -> Array:
    """Rows, and rows of zeros behind them, `count` in all."""
    if len(rows) > count:
        refuse(name, f"at most {count} rows for an image, which the graph has room for", len(rows))
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def _rois(boxes: Array, copies: int) -> Array:
    images = np.repeat(np.arange(copies, dtype=np.float32), len(boxes) // copies)
    return np.column_stack([images, boxes]).astype(np.float32)
