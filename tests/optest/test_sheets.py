"""Clusters in one run: as many as may be kept, every image and class with its own, filled up to the file's sizes."""

import dataclasses

import numpy as np
import pytest

from edgemask.ops import batched_nms
from edgemask.optest.clusters import clusters
from edgemask.optest.sheets import Layout, Sheet, sheets

FREE = Layout(batch=None, classes=None, amount=None, limit=100, absent=-0.95)
MADE = clusters(0.5, 0.05, (256, 320))
LIMITS = {"iou_threshold": 0.5, "score_threshold": 0.05, "max_per_class": 100}


def laid_out(**sizes: int | None) -> list[Sheet]:
    return list(sheets(MADE, dataclasses.replace(FREE, **sizes)))


def test_every_cluster_lies_in_a_sheet_twice_and_as_it_was() -> None:
    laid = laid_out()
    kinds = [kind for sheet in laid for kind in sheet.kinds]
    names = [cluster.kind for cluster in MADE]
    lying = len(names)
    assert kinds[:lying] == names
    assert kinds[lying : 2 * lying] == [f"{name}, upright" for name in names]
    assert kinds[2 * lying :] == [
        "108 boxes apart from each other, of which 100 may be kept",
        "no score above the threshold",
        "no boxes",
    ]
    first = laid[0]
    for vector, cluster in enumerate(MADE[: len(first.kinds)]):
        rows = first.boxes[0][first.owner[0] == vector]
        np.testing.assert_array_equal(rows[:, [0, 2]], cluster.boxes[:, [0, 2]])
        np.testing.assert_array_equal(rows[:, 3] - rows[:, 1], cluster.boxes[:, 3] - cluster.boxes[:, 1])


def test_no_cluster_touches_another() -> None:
    for sheet in laid_out()[:-3]:
        corners = np.sort(sheet.boxes[0].reshape(-1, 2, 2), axis=1)
        axis = 0 if "upright" in sheet.kinds[0] else 1
        for vector in range(1, len(sheet.kinds)):
            before, own = (corners[sheet.owner[0] == number] for number in (vector - 1, vector))
            assert before[:, 1, axis].max() < own[:, 0, axis].min()


def test_images_and_classes_differ() -> None:
    sheet = laid_out(batch=3, classes=4)[0]
    assert (sheet.boxes.shape[0], sheet.scores.shape[:2]) == (3, (3, 4))
    np.testing.assert_array_equal(sheet.boxes[1], sheet.boxes[0, ::-1])
    found = batched_nms(sheet.boxes, sheet.scores, **LIMITS)
    cells = {(image, label): found[(found[:, 0] == image) & (found[:, 1] == label), 2] for image, label, _ in found}
    assert len(cells) == 12
    assert len({tuple(rows) for rows in cells.values()}) >= 6


@pytest.mark.parametrize("amount", [5, 17, 40, 300])
def test_a_fixed_number_of_boxes_is_kept_to(amount: int) -> None:
    laid = laid_out(amount=amount)
    assert {sheet.boxes.shape[1] for sheet in laid} == {sheet.scores.shape[2] for sheet in laid} == {amount}
    kinds = [kind for sheet in laid for kind in sheet.kinds]
    assert "no boxes" not in kinds
    assert any("may be kept" in kind for kind in kinds) == (amount >= 108)
    for sheet in laid:
        found = batched_nms(sheet.boxes, sheet.scores, **LIMITS)
        assert (sheet.owner[found[:, 0], found[:, 2]] >= 0).all(), "what fills up is never kept"


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_what_may_be_kept_is_not_cut_off_by_other_clusters(limit: int) -> None:
    for sheet in laid_out(limit=limit)[:-3]:
        whole = batched_nms(sheet.boxes, sheet.scores, **LIMITS)
        cut = batched_nms(sheet.boxes, sheet.scores, **LIMITS | {"max_per_class": limit})
        assert len(sheet.kinds) == 1 or np.array_equal(whole, cut)


def test_a_limit_that_cannot_be_reached_has_no_vector() -> None:
    for sizes in ({"limit": 2**31}, {"limit": 100, "amount": 100}):
        assert not any("may be kept" in kind for sheet in laid_out(**sizes) for kind in sheet.kinds)
