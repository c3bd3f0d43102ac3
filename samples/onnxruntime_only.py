"""Runs an exported file with ONNX Runtime, numpy and Pillow alone: the recipe for a port to C++ or another language.

    python samples/onnxruntime_only.py MODEL.onnx IMAGE...

The hash of a canvas tells whether a port prepares images alike; README.md has a golden one.
"""

import hashlib
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepared(pixels: np.ndarray, spec: dict) -> tuple[np.ndarray, np.ndarray]:
    """Graph inputs: the image, 0-255, in the top left corner of a black canvas, and its height and width there."""
    scale = min(spec["min_size"] / min(pixels.shape[:2]), spec["max_size"] / max(pixels.shape[:2]))
    height, width = spec["fixed_size"] or (int(pixels.shape[0] * scale), int(pixels.shape[1] * scale))
    stride = spec["size_divisible"]
    rows, columns = spec["canvas"] or (-(-height // stride) * stride, -(-width // stride) * stride)
    if height > rows or width > columns:  # than a fixed canvas: smaller yet, of the same shape
        height, width = min(rows, max(1, height * columns // width)), min(columns, max(1, width * rows // height))
    for axis, length in enumerate((height, width)):  # bilinear between pixel centres, without antialiasing
        ratio = float(np.float32(pixels.shape[axis]) / np.float32(length))
        places = np.maximum((ratio * (np.arange(length) + 0.5) - 0.5).astype(np.float32), 0)
        low = places.astype(int)
        high = np.minimum(low + 1, pixels.shape[axis] - 1)
        first, second = pixels.take(low, axis).astype(np.float32), pixels.take(high, axis).astype(np.float32)
        pixels = first + (second - first) * (places % 1).reshape((-1, 1, 1)[: 3 - axis])
    images = np.zeros((spec["batch"] or 1, 3, rows, columns), np.float32)
    images[:, :, :height, :width] = pixels.transpose(2, 0, 1)
    return images, np.array([[height, width]] * len(images), np.int64)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    spec = json.loads(session.get_modelmeta().custom_metadata_map["edgemask.spec"])
    for path in sys.argv[2:]:
        pixels = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        images, sizes = prepared(pixels, spec)
        print(f"{path}: canvas {list(images[0].shape)} sha256 {hashlib.sha256(images[0]).hexdigest()}")
        names = ["batch_index", "boxes", "scores", "labels"]
        index, *found = session.run(names, {"images": images, "image_sizes": sizes})
        ratio = np.array(pixels.shape[:2], np.float32) / sizes[0].astype(np.float32)  # of heights, of widths
        for box, score, label in zip(*(values[index == 0] for values in found), strict=True):
            corners = " ".join(f"{value:.4f}" for value in box * ratio[[1, 0, 1, 0]])
            print(f"{path}: {spec['class_names'][label - 1]} {score:.4f} {corners}")
