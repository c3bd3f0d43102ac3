"""An NMS of a file, held against `edgemask.ops.batched_nms`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.ops import batched_nms, check_batched_nms
from edgemask.optest.clusters import clusters
from edgemask.optest.outcomes import Outcome, Run
from edgemask.optest.sheets import Layout, Sheet, sheets
from edgemask.optest.sites import Sides

_SHOWN = 6  # boxes named in a sentence


class Suppression:
    """The vectors of one `BatchedNms`.

    Args:
        attributes: of the op.
        sides: of its two inputs; an empty entry: not known.
        canvas: (H, W) in pixels of the largest canvas.

    Raises:
        UsageError: attributes that the op does not define.
    """

    def __init__(self, attributes: Mapping[str, Any], sides: tuple[Sides, ...], canvas: tuple[int, int]) -> None:
        self.attributes = dict(attributes)
        check_batched_nms(**self.attributes)
        boxes, scores = (side or (None,) * 3 for side in sides)
        line = float(attributes["score_threshold"])
        self.layout = Layout(boxes[0], scores[1], boxes[1] or scores[2], int(attributes["max_per_class"]), line - 1)
        self.clusters = clusters(float(attributes["iou_threshold"]), line, canvas)

    def judge(self, run: Run, outcome: Outcome) -> None:
        """Runs every vector and counts those that give another selection, or another order."""
        for sheet in sheets(self.clusters, self.layout):
            outcome.vectors += len(sheet.kinds)
            expected = batched_nms(sheet.boxes, sheet.scores, **self.attributes)
            for sentence in _failures(sheet, expected, run([sheet.boxes, sheet.scores])):
                outcome.fail(sentence)
                outcome.error += 1


def _failures(sheet: Sheet, expected: NDArray[np.int64], got: NDArray[Any]) -> Iterator[str]:
    """A sentence for each vector of which other boxes were selected, or in another order."""
    if np.array_equal(expected, got):
        return
    bounds = (*sheet.scores.shape[:2], sheet.boxes.shape[1])
    if got.ndim != 2 or got.shape[1] != 3 or ((got < 0) | (got >= bounds)).any():
        yield from (f"{kind}: got no rows of image, class and box, but {_shown(got)}" for kind in sheet.kinds)
        return
    found = False
    for vector, kind in enumerate(sheet.kinds):
        ours, theirs = (rows[sheet.owner[rows[:, 0], rows[:, 2]] == vector] for rows in (expected, got))
        if not np.array_equal(ours, theirs):
            found = True
            yield f"{kind}: {_difference(sheet, vector, ours, theirs)}"
    if not found:
        yield f"{sheet.kinds[0]} and others in one run: the same boxes in another order"


def _difference(sheet: Sheet, vector: int, expected: NDArray[np.int64], got: NDArray[Any]) -> str:
    """What was selected in the first image and class that differs, the boxes counted from the vector's first."""
    for image, label in np.ndindex(sheet.scores.shape[:2]):
        first = int(np.flatnonzero(sheet.owner[image] == vector)[0])
        ours, theirs = (rows[(rows[:, 0] == image) & (rows[:, 1] == label), 2] - first for rows in (expected, got))
        if not np.array_equal(ours, theirs):
            return f"expected {_shown(ours)} of image {image}, class {label}, got {_shown(theirs)}"
    return f"expected {len(expected)} rows by image and class, got them in another order"


def _shown(values: NDArray[Any]) -> str:
    rows = values.tolist()
    if not rows:
        return "nothing"
    named = ", ".join(map(str, rows[:_SHOWN]))
    return f"{named} and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else named
