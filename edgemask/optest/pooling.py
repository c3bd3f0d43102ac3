"""A pooling op of a file, held against `edgemask.ops.multi_scale_roi_align`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.ops import check_multi_scale_roi_align, multi_scale_roi_align
from edgemask.optest.outcomes import Outcome, Run
from edgemask.optest.rois import Float32, Pooling, regions
from edgemask.optest.sites import Sides

_IMAGES, _CHANNELS = 2, 5  # where the file leaves them open
# Channels beyond these repeat them: pooling treats all alike, and the reference takes its time for each. The number
# divides no width of a vector register, so that channels that are mixed up show.
_DISTINCT = 5
_CELLS = (4, 5)  # of the coarsest map, where the file leaves it open


class Pool:
    """The vectors of one `MultiScaleRoiAlign_L{n}`.

    Args:
        attributes: of the op.
        sides: of its inputs, the rois last; an empty entry: not known.
        canvas: (H, W) in pixels of the largest canvas.

    Raises:
        UsageError: attributes that the op does not define.
    """

    def __init__(self, attributes: Mapping[str, Any], sides: tuple[Sides, ...], canvas: tuple[int, int]) -> None:
        self.attributes = {name: value for name, value in attributes.items() if not name.startswith("output_")}
        self.attributes["output_size"] = (attributes["output_height"], attributes["output_width"])
        check_multi_scale_roi_align(len(sides) - 1, **self.attributes)
        maps = [side or (None,) * 4 for side in sides[:-1]]
        self.images, self.channels = maps[0][0] or _IMAGES, maps[0][1] or _CHANNELS
        self.rows = sides[-1][0] if sides[-1] else None
        scales = tuple(attributes["spatial_scales"])
        self.maps = [
            tuple(
                side or max(1, round(cells * scale / min(scales)))
                for side, cells in zip(sizes[2:], _CELLS, strict=True)
            )
            for sizes, scale in zip(maps, scales, strict=True)
        ]
        self.kinds, self.boxes = regions(
            Pooling(
                output_size=self.attributes["output_size"],
                sampling_ratio=attributes["sampling_ratio"],
                half_pixel=attributes["coordinate_transformation_mode"] == "half_pixel",
                scales=scales,
                canonical_scale=attributes["canonical_scale"],
                canonical_level=attributes["canonical_level"],
                maps=tuple((rows, columns) for rows, columns in self.maps),
                canvas=canvas,
            )
        )

    def judge(self, run: Run, outcome: Outcome) -> None:
        """Runs every vector and counts those that are further away than the tolerance, or of another shape."""
        random = np.random.default_rng(4)
        few = min(self.channels, _DISTINCT)
        distinct = [random.standard_normal((self.images, few, *size), dtype=np.float32) for size in self.maps]
        repeated = np.arange(self.channels) % few
        features = [np.take(feature, repeated, axis=1) for feature in distinct]
        images = np.arange(len(self.boxes), dtype=np.float32) % self.images
        rois = np.concatenate([images[:, None], self.boxes], 1)
        for first in range(0, len(rois), self.rows or len(rois)):
            part = rois[first : first + (self.rows or len(rois))]
            # A row of zeros, as the graph fills up with: its answer does not matter.
            filled = np.pad(part, ((0, (self.rows or len(part)) - len(part)), (0, 0)))
            expected = multi_scale_roi_align(distinct, part, **self.attributes)[:, repeated]
            self._compare(first, part, expected, run([*features, filled]), outcome)
        if self.rows is None:
            outcome.vectors += 1
            got = run([*features, rois[:0]])
            if got.shape != (0, self.channels, *self.attributes["output_size"]):
                outcome.error = np.inf
                outcome.fail(f"no regions: got the shape {list(got.shape)}")

    def _compare(self, first: int, rois: Float32, expected: Float32, got: NDArray[Any], outcome: Outcome) -> None:
        outcome.vectors += len(rois)
        if got.shape != (self.rows or len(rois), *expected.shape[1:]):
            outcome.error = np.inf
            for kind in self.kinds[first : first + len(rois)]:
                outcome.fail(f"{kind}: got the shape {list(got.shape)} for {len(rois)} regions")
            return
        apart = np.abs(got[: len(rois)].astype(np.float64) - expected)
        apart[np.isnan(apart)] = np.inf
        errors = apart.max(axis=(1, 2, 3), initial=0.0)
        outcome.error = max(outcome.error, float(errors.max(initial=0.0)))
        for row in np.flatnonzero(errors > outcome.tolerance):
            place = np.unravel_index(apart[row].argmax(), apart[row].shape)
            outcome.fail(
                f"{self.kinds[first + row]}: roi {', '.join(f'{side:.9g}' for side in rois[row, 1:])} of image "
                f"{rois[row, 0]:.0f}: expected {expected[row][place]:.6g}, got {got[row][place]:.6g}"
            )
