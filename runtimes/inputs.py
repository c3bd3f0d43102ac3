"""What goes into a graph: arrays that fit it, and boxes of the caller as its rois."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import Placement, boxes_to_canvas, place_on_canvas
from edgemask.checks import Described, refuse
from edgemask.runtimes.runtime import Array
from edgemask.spec import ModelSpec

Boxes = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | Sequence[Sequence[float]]
_OVERSHOOT = 1.0  # beyond 0-255, which an interpolation in float32 may leave
_ROUNDING = 1e-2  # pixels by which a box may leave its image: x + width, in float32, does


@dataclass(frozen=True, slots=True)
class Placed:
    """An image on its canvas, and the boxes that the caller gave for it."""

    image: NDArray[np.float32]
    placement: Placement
    boxes: Boxes


def placed_of(pixels: NDArray[np.uint8], boxes: Boxes, spec: ModelSpec) -> Placed:
    """Places an image and its boxes on the canvas of a model; see `edgemask.canvas.place_on_canvas`."""
    image, placement = place_on_canvas(pixels, spec)
    return Placed(image, placement, boxes)


def batches_of(placed: Iterable[Placed], size: int) -> Iterator[list[Placed]]:
    """Images that are next to each other and share a canvas, in batches of at most a size."""
    batch: list[Placed] = []
    for one in placed:
        # On a dynamic canvas, images of different sizes fit no common batch.
        if len(batch) == size or (batch and batch[0].placement.canvas != one.placement.canvas):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def inputs_of(pixels: NDArray[np.uint8], spec: ModelSpec) -> tuple[dict[str, Array], Placement]:
    """The graph's inputs for one image, proposals apart; where it takes whole batches, for so many copies of it.

    Args:
        pixels: uint8 [H, W, 3] RGB.
        spec: of the model.
    """
    canvas, placement = place_on_canvas(pixels, spec)
    copies = spec.batch or 1
    images, sizes = np.repeat(canvas[None], copies, 0), np.array([placement.size] * copies, np.int64)
    return {"images": images, "image_sizes": sizes}, placement


def inputs_of_batch(
    placed: Sequence[Placed], spec: ModelSpec
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
    """What `Detector.run` takes, of images of one canvas.

    Where the graph takes whole batches, the last image stands in for missing ones.
    """
    batch = spec.batch or len(placed)
    filled = [*placed, *[placed[-1]] * (batch - len(placed))]
    images = filled[0].image[None] if batch == 1 else np.stack([one.image for one in filled])
    sizes = np.array([one.placement.size for one in filled], np.int64)
    boxes, placements = [one.boxes for one in placed], [one.placement for one in placed]
    return images, sizes, rois_of(boxes, placements, batch, spec) if spec.proposals == "input" else None


def inputs_with_whole(pixels: NDArray[np.uint8], spec: ModelSpec) -> dict[str, Array]:
    """As `inputs_of`; a model that takes its proposals gets the whole image as the only one."""
    inputs, placement = inputs_of(pixels, spec)
    if spec.proposals == "input":
        whole, copies = [[0, 0, *reversed(placement.original_size)]], len(inputs["images"])
        inputs["proposals"] = rois_of([whole] * copies, [placement] * copies, copies, spec)
    return inputs


def checked_inputs(
    images: NDArray[np.float32],
    image_sizes: NDArray[np.int64],
    proposals: NDArray[np.float32] | None,
    spec: ModelSpec,
) -> dict[str, Array]:
    """The graph's inputs by name, as `Detector.run` takes them.

    Raises:
        UsageError: what does not fit the graph: OpenVINO would run it, whatever its type and number of channels.
    """
    _check_array("images", images, np.float32, 4)
    _check_array("image_sizes", image_sizes, np.int64, 2)
    stride = spec.size_divisible
    canvas = spec.canvas or tuple(-(-side // stride) * stride for side in images.shape[2:])
    _check_shape("images", images, (spec.batch or len(images), 3, *canvas))
    _check_shape("image_sizes", image_sizes, (len(images), 2))
    least, greatest = images.min(), images.max()
    # Written so that a NaN is wrong too.
    if not (least >= -_OVERSHOOT and greatest <= 255 + _OVERSHOOT):
        remedy = "give them as they are in a picture: the graph normalises them itself"
        refuse("images", "finite numbers of 0-255", Described(f"{least:g} to {greatest:g}"), remedy)
    if (image_sizes < 1).any() or (image_sizes > canvas).any():
        refuse("image_sizes", f"heights and widths within the canvas {canvas}", image_sizes.tolist())
    inputs: dict[str, Array] = {"images": images, "image_sizes": image_sizes}
    if (proposals is None) != (spec.proposals == "rpn"):
        refuse_proposals(spec)
    if proposals is not None:
        _check_array("proposals", proposals, np.float32, 2)
        rows = len(images) * (spec.max_proposals or 0) if spec.outputs == "padded" else len(proposals)
        _check_shape("proposals", proposals, (rows, 5))
        if not np.isin(proposals[:, 0], np.arange(len(images))).all():
            refuse("proposals", f"batch indices below {len(images)} in column 0", proposals[:, 0].tolist())
        if not np.isfinite(proposals).all():
            refuse("proposals", "finite numbers", proposals[~np.isfinite(proposals).all(1)][0].tolist())
        inputs["proposals"] = proposals
    return inputs


def refuse_proposals(spec: ModelSpec) -> None:
    """Refuses proposals that the graph does not take, or their absence where it does.

    Raises:
        UsageError: always.
    """
    if spec.proposals == "rpn":
        refuse("proposals", "None: this model finds its own", Described("some"), "export it with proposals='input'")
    refuse("proposals", "boxes for each image", Described("None"), "this model was exported without its RPN")


def rois_of(boxes: Sequence[Any], placements: Sequence[Placement], batch: int, spec: ModelSpec) -> NDArray[np.float32]:
    """Boxes of the caller as the rois of a graph that takes its proposals.

    Args:
        boxes: [N, 4] xyxy of each image, in pixels of the original, inside of it.
        placements: where these images lie on their canvases.
        batch: images per run, at least as many; those beyond get no roi.
        spec: says whether the rois are padded, and to how many.

    Returns:
        float32 [R, 5], batch index and xyxy in canvas pixels; padded rows are boxes of zeros.

    Raises:
        UsageError: no boxes [N, 4], a box without area or beyond its image, or more than the graph has room for.
    """
    rois = []
    for index, (own, placement) in enumerate(zip(boxes, placements, strict=True)):
        placed = boxes_to_canvas(_checked_boxes(own, placement.original_size), placement)
        rois.append(np.column_stack([np.full(len(placed), index, np.float32), placed]))
    if spec.outputs == "flat":
        return np.concatenate(rois)
    limit = spec.max_proposals or 0
    padded = np.zeros((batch, limit, 5), np.float32)
    padded[:, :, 0] = np.arange(batch)[:, None]
    for index, own in enumerate(rois):
        if len(own) > limit:
            refuse("proposals", f"at most {limit} for an image", len(own), "export it with more: proposals are padded")
        padded[index, : len(own)] = own
    return padded.reshape(-1, 5)


def _checked_boxes(boxes: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    try:
        given = np.asarray(boxes)
    except ValueError:
        refuse("proposals", "numbers [N, 4] for each image", Described("rows of different lengths"))
    if given.size == 0 and given.ndim < 3:
        return np.zeros((0, 4), np.float32)
    if given.ndim != 2 or given.shape[1] != 4 or given.dtype.kind not in "fiu":
        refuse("proposals", "numbers [N, 4] for each image", Described(f"{given.dtype} {list(given.shape)}"))
    with np.errstate(over="ignore"):  # infinite is outside too
        given = given.astype(np.float32)
    height, width = size
    limits = np.array([width, height], np.float32)
    # Written so that a NaN is wrong too.
    inside = (given[:, :2] >= -_ROUNDING).all(1) & (given[:, 2:] <= limits + _ROUNDING).all(1)
    cut: NDArray[np.float32] = np.clip(given, 0, np.tile(limits, 2))
    sound = inside & (cut[:, :2] < cut[:, 2:]).all(1)
    if not sound.all():
        refuse(
            "proposals",
            f"boxes (x1, y1, x2, y2) with an area, inside the image of {height} x {width} pixels (H x W)",
            given[~sound][0].tolist(),
            "cut them off at the image's borders, and leave out those without an area",
        )
    return cut


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], rank: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != rank:
        got = f"{getattr(array, 'dtype', type(array).__name__)} {list(np.shape(array))}"
        refuse(name, f"{np.dtype(dtype)} of {rank} dimensions", Described(got))


def _check_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
    if name == "images" and not array.size:
        refuse(name, f"{list(expected)}, not empty", Described(str(list(array.shape))))
    if array.shape != expected:
        refuse(name, str(list(expected)), Described(str(list(array.shape))))
