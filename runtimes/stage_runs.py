"""The stages of a model file on one image: each on what the ones before it gave, or on what a reference gave there."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import Placement, place_on_canvas
from edgemask.checks import Described, refuse
from edgemask.runtimes.cuts import cut, inputs_of, produced
from edgemask.runtimes.detector import Detector
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import rois_of
from edgemask.runtimes.modelfile import ModelFile, graph_inputs
from edgemask.runtimes.results import detections_of, map_of
from edgemask.runtimes.runtime import Array
from edgemask.runtimes.taps import BRANCHES, batch_of, stages_of, with_taps
from edgemask.spec import ModelSpec
from edgemask.stage_record import Record, in_order, of_detections, of_map, on_the_road

_FIRST = ("stage/resize",)
# What the branches take of the detections. Files of older versions give it no name.
_CHOSEN = ("nms.rois", "nms.labels", "nms.present", "labels", "mask_head")


def stages_of_file(
    model: ModelFile, device: str, pixels: NDArray[np.uint8], *, proposals: NDArray[np.float32] | None = None
) -> Record:
    """Records the stages of a model file on one image, each on what the ones before it gave.

    Args:
        model: the file.
        device: where it runs.
        pixels: uint8 [H, W, 3] RGB.
        proposals: float32 [N, 4] xyxy in pixels of the image, for a model that takes them.

    Returns:
        The record as `edgemask.stage_record` has it.

    Raises:
        UsageError: no such device; proposals for a model that finds its own, or none for one that does not.
        DeviceUnavailable: the device cannot run the model here.
        OutOfMemory: too large for it.
    """
    spec, copies = model.spec, model.spec.batch or 1
    canvas, placement = place_on_canvas(pixels, spec)
    given = _given(proposals, placement, spec)
    sizes = np.array([placement.size] * copies, np.int64)
    with Detector(with_taps(model), device) as detector:
        outputs = detector.run(np.stack([canvas] * copies), sizes, given.get("proposals")) | given
        device = detector.device
    record: Record = {"image_sizes": sizes[:1], **stages_of(outputs, 0, spec)}
    if proposals is not None:
        record["proposals.boxes"] = proposals
    return in_order(record | _brought_back(outputs, 0, placement, spec, device))


def stages_given(model: ModelFile, device: str, pixels: NDArray[np.uint8], record: Mapping[str, Array]) -> Record:
    """Records the stages of a model file on one image, each on what a reference gave there.

    The first stage takes the image as the runtime puts it on the canvas, the last ones are the runtime's own work on
    the reference's tensors. Where the graph has batches, the image is repeated, and its last copy is recorded: what
    mixes images up shows there. A part of the graph is open at a time.

    Args:
        model: the file.
        device: where it runs.
        pixels: uint8 [H, W, 3] RGB.
        record: of the reference on this image.

    Returns:
        Of what the record holds, what the file can give.

    Raises:
        UsageError: no such device, a record of another canvas, or of more rows than the graph has room for.
        DeviceUnavailable: the device cannot run the model here.
        OutOfMemory: too large for it.
    """
    spec, copies = model.spec, model.spec.batch or 1
    _check_canvas(record, spec)
    computed = produced(model)
    canvas, placement = place_on_canvas(pixels, spec)
    sizes = np.array([placement.size] * copies, np.int64)
    own = _run(model, device, _FIRST, {"images": np.stack([canvas] * copies), "image_sizes": sizes}, ())
    own = stages_of(own, copies - 1, spec)
    known = computed | set(graph_inputs(spec))
    fed = batch_of({name: value for name, value in record.items() if name in known}, spec)
    # Behind the first stage only the sides of the canvas count.
    fed["images"] = np.zeros((copies, 3, *record["stage/resize"].shape[-2:]), np.float32)
    wanted = [name for name in on_the_road(record.keys() & computed) if name not in (*_FIRST, *BRANCHES)]
    outputs = _run(model, device, wanted + _counter(spec), fed, fed.keys() - set(_CHOSEN))
    own |= stages_of(outputs, copies - 1, spec, fed)
    if branches := [name for name in BRANCHES if name in record.keys() & computed]:
        own |= _branches(model, device, branches, fed)
    if "proposals.boxes" in record:
        own |= stages_of(_given(record["proposals.boxes"], placement, spec), copies - 1, spec)
    return in_order(own | _brought_back(fed, copies - 1, placement, spec, device))


def _branches(model: ModelFile, device: str, wanted: list[str], fed: Mapping[str, Array]) -> dict[str, Array]:
    """What lies behind the detections; the part of an older file reaches back to detections of its own."""
    if "nms.rois" not in produced(model):
        wanted = [*_counter(model.spec), "boxes", "scores", "labels", *wanted]
        fed = {name: value for name, value in fed.items() if name not in (*_CHOSEN, *_counter(model.spec))}
    outputs = _run(model, device, wanted, fed, fed)
    return stages_of(outputs, (model.spec.batch or 1) - 1, model.spec, fed)


def _run(
    model: ModelFile, device: str, wanted: Collection[str], values: Mapping[str, Array], given: Collection[str]
) -> dict[str, Array]:
    """Runs a part of the graph once."""
    part = cut(model, wanted, given)
    runtime, _ = open_runtime(part, device)
    try:
        return runtime.run(inputs_of(part, values))
    finally:
        runtime.close()


def _counter(spec: ModelSpec) -> list[str]:
    """The output that says which rows are whose."""
    if "semantic" in spec.tasks:
        return []
    return ["batch_index" if spec.outputs == "flat" else "num_detections"]


def _given(proposals: Any, placement: Placement, spec: ModelSpec) -> dict[str, Array]:
    """Boxes of the caller as the graph takes them, for each image of a batch."""
    if proposals is None:
        return {}
    copies = spec.batch or 1
    return {"proposals": rois_of([proposals] * copies, [placement] * copies, copies, spec)}


def _brought_back(
    outputs: Mapping[str, Array], index: int, placement: Placement, spec: ModelSpec, device: str
) -> Record:
    """The runtime's own work on the outputs of the graph."""
    if "semantic" not in spec.tasks:
        return of_detections(detections_of(outputs, index, placement, spec, device))
    if outputs["labels"].shape[1:] != placement.canvas:
        return {}  # the runtime took another canvas than the reference, which its first stage tells
    return of_map(map_of(outputs, index, placement, spec, device))


def _check_canvas(record: Mapping[str, Array], spec: ModelSpec) -> None:
    if "stage/resize" not in record:
        refuse("record", "stage/resize among its tensors", Described(", ".join(record) or "none"))
    canvas = tuple(record["stage/resize"].shape[-2:])
    if spec.canvas not in (None, canvas):
        refuse("canvas of the reference", f"{spec.canvas}, the canvas of the file", Described(str(canvas)))
