"""RunEntry and file_digest: what is kept of an image, and which image it was."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs.examples import STAGES, detections, entry

from edgemask.errors import ImageError, UsageError
from edgemask.runs import RunEntry, file_digest


def test_holds_views_that_cannot_be_written_to() -> None:
    proposals = np.zeros((2, 4), np.float32)
    kept = entry(proposals=proposals, stages=STAGES)
    assert kept.proposals is not None
    assert kept.stages is not None
    assert np.shares_memory(kept.proposals, proposals)
    for array in (kept.proposals, *kept.stages.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(TypeError):
        kept.stages["nms"] = proposals  # type: ignore[index]
    proposals[0, 0] = 1  # the caller's own array stays writeable


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"found": None}, "found: expected Detections or a SemanticMap, got NoneType"),
        ({"seconds": -0.1}, "seconds: expected a number from 0 to 1e+09, got -0.1"),
        ({"seconds": float("nan")}, "got nan"),
        ({"proposals": [[0, 0, 1, 1]]}, r"proposals: expected float32 [P, 4] array, got list"),
        ({"proposals": np.zeros((2, 4))}, r"proposals: expected float32 [P, 4], got float64 [2, 4]"),
        ({"proposals": np.zeros((2, 5), np.float32)}, "got float32 [2, 5]"),
        (
            {"proposals": np.float32([[0, 0, np.inf, 1]])},
            "proposals: expected finite numbers, got [0.0, 0.0, inf, 1.0]",
        ),
        ({"stages": [1]}, "stages: expected a mapping of at most 256 arrays, got list"),
        ({"stages": {str(i): np.zeros(1) for i in range(257)}}, "at most 256 arrays"),
        ({"stages": {"a\nb": np.zeros(1)}}, r"stages: expected text of 1 to 200"),
        ({"stages": {"a": [1]}}, "stages['a']: expected an array of whole numbers, floats or bools, got list"),
        ({"stages": {"a": np.array([object()])}}, "got object [1 dimensions]"),
        ({"stages": {"a": np.array(["text"])}}, "got <U4"),
        ({"stages": {"a": np.zeros(2, np.complex64)}}, "got complex64"),
        ({"stages": {"a": np.zeros(2, ">f4")}}, "got >f4"),
        ({"stages": {"a": np.zeros((1,) * 17)}}, "got float64 [17 dimensions]"),
    ],
)
def test_refuses(changes: dict[str, Any], problem: str) -> None:
    values: dict[str, Any] = {"found": detections(1), "seconds": 0.1}
    with pytest.raises(UsageError) as caught:
        RunEntry(**(values | changes))
    assert problem in str(caught.value)


def test_digest_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(range(256)) * 4000)
    assert file_digest(path) == file_digest(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_digest_of_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: to open it would wait for ever
    for path, reason in [(tmp_path, "is no file"), (tmp_path / "pipe", "is no file"), (tmp_path / "no", "is no file")]:
        with pytest.raises(ImageError, match=f"{path.name}: {reason}\ncheck the path"):
            file_digest(path)
    with pytest.raises(ImageError, match=r"a\\x00b"):
        file_digest("a\0b")
