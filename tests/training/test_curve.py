"""What a run tells while it goes on, and that a killed run tells the same."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from training_runs import EVERYTHING, rows_of

from edgemask.scenes import write_scenes
from edgemask.training import TrainingPlan, TrainingReport, fitting, train
from edgemask.training.curve import Curve

PLAN = TrainingPlan(**EVERYTHING | {"epochs": 2})


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of 64 pixels."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 4, seed=1, size=64)


@pytest.fixture
def run(annotations: Path, tmp_path: Path) -> Callable[..., TrainingReport]:
    images = annotations.parent / "images"

    def call(name: str, **options: Any) -> TrainingReport:
        options = {"val_images": images, "val_annotations": annotations, "curve": tmp_path / name} | options
        return train(images, annotations, tmp_path / f"{name}.safetensors", PLAN, workers=0, **options)

    return call


def scalars(log: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(log))
    board.Reload()
    assert board.Tags()["images"] == ["detections"]
    return {name: [event.value for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_a_log(run: Callable[..., TrainingReport], tmp_path: Path) -> None:
    report = run("log")
    rows = rows_of(tmp_path / "log")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["2", "4"]
    parts = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in parts), rel=1e-4)
        assert float(row["seconds"]) > 0
    assert report.metrics is not None
    assert float(rows[-1]["masks_ap"]) == pytest.approx(report.metrics["masks"].ap, rel=1e-5)
    found = scalars(tmp_path / "log")
    assert found["loss"] == pytest.approx([float(row["loss"]) for row in rows], rel=1e-5)
    assert found["boxes_ap"] == pytest.approx([float(row["boxes_ap"]) for row in rows], abs=1e-6)
    pictures = sorted(name for name in os.listdir(tmp_path / "log") if name.endswith(".jpg"))
    assert pictures == ["epoch-001.jpg", "epoch-002.jpg"]
    with Image.open(tmp_path / "log" / "epoch-002.jpg") as picture:
        assert picture.width > 4 * 64, "four images beside each other"


@pytest.mark.parametrize("killed_in", [1, 2])  # within an epoch, and after one
def test_a_killed_run_has_the_same_curve(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, killed_in: int
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY", 1)
    whole = run("whole")
    steps, real = iter(range(100)), fitting._step

    def step(*arguments: Any) -> dict[str, float]:
        if next(steps) == killed_in:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    resumed = run("cut")
    expected, found = rows_of(tmp_path / "whole"), rows_of(tmp_path / "cut")
    for row in (*expected, *found):
        del row["seconds"]
    assert found == expected
    assert (resumed.loss, resumed.best_epoch, resumed.metrics) == (whole.loss, whole.best_epoch, whole.metrics)


def test_the_best_epoch_is_kept(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgemask.training import running

    aps = iter([0.5, 0.25])
    monkeypatch.setattr(running, "evaluate", lambda *_: {"masks": Metrics(next(aps))})
    monkeypatch.setattr(running, "TrainingReport", lambda *values: values)
    *_, best, epoch = run("log", curve=None)  # type: ignore[misc]
    assert (best, epoch) == (str(tmp_path / "log.best.safetensors"), 1)
    assert (tmp_path / "log.best.safetensors").read_bytes() != (tmp_path / "log.safetensors").read_bytes()


class Metrics:
    def __init__(self, ap: float) -> None:
        self.ap = ap


def test_means_are_over_the_steps_of_an_epoch() -> None:
    curve = Curve()
    for loss in (1.0, 3.0):
        curve.add({"loss": loss})
    other = Curve()
    other.load_state_dict(curve.state_dict())
    for one in (curve, other):
        one.add({"loss": 5.0})
        row = one.end_epoch(step=3)
        assert (row["epoch"], row["step"], row["loss"]) == (1, 3, 3.0)
        one.add({"loss": 7.0})
        assert one.end_epoch(step=4)["loss"] == 7.0
