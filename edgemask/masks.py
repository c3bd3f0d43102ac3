"""Masks: probabilities inside a box -> bitmaps of the image -> COCO run lengths or outlines."""

import functools
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import bilinear_axis
from edgemask.checks import Described, number, refuse, several, whole
from edgemask.errors import DependencyMissing, UsageError
from edgemask.images import PIXEL_LIMIT

# torchvision's: a border of one zero cell, so that masks fade out at the box's edge.
_PADDING = 1
_ROWS = 64
_COORDINATE_LIMIT = 100_000

FloatArray = NDArray[np.float32]
Bitmap = NDArray[np.bool_]


def paste_masks(masks: FloatArray, boxes: FloatArray, image_size: tuple[int, int], threshold: float = 0.5) -> Bitmap:
    """Returns bool [N, H, W]: where each mask's probability, spread over its box, is above the threshold.

    Equal to torchvision's `paste_masks_in_image(masks[:, None], boxes, image_size) > threshold` in each pixel
    whose probability is not within 2e-6 of the threshold.

    Args:
        masks: float32 [N, M, M] probabilities inside the box.
        boxes: float32 [N, 4] xyxy, pixels of the image.
        image_size: (H, W) in pixels.
        threshold: probability.

    Raises:
        UsageError: arrays of another type or shape, or boxes that are not finite.
    """
    _check_masks(masks, boxes)
    bitmaps = np.zeros((len(masks), *image_size), np.bool_)
    for bitmap, mask, box in zip(bitmaps, masks, _expanded(boxes, masks.shape[-1]), strict=True):
        _paste(mask, box, image_size, threshold, bitmap)
    return bitmaps


def paste_each(
    masks: FloatArray, boxes: FloatArray, image_size: tuple[int, int], threshold: float = 0.5
) -> Iterator[Bitmap]:
    """Gives what `paste_masks` does as one bool [H, W] after the other, to hold one in memory at a time."""
    _check_masks(masks, boxes)
    return (
        paste_masks(masks[row : row + 1], boxes[row : row + 1], image_size, threshold)[0] for row in range(len(masks))
    )


def paste_crop(
    mask: FloatArray, box: FloatArray, image_size: tuple[int, int], threshold: float = 0.5
) -> tuple[Bitmap, int, int]:
    """Pastes one mask, and only where it can reach: its pixels beyond the crop are all False.

    Args:
        mask: float32 [M, M] probabilities inside the box.
        box: float32 [4] xyxy, pixels of the image.
        image_size: (H, W) in pixels.
        threshold: probability.

    Returns:
        The crop, bool [h, w], and the row and column of its first pixel in the image. The box with the mask's border
        of one cell, cut off at the image's edges; [0, 0] at (0, 0) where nothing of it lies in the image.

    Raises:
        UsageError: as `paste_masks`.
    """
    _check_masks(mask[None], box[None])
    return _paste(mask, _expanded(box[None], len(mask))[0], image_size, threshold)


def masks_to_rle(
    masks: FloatArray, boxes: FloatArray, image_size: tuple[int, int], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Returns what `bitmap_to_rle` gives of each of `paste_masks`' bitmaps, without making whole bitmaps.

    Takes what `paste_masks` takes.

    Raises:
        UsageError: as `paste_masks`.
        DependencyMissing: faster_coco_eval is not installed.
    """
    _check_masks(masks, boxes)
    height, width = image_size
    runs = [
        {"size": [height, width], "counts": _run_lengths(*_paste(mask, box, image_size, threshold), image_size)}
        for mask, box in zip(masks, _expanded(boxes, masks.shape[-1]), strict=True)
    ]
    return [_with_text(rle) for rle in _coco_masks().frPyObjects(runs, height, width)] if runs else []


def _run_lengths(crop: Bitmap, top: int, left: int, image_size: tuple[int, int]) -> list[int]:
    """COCO's uncompressed counts of a bitmap: pixels column by column, the first run of them outside the object."""
    height, width = image_size
    rows, columns = crop.shape
    # A row of False between the columns: no run of the crop goes on from one into the next.
    closed = np.zeros((columns, rows + 1), np.bool_)
    closed[:, :rows] = crop.T
    flat = closed.ravel()
    column, row = np.divmod(np.flatnonzero(np.diff(flat, prepend=False)), rows + 1)
    edges = (column + left) * height + row + top
    if rows == height:  # but in the image a run at its lower edge may go on at the upper one
        joined = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, [joined, joined + 1])
    counts: list[int] = np.diff(edges, prepend=0, append=height * width).tolist()
    return counts if counts[-1] else counts[:-1]


def _check_masks(masks: FloatArray, boxes: FloatArray) -> None:
    if masks.dtype != np.float32 or masks.ndim != 3 or masks.shape[1] != masks.shape[2] or not masks.shape[1]:
        refuse("masks", "float32 [N, M, M]", Described(f"{masks.dtype} {list(masks.shape)}"))
    if boxes.dtype != np.float32 or boxes.shape != (len(masks), 4):
        refuse("boxes", f"float32 [{len(masks)}, 4]", Described(f"{boxes.dtype} {list(boxes.shape)}"))
    if not np.isfinite(boxes).all():
        refuse("boxes", "finite numbers", boxes[~np.isfinite(boxes).all(axis=1)][0].tolist())


def _expanded(boxes: FloatArray, side: int) -> NDArray[np.int64]:
    """Boxes grown with their masks' border and cut off to whole pixels towards zero, both ends inside."""
    scale = np.float32((side + 2 * _PADDING) / side)
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64)


def _paste(
    mask: FloatArray, box: NDArray[np.int64], image_size: tuple[int, int], threshold: float, frame: Bitmap | None = None
) -> tuple[Bitmap, int, int]:
    left, top, right, bottom = box.tolist()
    first_row, last_row = max(top, 0), min(bottom + 1, image_size[0])
    first_column, last_column = max(left, 0), min(right + 1, image_size[1])
    if first_row >= last_row or first_column >= last_column:
        return np.zeros((0, 0), np.bool_), 0, 0
    side = len(mask) + 2 * _PADDING
    padded = np.zeros((side, side), np.float32)
    padded[_PADDING:-_PADDING, _PADDING:-_PADDING] = mask
    low, high, across = bilinear_axis(side, right - left + 1, first_column - left, last_column - left)
    columns = padded[:, low] + (padded[:, high] - padded[:, low]) * across
    above, below, down = bilinear_axis(side, bottom - top + 1, first_row - top, last_row - top)
    crop = np.empty((last_row - first_row, last_column - first_column), np.bool_)
    if frame is not None:
        crop = frame[first_row:last_row, first_column:last_column]
    for start in range(0, len(crop), _ROWS):
        rows = slice(start, start + _ROWS)
        values = columns[below[rows]]
        upper = columns[above[rows]]
        values -= upper
        values *= down[rows, None]
        values += upper
        np.greater(values, np.float32(threshold), out=crop[rows])
    return crop, first_row, first_column


def bitmap_to_rle(bitmap: Bitmap) -> dict[str, Any]:
    """Returns COCO's compressed run lengths of a bool [H, W] bitmap: `{"size": [H, W], "counts": text}`.

    Made by faster_coco_eval.

    Raises:
        UsageError: not bool [H, W], or empty.
        DependencyMissing: faster_coco_eval is not installed.
    """
    _check_bitmap(bitmap)
    return _with_text(_coco_masks().encode(np.asfortranarray(bitmap, dtype=np.uint8)))


def rle_to_bitmap(rle: Mapping[str, Any]) -> Bitmap:
    """Returns the bool [H, W] bitmap of COCO run lengths, compressed (text or bytes) or not (a list).

    Raises:
        UsageError: no run lengths, such as do not fill their size, or of more than 65 million pixels.
        DependencyMissing: faster_coco_eval is not installed.
    """
    height, width = _rle_size(rle)
    compressed = segmentation_to_rle(rle, height, width)
    try:
        pixels: NDArray[np.uint8] = _coco_masks().decode(compressed)
    except (ValueError, RuntimeError) as error:
        _refuse_runs(rle, error)
    return np.ascontiguousarray(pixels, dtype=np.bool_)


def segmentation_to_rle(segmentation: object, height: int, width: int) -> dict[str, Any]:
    """Returns the compressed run lengths of a COCO annotation's `segmentation`.

    Args:
        segmentation: polygons `[[x, y, x, y, ...], ...]`, joined into one; or run lengths, compressed (these
            are checked where they are decoded) or not.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        UsageError: something else, or run lengths of another image size.
        DependencyMissing: faster_coco_eval is not installed.
    """
    if not isinstance(segmentation, Mapping):
        polygons = _polygons(segmentation)
        library = _coco_masks()
        return _with_text(library.merge(library.frPyObjects(polygons, height, width)))
    if _rle_size(segmentation) != (height, width):
        refuse("segmentation", f"run lengths of an image of {height} x {width} (H x W)", segmentation["size"])
    record = {"size": [height, width], "counts": segmentation.get("counts")}
    if isinstance(record["counts"], str | bytes):
        return _with_text(record)
    try:
        return _with_text(_coco_masks().frPyObjects(record, height, width))
    except (TypeError, ValueError, RuntimeError) as error:
        _refuse_runs(segmentation, error)


def _rle_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    height, width = several(whole(1, PIXEL_LIMIT), 2, 2)("run lengths' size", rle.get("size"))
    if height * width > PIXEL_LIMIT:
        refuse("run lengths' size", f"at most {PIXEL_LIMIT} pixels", (height, width))
    return height, width


def _refuse_runs(rle: Mapping[str, Any], error: Exception) -> NoReturn:
    problem = f"run lengths: expected counts that fill {rle['size']}, got {str(rle.get('counts'))[:40]!a}"
    raise UsageError(problem, str(error)) from error


def _polygons(segmentation: object) -> list[list[float]]:
    if not isinstance(segmentation, list | tuple) or not segmentation:
        refuse("segmentation", "polygons or run lengths", segmentation)
    return [_coordinates(f"polygon {index}", polygon) for index, polygon in enumerate(segmentation)]


def _coordinates(name: str, value: Any) -> list[float]:
    # Six numbers at least: the library takes four for a box. Bounded, since it walks along every edge.
    numbers = several(number(-_COORDINATE_LIMIT, _COORDINATE_LIMIT), 6, 1_000_000)(name, value)
    if len(numbers) % 2:
        refuse(name, "x and y in turn", Described(f"{len(numbers)} numbers"))
    return list(numbers)


def _with_text(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    return {"size": list(rle["size"]), "counts": text}


def bitmap_to_polygons(bitmap: Bitmap) -> list[NDArray[np.int32]]:
    """Returns the outlines of a bool [H, W] bitmap, each int32 [K, 2] of (x, y) with K >= 3.

    By supervision's `mask_to_polygons`: the corners are centres of the outermost pixels that belong to the
    object, so an outline encloses half a pixel less on each side; holes have outlines of their own, and
    parts of one or two pixels have none.

    Raises:
        UsageError: not bool [H, W], or empty.
        DependencyMissing: supervision is not installed.
    """
    _check_bitmap(bitmap)
    outlines: list[NDArray[np.int32]] = import_supervision().mask_to_polygons(bitmap)
    return outlines


def _check_bitmap(bitmap: Bitmap) -> None:
    if bitmap.dtype != np.bool_ or bitmap.ndim != 2 or not bitmap.size:
        refuse("bitmap", "bool [H, W], not empty", Described(f"{bitmap.dtype} {list(bitmap.shape)}"))


def _coco_masks() -> ModuleType:
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        problem = "COCO run lengths need the package faster_coco_eval, which is not installed"
        raise DependencyMissing(problem, "pip install 'edgemask[coco]'") from error
    module: ModuleType = mask
    return module


@functools.cache
def import_supervision() -> ModuleType:
    """Returns the module supervision.

    Raises:
        DependencyMissing: it is not installed.
    """
    with warnings.catch_warnings():
        # Its own drawing code serves as well here as OpenCV, which it recommends.
        warnings.filterwarnings("ignore", "OpenCV", UserWarning)
        try:
            import supervision
        except ImportError as error:
            problem = "drawing and outlines need the package supervision, which is not installed"
            raise DependencyMissing(problem, "pip install 'edgemask[draw]'") from error
    return supervision
