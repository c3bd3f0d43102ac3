"""SemanticMap: what is in it is sound, it comes back from the canvas pixel by pixel, and goes over to COCO unharmed."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.canvas import Placement
from edgemask.errors import UsageError
from edgemask.masks import rle_to_bitmap
from edgemask.semantic import SemanticMap, map_label_name, nearest_axis

LABELS = np.array([[0, 0, 2], [0, 7, 2]], np.uint8)
SCORES = np.array([[0.9, 0.5, 0.6], [1.0, 0.3, 0.8]], np.float32)


def semantic(labels: NDArray[Any] = LABELS, scores: NDArray[Any] = SCORES) -> SemanticMap:
    return SemanticMap(labels, scores)


def test_description() -> None:
    assert repr(semantic()) == "<SemanticMap: 0: 50.0%, 2: 33.3%, 7: 16.7% of 2 x 3 (H x W)>"
    many = semantic(np.arange(8, dtype=np.uint8)[None], np.ones((1, 8), np.float32))
    assert repr(many).endswith("4: 12.5%, 3 more of 1 x 8 (H x W)>")
    assert semantic().image_size == (2, 3)


def test_present_labels_add_up() -> None:
    assert semantic().present == {0: 1 / 2, 2: 1 / 3, 7: 1 / 6}
    assert semantic(np.full((1, 1), 255, np.uint8), np.ones((1, 1), np.float32)).present == {255: 1.0}


def test_arrays_are_read_only_and_not_copied() -> None:
    labels, scores = LABELS.copy(), SCORES.copy()
    found = SemanticMap(labels, scores)
    for name, own in (("labels", labels), ("scores", scores)):
        held = getattr(found, name)
        assert np.shares_memory(held, own)
        with pytest.raises(ValueError, match="read-only"):
            held[0, 0] = 0
        own[0, 0] = own[0, 0]  # the caller's own array stays writable
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.scores = scores  # type: ignore[misc]


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (LABELS.astype(np.int64), SCORES, r"labels: expected uint8 \[H, W\], not empty, got int64 \[2, 3\]"),
        (LABELS[None], SCORES, r"got uint8 \[1, 2, 3\]"),
        (LABELS[:0], SCORES[:0], r"got uint8 \[0, 3\]"),
        (LABELS.tolist(), SCORES, "got list"),
        (LABELS, SCORES.astype(np.float64), r"scores: expected float32 \[H, W\]"),
        (LABELS, SCORES.T, r"scores: expected \[2, 3\] as labels, got \[3, 2\]"),
        (LABELS, SCORES + np.float32(0.1), r"scores: expected 0 to 1, got 1\.1"),
        (LABELS, -SCORES, "scores: expected 0 to 1, got -1.0"),
        (LABELS, np.where(SCORES == 1, np.float32(np.nan), SCORES), "scores: expected 0 to 1, got nan"),
    ],
)
def test_unsound_content_is_refused(labels: Any, scores: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SemanticMap(labels, scores)


def test_a_softmax_may_round_above_one() -> None:
    assert semantic(scores=np.full((2, 3), 1.000005, np.float32)).scores.max() > 1


def test_bitmaps() -> None:
    assert semantic().bitmap(2).tolist() == [[False, False, True]] * 2
    assert not semantic().bitmap(1).any()
    for label in (-1, 256):
        with pytest.raises(UsageError, match=f"label: expected 0 to 255, got {label}"):
            semantic().bitmap(label)


def test_coco_results() -> None:
    pytest.importorskip("faster_coco_eval")
    records = semantic().to_coco(42)
    assert [record["category_id"] for record in records] == [2, 7], "the background is no category"
    assert [record["image_id"] for record in records] == [42, 42]
    assert [record["score"] for record in records] == pytest.approx([0.7, 0.3])
    for record in records:
        np.testing.assert_array_equal(rle_to_bitmap(record["segmentation"]), record["category_id"] == LABELS)
    assert json.loads(json.dumps(records)) == records
    ids = list(range(92, 99))
    assert [record["category_id"] for record in semantic().to_coco(1, ids)] == [93, 98]
    with pytest.raises(UsageError, match="category_ids: expected at least 7, one per label, got 6"):
        semantic().to_coco(1, ids[:6])


def test_an_image_of_background_has_no_coco_results() -> None:
    assert semantic(np.zeros((2, 3), np.uint8)).to_coco(1, []) == []


def test_coco_results_are_read_by_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": 42, "height": 2, "width": 3}],
        "categories": [{"id": 2}, {"id": 7}],
        "annotations": [],
    }
    truth.createIndex()
    read = truth.loadRes(semantic().to_coco(42))
    found = read.loadAnns(read.getAnnIds())
    assert [annotation["area"] for annotation in found] == [2, 1]
    assert [list(annotation["bbox"]) for annotation in found] == [[2, 0, 1, 2], [1, 1, 1, 1]]


def on_canvas(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Random labels 1 ... 9 inside the size, and what must never be taken outside it."""
    rng = np.random.default_rng(size[0])
    labels, scores = np.full(canvas, 200, np.uint8), np.zeros(canvas, np.float32)
    labels[: size[0], : size[1]] = rng.integers(1, 10, size)
    scores[: size[0], : size[1]] = rng.uniform(0.1, 1, size)
    return labels, scores


@pytest.mark.parametrize("original", [(61, 97), (17, 23), (40, 64), (200, 31), (1, 1), (480, 640)])
def test_way_back_is_torchs_nearest_exact(original: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    size, canvas = (40, 64), (64, 96)
    labels, scores = on_canvas(size, canvas)
    found = SemanticMap.from_canvas(labels, scores, Placement(original, size, canvas, False))
    assert found.image_size == original
    inside = torch.from_numpy(labels[None, None, : size[0], : size[1]].copy())
    expected = torch.nn.functional.interpolate(inside.float(), size=original, mode="nearest-exact")[0, 0].numpy()
    # In float32 torch may fall short of a centre that lies on a border.
    rows, columns = ((2 * np.arange(new) + 1) * old % (2 * new) != 0 for old, new in zip(size, original, strict=True))
    clear = rows[:, None] & columns
    np.testing.assert_array_equal(found.labels[clear], expected[clear])
    own = np.ix_(nearest_axis(size[0], original[0]), nearest_axis(size[1], original[1]))
    np.testing.assert_array_equal(found.labels, labels[own])
    np.testing.assert_array_equal(found.scores, scores[own])


def test_nearest_axis() -> None:
    assert nearest_axis(4, 4).tolist() == [0, 1, 2, 3]
    assert nearest_axis(2, 6).tolist() == [0, 0, 0, 1, 1, 1]
    assert nearest_axis(6, 2).tolist() == [1, 4]
    assert nearest_axis(2, 3).tolist() == [0, 1, 1], "a centre on a border belongs to the later pixel"
    for length in range(1, 40):
        for new_length in range(1, 40):
            index = nearest_axis(length, new_length)
            assert 0 <= index[0] <= index[-1] < length
            np.testing.assert_array_equal((length - 1 - index[::-1] <= index), True)


def test_the_canvas_must_be_the_placements() -> None:
    labels, scores = on_canvas((40, 64), (64, 96))
    with pytest.raises(UsageError, match=r"labels: expected \[64, 64\] as the canvas, got \[64, 96\]"):
        SemanticMap.from_canvas(labels, scores, Placement((10, 10), (40, 64), (64, 64), False))


def test_names() -> None:
    assert [map_label_name(label, ["cat"]) for label in (0, 1, 2)] == ["background", "cat", "class_2"]
    assert map_label_name(1, None) == "class_1"
