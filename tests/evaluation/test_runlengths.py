"""Compressed run lengths, read as COCO's library writes them."""

import numpy as np
import pytest

from edgemask.errors import UsageError
from edgemask.evaluation.runlengths import check_filled, pixels, run_lengths
from edgemask.masks import bitmap_to_rle, segmentation_to_rle


def test_by_hand() -> None:
    # 11, 2, then differences to the run before the last: 3 in full, 2 - 2, 3 - 3, and 16 - 2 in two characters.
    assert run_lengths(";230009").tolist() == [11, 2, 3, 2, 3, 2, 12]
    assert run_lengths(b"PPPP4").tolist() == [4 << 20]


@pytest.mark.parametrize("density", [0, 0.001, 0.1, 0.5, 0.999, 1])
@pytest.mark.parametrize("size", [(1, 1), (37, 23), (1, 400), (1500, 1000)])
def test_as_the_library_writes(density: float, size: tuple[int, int]) -> None:
    bitmap = np.random.default_rng(0).random(size) < density
    flat = bitmap.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    expected = np.diff(edges, prepend=0, append=flat.size)
    rle = bitmap_to_rle(bitmap)
    found = run_lengths(rle["counts"])
    np.testing.assert_array_equal(found, expected if expected[-1] else expected[:-1])
    assert pixels(rle) == bitmap.sum()
    check_filled(rle)


@pytest.mark.parametrize("counts", ["", "P", "1P", "PPPPPPPPP1", "/", "p", "é", "\x00", "zzzz"])
def test_what_is_no_run_lengths_is_refused(counts: str) -> None:
    with pytest.raises(UsageError, match=r"run lengths(' counts)?: expected"):
        check_filled({"size": [5, 7], "counts": counts})


@pytest.mark.parametrize("runs", [[34], [36], [10, 24], [0, 36]])
def test_what_does_not_fill_the_image_is_refused(runs: list[int]) -> None:
    counts = segmentation_to_rle({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))["counts"]
    with pytest.raises(UsageError, match=rf"expected 35 pixels, 5 x 7 \(H x W\), got {sum(runs)}"):
        check_filled({"size": [5, 7], "counts": counts})


def test_negative_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="run lengths: expected 35 pixels"):
        check_filled({"size": [5, 7], "counts": "0OT1"})  # 0, -1, 36
    assert run_lengths("0OT1").tolist() == [0, -1, 36]
