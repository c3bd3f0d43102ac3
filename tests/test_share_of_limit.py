"""The share of the machine's limit: arithmetic that can be counted by hand, times that add up."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from script_files import script_module
from tiny_model import write_tiny

from edgemask.checkpoints import load_checkpoint
from edgemask.runtimes.profiles import NodeRun


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with script_module("scripts/share_of_limit.py") as module:
        yield module


def node(name: str, heavy: str | None, microseconds: float) -> NodeRun:
    return NodeRun(name, heavy or "Add", heavy, "", "cpu", "float32", microseconds, 0)


def test_shares_of_drawn_profiles(script: ModuleType) -> None:
    run = [
        node("backbone/stem/Conv", "Conv", 1500),
        node("backbone.3_nchwc", "Conv", 500),
        node("backbone/stem/Add", None, 500),
        node("fused box_head/fc6/Gemm", "Gemm", 1000),
        node("box_head/pool/RoiAlign", "RoiAlign", 700),
        node("paste/Add", None, 300),
    ]
    slow = [node(one.name, one.heavy, 3 * one.microseconds) for one in run]
    rows = script.rows_of("cpu", [run, slow, run], {"backbone": 0.1, "box_head": 0.02}, 100.0)
    found = {row["stage"]: (row["milliseconds"], row["milliseconds_besides"], row["share_of_limit"]) for row in rows}
    assert found == {
        "backbone": (2.0, 0.5, 0.5),
        "box_head": (1.0, 0.7, pytest.approx(0.2)),
        "others": (0.0, 0.3, None),
        "all": (3.0, 1.5, pytest.approx(0.4)),
    }


def test_a_model(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, image = write_tiny(tmp_path), tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(image)
    work = script.arithmetic(files.checkpoint, image)
    model, _ = load_checkpoint(files.checkpoint)
    assert set(work) >= {"backbone", "rpn", "box_head", "mask_head"}
    assert sum(work.values()) > 0
    fully_connected = model.roi_heads.box_head.fc6
    assert work["box_head"] >= 2e-9 * fully_connected.weight.numel(), "at least one roi"
    monkeypatch.setattr(script, "SIDES", (32, 64))
    words = [str(files.path), "--reference", str(files.checkpoint), "--image", str(image), "--repeats", "1"]
    assert script.main(words) == 0
    shown = capsys.readouterr().out
    assert "share of the limit" in shown
    assert shown.count("backbone") == len(script.DEVICES)
    missing = [str(files.path), "--reference", str(tmp_path / "none.safetensors"), "--image", str(image)]
    assert script.main(missing) == 2
    assert "none.safetensors" in capsys.readouterr().err
    monkeypatch.setattr(script, "read_model", lambda path: SimpleNamespace(spec=SimpleNamespace(precision="int8")))
    assert script.main(words) == 2
    assert "tiny.onnx is INT8" in capsys.readouterr().err
