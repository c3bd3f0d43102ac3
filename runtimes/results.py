"""What comes out of a graph: the rows or the map of each image, in pixels of the original."""

from collections.abc import Mapping

import numpy as np

from edgemask.canvas import Placement, boxes_to_original
from edgemask.detections import Detections
from edgemask.errors import BrokenOutput, UsageError
from edgemask.keypoints import decode_heatmaps, keypoints_to_original
from edgemask.runtimes.runtime import Array
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

_REMEDY = "`edgemask validate` names the stage that they come from; export the model again"
# What arrays of other shapes and types lead to, UsageError among them.
_UNFIT = (IndexError, TypeError, ValueError)
_BY_DETECTION = ("boxes", "scores", "labels", "masks", "keypoint_heatmaps")


def rows_of(outputs: Mapping[str, Array], index: int, spec: ModelSpec) -> dict[str, Array]:
    """The graph's outputs of one image of the batch, one row per detection, whether they are flat or padded.

    Args:
        outputs: by name, as `Detector.run` gives them.
        index: of the image.
        spec: of the model.
    """
    if spec.outputs == "padded":
        count = int(outputs["num_detections"][index])
        return {name: outputs[name][index, :count] for name in _BY_DETECTION if name in outputs}
    rows = outputs["batch_index"] == index
    return {name: outputs[name][rows] for name in _BY_DETECTION if name in outputs}


def detections_of(
    outputs: Mapping[str, Array], index: int, placement: Placement, spec: ModelSpec, device: str
) -> Detections:
    """The detections of one image of the batch.

    Args:
        outputs: by name, as `Detector.run` gives them.
        index: of the image.
        placement: where the image lies on its canvas.
        spec: of the model.
        device: for the message.

    Raises:
        BrokenOutput: the graph gave something that is no result, such as scores that are not numbers.
    """
    try:
        values = rows_of(outputs, index, spec)
        _check_finite(values, device)
        return _detections(values, placement)
    except _UNFIT as error:
        raise BrokenOutput(f"the model gave no detections on {device}: {_words(error)}", _REMEDY) from error


def _detections(values: Mapping[str, Array], placement: Placement) -> Detections:
    keypoints = keypoint_scores = None
    if "keypoint_heatmaps" in values:
        keypoints, keypoint_scores = decode_heatmaps(values["keypoint_heatmaps"], values["boxes"])
        keypoints = keypoints_to_original(keypoints, placement)
    return Detections(
        boxes=boxes_to_original(values["boxes"], placement),
        scores=values["scores"],
        labels=values["labels"],
        masks=values.get("masks"),
        keypoints=keypoints,
        keypoint_scores=keypoint_scores,
        image_size=placement.original_size,
    )


def map_of(outputs: Mapping[str, Array], index: int, placement: Placement, spec: ModelSpec, device: str) -> SemanticMap:
    """The label map of one image of the batch; see `detections_of`."""
    try:
        values = {name: outputs[name][index] for name in ("labels", "scores")}
        _check_finite(values, device)
        return SemanticMap.from_canvas(values["labels"], values["scores"], placement)
    except _UNFIT as error:
        raise BrokenOutput(f"the model gave no map on {device}: {_words(error)}", _REMEDY) from error


def _check_finite(values: Mapping[str, Array], device: str) -> None:
    broken = [name for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        raise BrokenOutput(f"the model gave {', '.join(broken)} that are not numbers on {device}", _REMEDY)


def _words(error: Exception) -> str:
    return error.problem if isinstance(error, UsageError) else str(error)
