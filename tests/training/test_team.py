"""Several processes under torchrun train as one does with larger batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import EVERYTHING, rows_of

from edgemask.checkpoints import load_checkpoint
from edgemask.scenes import write_scenes
from edgemask.training import TrainingPlan, processes, train


def command(annotations: Path, folder: Path, *words: str) -> list[str]:
    """A run of `edgemask train` by two processes of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", f"--master-port={port}"]
    paths = ["--images", annotations.parent / "images", "--annotations", annotations, "-o", folder / "m.safetensors"]
    plan = EVERYTHING | {"arguments": json.dumps(EVERYTHING["arguments"])}
    del plan["freeze_norm"]
    settings = [word for name, value in plan.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = [sys.executable, "-m", *torchrun, "-m", "edgemask", "train", *paths, "--freeze-norm", *settings, *words]
    return [str(word) for word in command]


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    annotations = write_scenes(tmp_path / "scenes", 8, seed=1, size=64)
    words = command(annotations, tmp_path, "--curve", str(tmp_path / "two"), "--workers", "0", "--json")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["steps"] == 2, "eight images, by two processes with two each"
    (two,) = rows_of(tmp_path / "two")
    images = annotations.parent / "images"

    def alone(name: str, batch_size: int) -> dict[str, torch.Tensor]:
        plan = TrainingPlan(**EVERYTHING | {"batch_size": batch_size})
        train(images, annotations, tmp_path / f"{name}.safetensors", plan, curve=tmp_path / name, workers=0)
        return load_checkpoint(tmp_path / f"{name}.safetensors")[0].state_dict()

    # But for means over fewer objects at a time, as in `test_fitting`.
    doubled = alone("doubled", 4)
    (one,) = rows_of(tmp_path / "doubled")
    assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=0.005)
    alone("single", 2)
    (single,) = rows_of(tmp_path / "single")
    assert float(single["loss"]) != pytest.approx(float(one["loss"]), rel=0.005), "twice as many steps"
    assert load_checkpoint(report["checkpoint"])[0].state_dict().keys() == doubled.keys()
    left = {path.name for path in tmp_path.iterdir()} - {"scenes"}
    assert left == {"two", "doubled", "single", "m.safetensors", "doubled.safetensors", "single.safetensors"}


def test_alone_without_torchrun() -> None:
    with processes() as team:
        assert (team.rank, team.count, team.first) == (0, 1, True)
        assert team.mean({"loss": 2.0}) == {"loss": 2.0}
        assert team.gathered("state") == ["state"]
        team.wait()
        model = torch.nn.Linear(1, 1)
        assert team.joined(model) is model
