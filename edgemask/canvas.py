"""The network's canvas: eager's integer resize of an image onto it, and boxes back to original pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, refuse
from edgemask.errors import ImageError
from edgemask.images import PIXEL_LIMIT, check_array
from edgemask.spec import ModelSpec

# Rows resized at a time, so that intermediate results stay in the cache: 3 times faster than all at once.
_ROWS = 16

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies on its canvas.

    Args:
        original_size: (H, W) of the image as it came, pixels.
        size: (h, w) of the resized image, in the canvas's top left corner, pixels.
        canvas: (Hc, Wc) of the network input, pixels.
        resized_beyond_reference: the image had to be made smaller than the PyTorch model would make it.
    """

    original_size: tuple[int, int]
    size: tuple[int, int]
    canvas: tuple[int, int]
    resized_beyond_reference: bool


def eager_size(height: int, width: int, spec: ModelSpec) -> tuple[int, int]:
    """Returns (h, w), the integer size to which torchvision's eager model resizes an image.

    The scale is a float64, and a float64 product is cut off, as in GeneralizedRCNNTransform with
    `interpolate(recompute_scale_factor=True)`; a traced model computes both in float32 and can differ by 1.

    Raises:
        UsageError: height or width below 1.
        ImageError: a side would be 0 pixels long.
    """
    if min(height, width) < 1:
        refuse("image size", "height and width of at least 1", (height, width))
    if spec.fixed_size is not None:
        return spec.fixed_size
    scale = min(spec.min_size / min(height, width), spec.max_size / max(height, width))
    size = int(height * scale), int(width * scale)
    if 0 in size:
        problem = f"image of {height} x {width} pixels (H x W) would be resized to {size[0]} x {size[1]}"
        raise ImageError(problem, "crop it: the PyTorch model cannot take an image so narrow either")
    return size


def bilinear_axis(
    length: int, new_length: int, first: int = 0, last: int | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Returns the two source indices and the upper one's weight for positions first ... last - 1 of an axis.

    The arithmetic is that of torch's `interpolate(align_corners=False)`: a float32 scale, and a position
    rounded to float32 once, after a fused multiply-add, as torch has it on one thread. On several it rounds after the
    product too, which moves grey levels by up to 0.01.
    """
    scale = np.float64(np.float32(length) / np.float32(new_length))
    positions = np.arange(first, new_length if last is None else last) + 0.5
    sources = np.maximum((scale * positions - 0.5).astype(np.float32), np.float32(0))
    lower = np.minimum(sources.astype(np.intp), length - 1)
    weight = np.clip(sources - lower.astype(np.float32), np.float32(0), np.float32(1))
    return lower, np.minimum(lower + 1, length - 1), weight


def resize_bilinear(image: NDArray[Any], size: tuple[int, int]) -> FloatArray:
    """Resizes a [H, W, 3] image (uint8 or float) to float32 [h, w, 3], without antialiasing.

    Equal to `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` on the float32 image
    within 1e-4 grey levels of 255.

    Raises:
        UsageError: not three-dimensional, empty, or a new side below 1.
    """
    if image.ndim != 3 or 0 in image.shape:
        refuse("image", "[H, W, C], not empty", Described(str(list(image.shape))))
    if min(size) < 1:
        refuse("size", "height and width of at least 1", size)
    planes = np.empty((image.shape[2], *size), np.float32)
    _resize_into(image, planes)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _resize_into(image: NDArray[Any], planes: FloatArray) -> None:
    """Resizes [H, W, C] into float32 [C, h, w], which may be a window of a larger array."""
    height, width = planes.shape[1:]
    if image.shape[:2] == (height, width):
        planes[:] = image.transpose(2, 0, 1)
        return
    above, below, down = bilinear_axis(image.shape[0], height)
    left, right, across = bilinear_axis(image.shape[1], width)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        mixed = _mix(image[above[rows]], image[below[rows]], down[rows, None, None])
        channels = np.ascontiguousarray(mixed.transpose(2, 0, 1))
        planes[:, rows] = _mix(channels.take(left, axis=2), channels.take(right, axis=2), across)


def _mix(low: NDArray[Any], high: NDArray[Any], weight: FloatArray) -> FloatArray:
    mixed = high.astype(np.float32)
    low = low.astype(np.float32, copy=False)
    mixed -= low
    mixed *= weight
    mixed += low
    return mixed


def placement_of(original: tuple[int, int], spec: ModelSpec) -> Placement:
    """Says where an image of (H, W) pixels comes to lie, by the spec's resize rule and canvas.

    A dynamic canvas is the resized image rounded up to `size_divisible`. What does not fit a static one is made
    smaller, keeping its shape.

    Raises:
        ImageError: the resized image would have a side of 0 pixels, or more than 65 million pixels.
    """
    wanted = eager_size(*original, spec)
    stride = spec.size_divisible
    canvas = spec.canvas or (-(-wanted[0] // stride) * stride, -(-wanted[1] // stride) * stride)
    if canvas[0] * canvas[1] > PIXEL_LIMIT:
        problem = f"image of {original[0]} x {original[1]} pixels (H x W) needs {canvas[0]} x {canvas[1]}"
        raise ImageError(f"{problem}, which is more than {PIXEL_LIMIT} pixels", "crop it, or lower max_size")
    size = _fit(wanted, canvas)
    return Placement(original, size, canvas, resized_beyond_reference=size != wanted)


def place_on_canvas(image: NDArray[np.uint8], spec: ModelSpec) -> tuple[FloatArray, Placement]:
    """Resizes an image as the PyTorch model would and places it on the network's canvas.

    Args:
        image: uint8 [H, W, 3] RGB.
        spec: its resize rule and canvas are used, as `placement_of` says.

    Returns:
        float32 [3, Hc, Wc] with values 0-255, the image top left and zeros elsewhere; and the placement.

    Raises:
        UsageError: an array of another type or shape.
        ImageError: the resized image would have a side of 0 pixels, or more than 65 million pixels.
    """
    check_array(image)
    placement = placement_of((image.shape[0], image.shape[1]), spec)
    height, width = placement.size
    planes = np.zeros((3, *placement.canvas), np.float32)
    _resize_into(image, planes[:, :height, :width])
    return planes, placement


def _fit(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    (height, width), (rows, columns) = size, canvas
    if height <= rows and width <= columns:
        return size
    # In whole numbers: the side that limits gets the canvas's length exactly.
    if height * columns >= width * rows:
        return rows, max(1, width * rows // height)
    return max(1, height * columns // width), columns


def boxes_to_original(boxes: NDArray[np.float32], placement: Placement) -> FloatArray:
    """Brings float32 [N, 4] xyxy boxes from canvas pixels to pixels of the original image.

    float32 ratios per axis, as torchvision's `resize_boxes`.

    Raises:
        UsageError: boxes of another type or shape.
    """
    ratio_height, ratio_width = np.asarray(placement.original_size, np.float32) / np.asarray(placement.size, np.float32)
    return _scaled(boxes, ratio_width, ratio_height)


def boxes_to_canvas(boxes: NDArray[np.float32], placement: Placement) -> FloatArray:
    """Brings float32 [N, 4] xyxy boxes from pixels of the original image to canvas pixels: the way there.

    Raises:
        UsageError: boxes of another type or shape.
    """
    ratio_height, ratio_width = np.asarray(placement.size, np.float32) / np.asarray(placement.original_size, np.float32)
    return _scaled(boxes, ratio_width, ratio_height)


def _scaled(boxes: NDArray[np.float32], horizontally: np.float32, vertically: np.float32) -> FloatArray:
    if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        refuse("boxes", "float32 [N, 4]", Described(f"{boxes.dtype} {list(boxes.shape)}"))
    return boxes * np.array([horizontally, vertically, horizontally, vertically], np.float32)
