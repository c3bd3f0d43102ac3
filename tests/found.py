"""What some model found on some image: detections that tests of several parts compare."""

import dataclasses
from typing import Any

import numpy as np

from edgemask.detections import Detections

SIZE = (240, 320)


def detections(boxes: Any, scores: Any, labels: Any = None, **more: Any) -> Detections:
    """Detections from lists, put into descending order of their scores."""
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    labels = np.ones(len(scores), np.int64) if labels is None else np.asarray(labels, np.int64)
    order = np.argsort(-scores, kind="stable")
    more = {name: None if value is None else value[order] for name, value in more.items()}
    return Detections(boxes[order], scores[order], labels[order], image_size=SIZE, **more)


def found_on(image: int, count: int = 20) -> Detections:
    """What some model found on some image: random, with masks, scores from 0.1 on."""
    rng = np.random.default_rng(image)
    corners = rng.uniform((0, 0), (250, 170), (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 70, (count, 2))], 1)
    rows, columns = (np.arange(14) - rng.uniform(5, 8, (count, 1)) for _ in range(2))
    distances = np.hypot(rows[:, :, None], columns[:, None])
    masks = (1 / (1 + np.exp(distances - rng.uniform(3, 6, (count, 1, 1))))).astype(np.float32)
    return detections(boxes, rng.uniform(0.1, 1, count), rng.integers(1, 5, count), masks=masks)


def changed(found: Detections, **changes: Any) -> Detections:
    kept = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.init}
    return Detections(**{**kept, **changes})
