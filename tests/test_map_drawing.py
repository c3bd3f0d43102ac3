"""Pictures of label maps: coloured where the labels are, named below, and harmless."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask import map_drawing
from edgemask.errors import UsageError
from edgemask.map_drawing import draw_map
from edgemask.semantic import SemanticMap

GREY = 127
SIZE = (200, 300)


def image(height: int = 200, width: int = 300) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def found(labels: NDArray[np.uint8] | None = None) -> SemanticMap:
    """A rectangle of label 1, one of label 2, and background."""
    if labels is None:
        labels = np.zeros(SIZE, np.uint8)
        labels[40:140, 20:100] = 1
        labels[80:150, 180:260] = 2
    return SemanticMap(labels, np.full(labels.shape, 0.8, np.float32))


def test_labels_are_coloured_where_they_are() -> None:
    sv = pytest.importorskip("supervision")
    source = image()
    picture = draw_map(source, found(), ["cat", "dog"])
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (300, 3)
    assert (source == GREY).all()
    scene = picture[:200].astype(int)
    np.testing.assert_array_equal((scene != GREY).any(axis=2), found().labels != 0)
    for label, (row, column) in {1: (90, 60), 2: (120, 220)}.items():
        colour = np.array(sv.ColorPalette.DEFAULT.by_idx(label).as_rgb())
        np.testing.assert_allclose(scene[row, column], GREY + 0.55 * (colour - GREY), atol=0.5)
    # Each region is framed in its full colour, inside it.
    assert tuple(scene[40, 60]) == sv.ColorPalette.DEFAULT.by_idx(1).as_rgb()
    assert tuple(scene[120, 259]) == sv.ColorPalette.DEFAULT.by_idx(2).as_rgb()


def legend(names: list[str] | None, labels: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    size = SIZE if labels is None else labels.shape
    return draw_map(image(*size), found(labels), names)[size[0] :]


def patches(strip: NDArray[np.uint8], label: int) -> NDArray[np.intp]:
    """Columns in which the legend has a label's colour."""
    import supervision as sv

    return np.flatnonzero((strip == sv.ColorPalette.DEFAULT.by_idx(label).as_rgb()).all(axis=2).any(axis=0))


def test_the_legend_names_the_largest_first() -> None:
    pytest.importorskip("supervision")
    strip = legend(["cat", "dog"])
    assert strip[0, 0].tolist() == [255, 255, 255]
    cat, dog = patches(strip, 1), patches(strip, 2)
    assert 0 < cat.min() < cat.max() < dog.min()
    between = strip[:, cat.max() + 1 : dog.min()]
    assert (between < 100).any(), "the name stands between the patches"
    assert (legend(["cat", "dog"]) != legend(["cow", "dog"])).any()
    np.testing.assert_array_equal(legend(None), legend(["class_1", "class_2"]))


def test_the_legend_takes_as_many_rows_as_it_needs() -> None:
    pytest.importorskip("supervision")
    labels = np.repeat(np.arange(12, dtype=np.uint8), 25)[None].repeat(50, 0)
    one, many = legend(["x"] * 12), legend([f"a name of class {index}" for index in range(12)], labels)
    assert len(many) >= 4 * len(one)
    assert all(len(patches(many, label)) for label in range(1, 12))


def test_only_background_gives_a_copy() -> None:
    source = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    picture = draw_map(source, found(np.zeros(SIZE, np.uint8)), ["cat"])
    np.testing.assert_array_equal(picture, source)
    assert not np.shares_memory(picture, source)


def test_control_characters_are_drawn_as_escapes() -> None:
    pytest.importorskip("supervision")
    np.testing.assert_array_equal(legend(["a\x1b[31m", "b"]), legend(["a\\x1b[31m", "b"]))


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (300, 8), (900, 1600)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    pytest.importorskip("supervision")
    picture = draw_map(image(*size), found(np.full(size, 255, np.uint8)), ["a rather long name of a class"] * 255)
    assert (picture[: size[0]] != GREY).any(axis=2).all()
    assert picture.shape[0] > size[0]
    assert picture.shape[1] == size[1]


def test_outlines_wider_than_the_image() -> None:
    labels = np.zeros((2, 9), np.uint8)
    labels[:, 6:] = 1
    assert map_drawing._edges(labels, 3).all(axis=0).tolist() == [False] * 3 + [True] * 6


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (image(100, 300), r"expected \(200, 300\) \(H, W\) as the map, got \(100, 300\)"),
        (image().astype(np.float32), r"uint8 \[H, W, 3\] RGB, got float32"),
        (image()[:, :, :1], r"got uint8 \[200, 300, 1\]"),
    ],
)
def test_unusable_image_is_refused(source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw_map(source, found(), None)
