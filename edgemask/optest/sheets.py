"""Clusters laid out as the input of an NMS: many in one run, at the sizes that the file has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.optest.clusters import Cluster, Float32

_BATCH, _CLASSES = 2, 3  # where the file leaves them open
_BOXES = 256  # of a sheet, at most, where the file leaves their number open
_LARGEST_LIMIT = 4096  # boxes of one class that are worth a vector
_AXES = ([0, 1, 2, 3], [1, 0, 3, 2])


@dataclass(frozen=True, slots=True)
class Sheet:
    """One run of an NMS.

    Attributes:
        kinds: of its vectors.
        boxes: [B, N, 4].
        scores: [B, C, N].
        owner: [B, N], the vector that a box belongs to; -1 for those that fill up.
    """

    kinds: tuple[str, ...]
    boxes: Float32
    scores: Float32
    owner: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of an NMS in a file, None for what may change.

    Attributes:
        batch: B of boxes [B, N, 4].
        classes: C of scores [B, C, N].
        amount: N of both.
        limit: boxes kept of a class at most.
        absent: a score that takes no part.
    """

    batch: int | None
    classes: int | None
    amount: int | None
    limit: int
    absent: float


def sheets(made: Sequence[Cluster], layout: Layout) -> Iterator[Sheet]:
    """Every cluster lying and upright, then more boxes than may be kept, none above the threshold, and no boxes."""
    for axes, suffix in zip(_AXES, ("", ", upright"), strict=True):
        for group in _groups(made, layout):
            boxes, scores, owner = _stacked(group)
            yield _sheet([cluster.kind + suffix for cluster in group], boxes[:, axes], scores, owner, layout)
    room = layout.limit + 8
    if room <= min(_LARGEST_LIMIT, layout.amount or _LARGEST_LIMIT):
        yield _beyond_limit(room, layout)
    amount = min(3, layout.amount or 3)
    few = np.tile(np.array([[0, 0, 8, 8]], np.float32), (amount, 1))
    absent = np.full(amount, layout.absent, np.float32)
    yield _sheet(["no score above the threshold"], few, absent, np.zeros(amount, np.int64), layout)
    if layout.amount is None:
        yield _sheet(["no boxes"], few[:0], absent[:0], np.zeros(0, np.int64), layout)


def _groups(made: Sequence[Cluster], layout: Layout) -> Iterator[list[Cluster]]:
    """As many clusters as fit, so that each box could be kept; one that could not stands alone."""
    room = min(_BOXES, layout.amount or _BOXES, layout.limit or _BOXES)
    group: list[Cluster] = []
    for cluster in made:
        if len(cluster.scores) > (layout.amount or _BOXES):
            continue
        if group and sum(len(other.scores) for other in (*group, cluster)) > room:
            yield group
            group = []
        group.append(cluster)
    if group:
        yield group


def _stacked(group: Sequence[Cluster]) -> tuple[Float32, Float32, NDArray[np.int64]]:
    """Clusters one below the other, by whole pixels."""
    below = 0.0
    parts = []
    for cluster in group:
        rows = cluster.boxes[:, 1::2]
        parts.append(cluster.boxes + np.array([0, below, 0, below], np.float32))
        below += float(np.ceil(rows.max())) + 1
    owner = np.repeat(np.arange(len(group)), [len(cluster.scores) for cluster in group])
    return np.concatenate(parts), np.concatenate([cluster.scores for cluster in group]), owner


def _sheet(
    kinds: Sequence[str],
    boxes: Float32,
    scores: Float32,
    owner: NDArray[np.int64],
    layout: Layout,
    only: int | None = None,
) -> Sheet:
    """The same boxes in every image, backwards in every other one, with some vectors absent from each class.

    The first class of the first image has all of them; with `only`, that class of all images and classes has, and no
    other has any.
    """
    batch, classes = layout.batch or _BATCH, layout.classes or _CLASSES
    filling = (layout.amount or len(scores)) - len(scores)
    boxes, owner = np.pad(boxes, ((0, filling), (0, 0))), np.pad(owner, (0, filling), constant_values=-1)
    scores = np.pad(scores, (0, filling), constant_values=layout.absent)
    cell = np.arange(batch * classes).reshape(batch, classes, 1)
    takes_part = (cell == 0) | ((owner + cell) % 3 != 0) if only is None else cell == only
    by_class = np.where(takes_part, scores, np.float32(layout.absent))
    backwards = np.arange(batch)[:, None] % 2 == 1
    return Sheet(
        tuple(kinds),
        np.where(backwards[..., None], boxes[::-1], boxes).astype(np.float32),
        np.where(backwards[..., None], by_class[..., ::-1], by_class).astype(np.float32),
        np.where(backwards, owner[::-1], owner),
    )


def _beyond_limit(count: int, layout: Layout) -> Sheet:
    """Boxes apart from each other with many equal scores, in the last class alone."""
    x = 2 * np.arange(count, dtype=np.float32)
    boxes = np.stack([x, np.zeros_like(x), x + 1, np.ones_like(x)], 1)
    scores = np.float32(layout.absent + 2) + (np.arange(count, dtype=np.float32) * 7 % 16) / np.float32(32)
    kind = f"{count} boxes apart from each other, of which {layout.limit} may be kept"
    last = (layout.batch or _BATCH) * (layout.classes or _CLASSES) - 1
    return _sheet([kind], boxes, scores, np.zeros(count, np.int64), layout, last)
