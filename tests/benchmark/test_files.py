"""Model files as contestants."""

from pathlib import Path

import numpy as np
import pytest
from toy_model import SCORES, SPEC, toy_proto, write_toy

from edgemask.benchmark.files import FileContestant
from edgemask.errors import UsageError
from edgemask.runs import file_digest
from edgemask.runtimes import write_model
from edgemask.runtimes.options import RuntimeOptions


def test_model_file_is_timed_within_predict(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    contestant = FileContestant(path, "cpu")
    turn = contestant.turn(np.zeros((64, 96, 3), np.uint8), paste=True)
    assert turn.detections == len(SCORES)
    assert contestant.canvas == (64, 96)
    assert (contestant.device, contestant.precision, contestant.batch) == ("cpu", "file", 1)
    assert contestant.sha256 == file_digest(path)
    assert contestant.load > 0
    assert turn.paste is not None
    assert min(turn.preprocess, turn.inference, turn.postprocess, turn.paste) > 0
    contestant.predict([np.zeros((96, 64, 3), np.uint8)])
    assert (contestant.canvas, contestant.at_a_time) == ((96, 64), 1)
    contestant.close()
    with pytest.raises(UsageError, match="closed"):
        contestant.turn(np.zeros((64, 96, 3), np.uint8), paste=False)


def test_a_fixed_canvas_takes_no_new_shape(tmp_path: Path) -> None:
    write_model(toy_proto(), SPEC.replace(canvas=(64, 64)), tmp_path / "fixed.onnx")
    fixed = FileContestant(tmp_path / "fixed.onnx", "cpu")
    free = FileContestant(write_toy(tmp_path / "toy.onnx"), "cpu")
    assert (fixed.any_size, free.any_size) == (False, True)
    fixed.close()
    free.close()


def test_options_reach_the_runtime(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    with pytest.raises(UsageError, match="precision"):
        FileContestant(path, "cpu", RuntimeOptions(precision="bf16"))
