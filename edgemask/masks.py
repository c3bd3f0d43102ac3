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
        _paste(bitmap, mask, box, threshold)
    return bitmaps


def paste_each(
    masks: FloatArray, boxes: FloatArray, image_size: tuple[int, int], threshold: float = 0.5
) -> Iterator[Bitmap]:
    """Gives what `paste_masks` does as one bool [H, W] after the other, to hold one in memory at a time."""
    _check_masks(masks, boxes)
    return (
        paste_masks(masks[row : row + 1], boxes[row : row + 1], image_size, threshold)[0] for row in range(len(masks))
    )


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


def _paste(bitmap: Bitmap, mask: FloatArray, box: NDArray[np.int64], threshold: float) -> None:
    left, top, right, bottom = (int(side) for side in box)
    height, width = bitmap.shape
    first_row, last_row = max(top, 0), min(bottom + 1, height)
    first_column, last_column = max(left, 0), min(right + 1, width)
    if first_row >= last_row or first_column >= last_column:
        return
    mask = np.pad(mask, _PADDING)
    side = len(mask)
    low, high, across = bilinear_axis(side, right - left + 1, first_column - left, last_column - left)
    columns = mask[:, low] + (mask[:, high] - mask[:, low]) * across
    above, below, down = bilinear_axis(side, bottom - top + 1, first_row - top, last_row - top)
    region = bitmap[first_row:last_row, first_column:last_column]
    for start in range(0, len(region), _ROWS):
        rows = slice(start, start + _ROWS)
        values = columns[below[rows]]
        upper = columns[above[rows]]
        values -= upper
        values *= down[rows, None]
        values += upper
        np.greater(values, np.float32(threshold), out=region[rows])


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
        UsageError: no run lengths, such as do not fill their size, or of more than 89 million pixels.
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
