"""Pictures: drawn where the objects are, legible on small images, and harmless."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask import drawing
from edgemask.detections import Detections
from edgemask.drawing import draw, side_by_side
from edgemask.errors import UsageError

GREY = 127


def image(height: int = 200, width: int = 300) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def found(*, with_masks: bool = True, size: tuple[int, int] = (200, 300)) -> Detections:
    return Detections(
        boxes=np.array([[40, 60, 100, 140], [180, 80, 260, 150]], np.float32),
        scores=np.array([0.9, 0.6], np.float32),
        labels=np.array([1, 2], np.int64),
        masks=np.ones((2, 28, 28), np.float32) if with_masks else None,
        image_size=size,
    )


def changed(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    marks: NDArray[np.bool_] = (picture != GREY).any(axis=2)
    return marks


def test_objects_are_drawn_where_they_are() -> None:
    pytest.importorskip("supervision")
    source = image()
    picture = draw(source, found(), ["cat", "dog"])
    assert (picture.dtype, picture.shape) == (np.dtype(np.uint8), source.shape)
    assert picture.flags.c_contiguous
    assert (source == GREY).all()
    marks = changed(picture)
    assert marks[61:139, 41:99].all()
    assert marks[81:149, 181:259].all()
    assert not marks[160:].any()
    assert not marks[:, 270:].any()
    assert marks[40:59, 40:70].any()  # the label above the box
    cat, dog = picture[120, 70], picture[120, 220]
    assert (cat != dog).any()


def test_names_of_many_objects_are_left_out() -> None:
    pytest.importorskip("supervision")
    named, nameless = (draw(image(), found(), None, most_named=most) for most in (2, 1))
    assert changed(named)[40:59, 40:70].any()
    assert not changed(nameless)[40:57, 40:70].any()
    assert (named[61:139, 41:99] == nameless[61:139, 41:99]).all()


def test_colours_are_red_green_blue() -> None:
    sv = pytest.importorskip("supervision")
    corner = draw(image(), found(with_masks=False), None)[140, 100]
    assert tuple(corner) == sv.ColorPalette.DEFAULT.by_idx(1).as_rgb()


def test_boxes_without_masks() -> None:
    pytest.importorskip("supervision")
    marks = changed(draw(image(), found(with_masks=False), ["cat", "dog"]))
    assert marks[100, 40]
    assert not marks[70:130, 50:90].any()


def with_keypoints(points: Any, scores: Any) -> Detections:
    plain = found(with_masks=False)
    return Detections(
        plain.boxes,
        plain.scores,
        plain.labels,
        keypoints=np.concatenate([points, np.ones((*np.shape(points)[:2], 1))], axis=2).astype(np.float32),
        keypoint_scores=np.asarray(scores, np.float32),
        image_size=plain.image_size,
    )


def people() -> Detections:
    """17 keypoints each: the first one's elbow and wrist apart, the rest of a body in one place."""
    points = np.empty((2, 17, 2), np.float32)
    points[0], points[1] = (50, 70), (190, 90)
    points[0, 7], points[0, 9] = (60, 100), (90, 100)
    return with_keypoints(points, np.full((2, 17), 5))


def test_keypoints_are_drawn() -> None:
    pytest.importorskip("supervision")
    marks = changed(
        draw(image(), with_keypoints([[[70, 100], [90, 100]], [[220, 120], [240, 120]]], np.ones((2, 2))), None)
    )
    assert marks[100, [70, 90]].all()
    assert marks[120, [220, 240]].all()
    assert not marks[100, 76:85].any()  # no lines: whose keypoints these are is not known


def test_people_have_limbs() -> None:
    sv = pytest.importorskip("supervision")
    picture = draw(image(), people(), None)
    assert {tuple(pixel) for pixel in picture[100, 60:91]} == {sv.Color.YELLOW.as_rgb()}
    assert tuple(picture[98, 75]) == (0, 0, 0)  # the rim
    assert changed(picture)[90, 190]


@pytest.mark.parametrize(("least", "seen"), [(0.0, True), (0.6, False)])
def test_weak_keypoints_are_left_out_with_their_limbs(least: float, seen: bool) -> None:
    pytest.importorskip("supervision")
    sure = people()
    assert sure.keypoints is not None
    scores = np.full((2, 17), 5.0)
    scores[0, 7], scores[1] = -0.1, 0.5
    marks = changed(draw(image(), with_keypoints(sure.keypoints[:, :, :2], scores), None, minimum_keypoint_score=least))
    assert not marks[100, 55:85].any()
    assert marks[100, 90]
    assert marks[90, 190] == seen


@pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e30, -5])
def test_keypoints_that_cannot_be_shown_are_left_out(place: float) -> None:
    pytest.importorskip("supervision")
    sure = people()
    assert sure.keypoints is not None
    points = sure.keypoints[:, :, :2].copy()
    points[0, 7] = place
    marks = changed(draw(image(), with_keypoints(points, sure.keypoint_scores), None))
    assert not marks[100, 55:85].any()
    assert marks[100, 90]


def test_low_scores_are_left_out() -> None:
    pytest.importorskip("supervision")
    marks = changed(draw(image(), found(), None, minimum_score=0.7))
    assert marks[100, 70]
    assert not marks[:, 170:].any()


@pytest.mark.parametrize("empty", [found()[:0], found()[found().scores > 0.95], Detections.empty((200, 300))])
def test_nothing_to_draw_gives_a_copy(empty: Detections) -> None:
    source = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    picture = draw(source, empty, ["cat", "dog"])
    np.testing.assert_array_equal(picture, source)
    assert not np.shares_memory(picture, source)


def test_control_characters_are_drawn_as_escapes() -> None:
    pytest.importorskip("supervision")
    escaped = draw(image(), found(), ["a\\x1b[31m", "b"])
    np.testing.assert_array_equal(draw(image(), found(), ["a\x1b[31m", "b"]), escaped)
    assert (draw(image(), found(), ["a", "b"]) != escaped).any()


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (256, 256), (900, 1600)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    pytest.importorskip("supervision")
    one = Detections(
        np.array([[0, 0, size[1], size[0]]], np.float32),
        np.ones(1, np.float32),
        np.ones(1, np.int64),
        np.ones((1, 28, 28), np.float32),
        image_size=size,
    )
    assert changed(draw(image(*size), one, ["a rather long name of a class"])).any()


def test_text_grows_with_the_image_and_stays_legible() -> None:
    sizes = [drawing._pixels(image(s, s), drawing._TEXT_SHARE, drawing._TEXT_LEAST) for s in (64, 320, 2000)]
    assert sizes == [11, 11, 36]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (image(100, 300), r"expected \(200, 300\) \(H, W\) as the detections, got \(100, 300\)"),
        (image().astype(np.float32), r"uint8 \[H, W, 3\] RGB, got float32"),
        (image()[:, :, :1], r"got uint8 \[200, 300, 1\]"),
    ],
)
def test_unusable_image_is_refused(source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw(source, found(), None)


def test_panels_have_equal_heights_and_a_title_each() -> None:
    left, right = image(100, 150), image(50, 100)
    sheet = side_by_side([left, right], ["PyTorch", "INT8"])
    bar = sheet.shape[0] - 100
    assert sheet.shape[1] == 150 + drawing._GAP + 200  # the right one is scaled by 2
    assert 15 < bar < 40
    assert (sheet[bar:, :150] == GREY).all()
    assert (sheet[bar:, -200:] == GREY).all()
    assert (sheet[bar:, 150 : 150 + drawing._GAP] == 255).all()
    for title in (sheet[:bar, :150], sheet[:bar, -200:]):
        assert 0.01 < (title.min(axis=2) < 128).mean() < 0.5


def test_long_title_stays_over_its_panel() -> None:
    sheet = side_by_side([image(60, 90), image(60, 90)], ["x" * 500, ""])
    bar = sheet.shape[0] - 60
    assert (sheet[:bar, 96:] == 255).all()
    assert (sheet[:bar, :90] < 128).any()


def test_panels_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="got 1 for 2 images"):
        side_by_side([image(), image()], ["one"])
    with pytest.raises(UsageError, match="got 0 for 0 images"):
        side_by_side([], [])
    with pytest.raises(UsageError, match=r"images\[1\]: expected uint8"):
        side_by_side([image(), image()[:, :, 0]], ["a", "b"])
