"""Boxes and scores that NMS must not get wrong, in groups of a few boxes.

Where the IoU lies at the threshold, areas, overlap and union are exact in float32, so that a kernel may compute them
in any order: only the division rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Boxes = Sequence[Sequence[float]]

_EXACT = 2**24  # whole numbers up to here are float32
_TINY = np.finfo(np.float32).tiny  # a CPU may take what is smaller for 0
_LARGEST_LINE = 2.0**10  # of score thresholds; scores near a higher one would be equal


@dataclass(frozen=True, slots=True)
class Cluster:
    """Boxes that overlap no box of another cluster.

    Attributes:
        kind: what they are about, for the message.
        boxes: [n, 4] xyxy.
        scores: [n].
    """

    kind: str
    boxes: Float32
    scores: Float32


def clusters(iou_threshold: float, score_threshold: float, canvas: tuple[int, int]) -> list[Cluster]:
    """Every kind of cluster; the one with the largest coordinates last.

    Args:
        iou_threshold: of the NMS.
        score_threshold: of the NMS.
        canvas: (H, W) in pixels of the largest canvas.
    """
    line = np.float32(score_threshold if abs(score_threshold) <= _LARGEST_LINE else 0.0)
    return [
        *_at_score(line),
        *_without_area(line),
        *_tied(line),
        *_flipped(line),
        *_at_iou(np.float32(iou_threshold), line),
        *_in_a_row(iou_threshold, line),
        *_drawn(line),
        *_large(iou_threshold, canvas, line),
    ]


def _cluster(kind: str, boxes: Boxes | Float32, line: np.float32, ranks: Sequence[int]) -> Cluster:
    """A cluster with scores so many steps above the threshold."""
    return Cluster(kind, np.asarray(boxes, np.float32), line + np.asarray(ranks, np.float32) / np.float32(32))


def _at_score(line: np.float32) -> Iterator[Cluster]:
    above, below = np.nextafter(line, np.float32(np.inf)), np.nextafter(line, np.float32(-np.inf))
    if line == 0:
        above, below = _TINY, -_TINY
    box = np.array([[0, 0, 8, 8]], np.float32)
    for kind, score in (("exactly at", line), ("one float32 above", above), ("one float32 below", below)):
        yield Cluster(f"score {kind} the threshold", box, np.array([score], np.float32))


def _without_area(line: np.float32) -> Iterator[Cluster]:
    for kind, empty in (("width", [4, 0, 4, 8]), ("height", [0, 4, 8, 4]), ("area", [4, 4, 4, 4])):
        yield _cluster(f"a better box without {kind} inside another", [empty, [0, 0, 8, 8]], line, [9, 3])
    yield _cluster("two boxes at one point", [[2, 2, 2, 2]] * 2, line, [5, 5])
    # 2 ** -26 square pixels: 0 in float16.
    yield _cluster("two equal boxes of a tiny area", [[0, 0, 2**-17, 2**-9]] * 2, line, [5, 4])


def _tied(line: np.float32) -> Iterator[Cluster]:
    yield _cluster("equal scores", [[4 * x, 0, 4 * x + 2, 2] for x in (2, 0, 1)], line, [7] * 3)
    yield _cluster("equal scores", [[4 * (x * 7 % 16), 0, 4 * (x * 7 % 16) + 2, 2] for x in range(16)], line, [6] * 16)
    yield _cluster("equal boxes with equal scores", [[0, 0, 8, 8]] * 4, line, [5] * 4)
    yield _cluster("one box in another with equal scores", [[0, 0, 15, 16], [0, 0, 16, 16]], line, [5] * 2)
    yield _cluster("equal boxes, the last the best", [[0, 0, 8, 8]] * 3, line, [1, 2, 3])
    yield _cluster("boxes that touch", [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16]], line, [3, 2, 1])


def _flipped(line: np.float32) -> Iterator[Cluster]:
    for axis, box in (("x", [8, 0, 0, 4]), ("y", [0, 4, 8, 0]), ("x and y", [8, 4, 0, 0])):
        yield _cluster(f"a better box flipped along {axis} on another", [box, [0, 0, 8, 4]], line, [4, 2])


def _at_iou(threshold: np.float32, line: np.float32) -> Iterator[Cluster]:
    places = {
        "exactly at": threshold,
        "one float32 above": np.nextafter(threshold, np.float32(np.inf)),
        "one float32 below": np.nextafter(threshold, np.float32(-np.inf)),
    }
    for place, iou in places.items():
        widths = nested_widths(iou) if _TINY <= iou <= 1 else None
        if widths is None:
            continue
        boxes = [[0, 0, width, 1] for width in widths]
        for kind, ranks in (("the narrow box better", [4, 3]), ("the wide one better", [3, 4]), ("a tie", [3, 3])):
            yield _cluster(f"IoU {place} the threshold, {kind}", boxes, line, ranks)


def nested_widths(iou: np.float32) -> tuple[float, float] | None:
    """Widths in pixels of two boxes, one in the other, whose float32 IoU is exactly this one; None: not found."""
    wide = np.linspace(2**22, _EXACT - 1, 2**16).astype(np.int64)
    narrow = np.rint(wide * float(iou)).astype(np.int64)
    both = wide + narrow  # the areas, before the overlap is taken off
    found = (narrow > 0) & (both.astype(np.float32) == both)
    found &= narrow.astype(np.float32) / wide.astype(np.float32) == iou
    if not found.any():
        return None
    first = np.argmax(found)
    return float(narrow[first]) / 2**13, float(wide[first]) / 2**13


def _in_a_row(threshold: float, line: np.float32) -> Iterator[Cluster]:
    """Of three, each next one suppresses or is suppressed, but for the first and the third."""
    shift = np.floor(64 * 0.8 * (1 - threshold) / (1 + threshold)) / 8
    boxes = [[place * shift, 0, place * shift + 8, 8] for place in range(3)]
    yield _cluster("a box suppressed by a box that is suppressed", boxes, line, [3, 2, 1])
    yield _cluster("the box between two others the best", boxes, line, [1, 3, 2])


def _drawn(line: np.float32) -> Iterator[Cluster]:
    """On a small grid most overlaps are equal fractions."""
    random = np.random.default_rng(0)
    for _ in range(3):
        corners = random.integers(0, 6, (12, 2))
        boxes = np.concatenate([corners, corners + random.integers(1, 6, (12, 2))], 1)
        yield _cluster("twelve boxes on a grid", boxes.astype(np.float32), line, random.integers(1, 6, 12).tolist())


def _large(threshold: float, canvas: tuple[int, int], line: np.float32) -> Iterator[Cluster]:
    """Areas beyond 65,504 square pixels are infinite in float16, and an overlap divided by a union no number."""
    for height, width in ((264, 264), canvas):
        for kind, share in (("above", threshold + (1 - threshold) / 16), ("below", threshold * 15 / 16)):
            boxes = [[0, 0, width, height], [0, 0, width, np.round(height * share)]]
            yield _cluster(f"areas of {width * height} px², IoU {kind} the threshold", boxes, line, [2, 1])
