"""Runs an exported file with ONNX Runtime, numpy and Pillow alone: the recipe for a port to C++ or another language.

    python samples/onnxruntime_only.py MODEL.onnx IMAGE...

The file says what to do: its metadata entry `edgemask.spec` is JSON. `edgemask.load` also checks the file's digest.
"""

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def resized_size(height: int, width: int, spec: dict[str, Any]) -> tuple[int, int]:
    """As PyTorch resizes it, rounded down; and smaller yet where a fixed canvas asks for it."""
    scale = min(spec["min_size"] / min(height, width), spec["max_size"] / max(height, width))
    height, width = spec["fixed_size"] or (int(height * scale), int(width * scale))
    rows, columns = spec["canvas"] or (height, width)
    if height <= rows and width <= columns:
        return height, width
    if height * columns >= width * rows:
        return rows, max(1, width * rows // height)
    return max(1, height * columns // width), columns


def resized(image: Any, axis: int, length: int) -> Any:
    """Bilinear between pixel centres, without the antialiasing of Pillow's own resize."""
    scale = float(np.float32(image.shape[axis]) / np.float32(length))
    positions = np.maximum((scale * (np.arange(length) + 0.5) - 0.5).astype(np.float32), 0)
    low = np.minimum(positions.astype(int), image.shape[axis] - 1)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    weights = (positions - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return image.take(low, axis) + (image.take(high, axis) - image.take(low, axis)) * weights


def prepared(pixels: Any, spec: dict[str, Any]) -> tuple[Any, Any]:
    """Graph inputs: the image, 0-255, in the top left corner of a black canvas, and its height and width there."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], spec)
    stride = spec["size_divisible"]
    rows, columns = spec["canvas"] or (-(-height // stride) * stride, -(-width // stride) * stride)
    images = np.zeros((spec["batch"] or 1, 3, rows, columns), np.float32)
    images[:, :, :height, :width] = resized(resized(pixels.astype(np.float32), 0, height), 1, width).transpose(2, 0, 1)
    return images, np.array([[height, width]] * len(images), np.int64)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    spec = json.loads(session.get_modelmeta().custom_metadata_map["edgemask.spec"])
    for path in sys.argv[2:]:
        pixels = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        images, sizes = prepared(pixels, spec)
        names = ["batch_index", "boxes", "scores", "labels"]
        index, *found = session.run(names, {"images": images, "image_sizes": sizes})
        boxes, scores, labels = (values[index == 0] for values in found)
        ratio = np.array(pixels.shape[:2], np.float32) / sizes[0].astype(np.float32)  # of heights, of widths
        for box, score, label in zip(boxes * ratio[[1, 0, 1, 0]], scores, labels, strict=True):
            print(f"{path}: {spec['class_names'][label - 1]} {score:.4f}", *(f"{value:.4f}" for value in box))
