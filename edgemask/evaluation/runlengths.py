"""COCO's compressed run lengths, read without making bitmaps of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, refuse

_ZERO = 48  # the character that stands for no bits
_BITS = 5
_SIGN = 1 << (_BITS - 1)
_MORE = 1 << _BITS
_LONGEST = 7  # characters of a run: 2**34 pixels


def run_lengths(counts: str | bytes) -> NDArray[np.int64]:
    """Returns the lengths int64 [R] of the runs, pixels, the first one outside the object.

    Each run is written in characters of 5 bits, the lowest first; from the third one on as the difference to the run
    before the last, as COCO's maskApi.c has it.

    Raises:
        UsageError: other characters, or an end within a run.
    """
    text = counts.encode("utf-8", "replace") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - _ZERO
    last = np.flatnonzero((codes & _MORE) == 0)
    first = np.concatenate([[0], last + 1])[: len(last)]
    if (
        not len(codes)
        or not np.all((codes >= 0) & (codes < 2 * _MORE))
        or last[-1:].tolist() != [len(codes) - 1]
        or (last - first).max() >= _LONGEST
    ):
        refuse("run lengths' counts", "COCO's compressed text", Described(ascii(counts)[:40]))
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), first)
    values -= np.where(codes[last] & _SIGN, np.int64(1) << (_BITS * (last - first + 1)), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def check_filled(rle: Mapping[str, Any]) -> None:
    """Checks that compressed run lengths fill their image: `{"size": [H, W], "counts": text}`.

    Raises:
        UsageError: they do not, or are none.
    """
    height, width = rle["size"]
    runs = run_lengths(rle["counts"])
    if runs.min() < 0 or runs.sum() != height * width:
        refuse("run lengths", f"{height * width} pixels, {height} x {width} (H x W)", Described(f"{runs.sum()}"))


def pixels(rle: Mapping[str, Any]) -> int:
    """Returns how many pixels belong to the object."""
    return int(run_lengths(rle["counts"])[1::2].sum())
