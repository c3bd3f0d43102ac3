"""The image of a benchmark, and another one of another shape."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_model import SPEC

from edgemask.benchmark.photographs import DEFAULT_IMAGE_SIZE, photograph, reshaped
from edgemask.canvas import placement_of
from edgemask.errors import ImageError


def test_a_file_is_decoded_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(np.full((32, 40, 3), 7, np.uint8)).save(path)
    picture = photograph(path, None, SPEC)
    assert picture.title == str(path)
    assert picture.decode is not None
    again = picture.decode()
    assert again is not picture.pixels
    np.testing.assert_array_equal(again, picture.pixels)
    with pytest.raises(ImageError):
        photograph(tmp_path / "absent.png", None, SPEC)


def test_an_array_has_no_file() -> None:
    pixels = np.zeros((32, 40, 3), np.uint8)
    picture = photograph(pixels, None, SPEC)
    assert (picture.title, picture.decode) == ("an image in memory", None)
    assert picture.pixels is pixels


def test_a_drawn_image_has_the_size_asked_for_or_that_of_the_canvas() -> None:
    assert photograph(None, (48, 64), SPEC).pixels.shape == (48, 64, 3)
    assert photograph(None, None, SPEC.replace(canvas=(64, 96))).pixels.shape == (64, 96, 3)
    drawn = photograph(None, None, SPEC)
    assert drawn.pixels.shape == (*DEFAULT_IMAGE_SIZE, 3)
    assert drawn.pixels.std() > 10


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (64, 64), (200, 30)])
def test_another_image_makes_another_canvas(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    other = reshaped(pixels, SPEC)
    assert other is not None
    assert other.flags.c_contiguous
    assert placement_of((other.shape[0], other.shape[1]), SPEC).canvas != placement_of(size, SPEC).canvas


def test_where_all_images_are_stretched_there_is_none() -> None:
    assert reshaped(np.zeros((48, 64, 3), np.uint8), SPEC.replace(fixed_size=(64, 96))) is None
