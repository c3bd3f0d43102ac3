"""scripts/bench_resnet50.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_model import TINY

from edgemask.scenes import draw_scene


@pytest.mark.soak
def test_sample_measures_every_goal(repository: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        Image.fromarray(draw_scene(index, seed=4).image).save(images / f"{index}.png")
    command = [sys.executable, "scripts/bench_resnet50.py", "--images", str(images), "--output", str(tmp_path / "out")]
    command += ["--builder", "maskrcnn_compact_fpn", "--arguments", json.dumps(TINY), "--classes", "5"]
    command += ["--canvas", "96x96", "--device", "cpu", "--photographs", "2", "--repeats", "1", "--warmup", "0"]
    result = subprocess.run(
        command,
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    (stages,) = summary["stages"]
    assert stages["passed"], stages["worst"]
    # The weights make a model that uses all the room it has, as a trained one does on a crowded photograph.
    assert [count["detections"] for count in stages["counts"]] == [100, 100]
    assert all(one["detections"] == 100 for one in summary["bench"]["answer"]["contestants"])
    goals = summary["goals"]
    assert {name for name, goal in goals.items() if goal["goal"] is not None} == {
        "export_seconds",
        "verified_export_seconds",
        "export_gib",
        "stages_equal",
        "speed_over_eager",
        "speed_over_torchvision_onnx",
    }
    assert all(goal["measured"] > 0 for goal in goals.values())
