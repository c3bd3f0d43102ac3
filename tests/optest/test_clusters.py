"""Boxes at the threshold are at it exactly, whatever order a kernel computes in."""

import numpy as np
import pytest

from edgemask.ops import batched_nms, floor32
from edgemask.optest.clusters import Cluster, clusters, nested_widths

THRESHOLDS = [0.001, 0.25, 0.3, 0.45, 0.5, 0.6, 0.7, 0.75, 0.9, 0.95]


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("towards", [None, 0.0, 1.0])
def test_nested_widths_have_exactly_the_iou(threshold: float, towards: float | None) -> None:
    iou = np.float32(floor32(threshold))
    iou = iou if towards is None else np.nextafter(iou, np.float32(towards))
    widths = nested_widths(iou)
    assert widths is not None
    narrow, wide = (np.float32(width) for width in widths)
    assert (float(narrow), float(wide)) == widths, "float32 holds them"
    assert narrow < wide <= 2048
    for union in (narrow + wide - narrow, wide + narrow - narrow, wide - narrow + narrow):
        assert narrow / union == iou


def test_an_iou_that_no_boxes_have() -> None:
    assert nested_widths(np.nextafter(np.float32(1), np.float32(0))) is None


def selected(cluster: Cluster, threshold: float, line: float) -> list[int]:
    arguments = {"iou_threshold": threshold, "score_threshold": line, "max_per_class": 100}
    return batched_nms(cluster.boxes[None], cluster.scores[None, None], **arguments)[:, 2].tolist()


@pytest.mark.parametrize("line", [-0.5, 0.0, 0.05])
@pytest.mark.parametrize("threshold", [floor32(value) for value in THRESHOLDS[1:]])
def test_every_kind_decides_what_it_says(threshold: float, line: float) -> None:
    found = {cluster.kind: selected(cluster, threshold, line) for cluster in clusters(threshold, line, (800, 1088))}
    for place, kept in (("exactly at", 2), ("one float32 above", 1), ("one float32 below", 2)):
        for kind in ("the narrow box better", "the wide one better", "a tie"):
            assert len(found[f"IoU {place} the threshold, {kind}"]) == kept
    assert found["score exactly at the threshold"] == []
    assert found["score one float32 above the threshold"] == [0]
    assert found["score one float32 below the threshold"] == []
    for what in ("width", "height", "area"):
        assert found[f"a better box without {what} inside another"] == [0, 1]
    assert found["equal boxes with equal scores"] == [0]
    assert found["equal boxes, the last the best"] == [2]
    assert found["a box suppressed by a box that is suppressed"] == [0, 2]
    assert found["the box between two others the best"] == [1]
    for axis in ("x", "y", "x and y"):
        assert found[f"a better box flipped along {axis} on another"] == [0]
    for area in (264 * 264, 800 * 1088):
        assert found[f"areas of {area} px², IoU above the threshold"] == [0]
        assert found[f"areas of {area} px², IoU below the threshold"] == [0, 1]


def test_scores_far_from_one_leave_the_rest_as_it_is() -> None:
    assert all(np.isfinite(cluster.scores).all() for cluster in clusters(0.5, float("inf"), (64, 64)))
