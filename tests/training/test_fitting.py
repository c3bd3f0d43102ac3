"""The loop: batches that make one step together, sizes, normalisation, shares of a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import narrow_model
from training_runs import EVERYTHING, rows_of

from edgemask.checkpoints import load_checkpoint
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.errors import UsageError
from edgemask.loading import batches
from edgemask.scenes import write_scenes
from edgemask.training import TrainingPlan, fitting, train
from edgemask.training.fitting import _set_sizes


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes of 64 pixels."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 8, seed=1, size=64)


@pytest.fixture
def losses(annotations: Path, tmp_path: Path) -> Callable[..., list[float]]:
    """The losses of a run's epochs, by its log."""

    def run(**settings: Any) -> list[float]:
        plan = TrainingPlan(**EVERYTHING | settings)
        folder = tmp_path / "log"
        train(annotations.parent / "images", annotations, tmp_path / "m.safetensors", plan, curve=folder, workers=0)
        return [float(row["loss"]) for row in rows_of(folder)]

    return run


def test_accumulated_batches_are_one_large_batch(losses: Callable[..., list[float]]) -> None:
    """But for means over fewer objects at a time."""
    large, accumulated = losses(batch_size=4), losses(batch_size=2, accumulate=2)
    assert accumulated == pytest.approx(large, rel=0.005)
    assert losses(batch_size=2) != pytest.approx(large, rel=0.005), "twice as many steps"


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_normalisation(annotations: Path, tmp_path: Path, *, frozen: bool) -> None:
    plan = TrainingPlan(**EVERYTHING | {"epochs": 1, "freeze_norm": frozen})
    report = train(annotations.parent / "images", annotations, tmp_path / "m.safetensors", plan, workers=0)
    found = load_checkpoint(report.checkpoint)[0].state_dict()
    means = [value for name, value in found.items() if name.endswith("running_mean")]
    assert means
    assert all(not value.any() for value in means) == frozen


def test_one_of_several_sizes_for_each_image() -> None:
    model = narrow_model().train()
    _set_sizes(model, TrainingPlan(scales=(64, 128)))
    torch.manual_seed(0)
    drawn = {model.transform([torch.zeros(3, 50, 60)])[0].image_sizes[0] for _ in range(20)}
    assert drawn == {(64, 76), (128, 153)}
    model.eval()
    assert model.transform([torch.zeros(3, 50, 60)])[0].image_sizes[0] == (128, 153), "the last one for predictions"


def test_sizes_and_crops_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="scales with crop"):
        TrainingPlan(scales=(64,), crop=64)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_processes_share_what_one_would_take(annotations: Path, count: int, batch_size: int) -> None:
    dataset = CocoDataset(annotations.parent / "images", read_annotations(annotations))
    sums = [image.sum().item() for image, _ in (dataset[index] for index in range(8))]

    def taken(size: int, share: tuple[int, int]) -> list[list[int]]:
        loaded = batches(
            dataset,
            lambda image, target: (image, target),  # type: ignore[arg-type, return-value]
            batch_size=size,
            seed=3,
            first=0,
            total=2 * -(-8 // (batch_size * count)),
            workers=0,
            share=share,
        )
        return [[sums.index(image.sum().item()) for image, _ in batch] for batch in loaded]

    alone = taken(batch_size * count, (0, 1))
    shares = [taken(batch_size, (rank, count)) for rank in range(count)]
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        assert all(1 <= len(part) <= batch_size for part in parts)
        joined = [index for part in parts for index in part]
        assert set(joined) >= set(whole)
        assert len(joined) == max(len(whole), count)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_16_bits_give_the_same_losses_but_for_rounding(losses: Callable[..., list[float]], amp: str) -> None:
    plain, other = losses(), losses(amp=amp)
    assert other == pytest.approx(plain, rel=0.03)
    assert other != plain


def test_a_step_beyond_float16_is_left_out(monkeypatch: pytest.MonkeyPatch, losses: Callable[..., list[float]]) -> None:
    scales = []
    real = torch.amp.GradScaler.update

    def update(scaler: torch.amp.GradScaler) -> None:
        before = scaler.get_scale()
        real(scaler)
        scales.append((before, scaler.get_scale()))

    monkeypatch.setattr(torch.amp.GradScaler, "update", update)
    monkeypatch.setattr(fitting, "_FIRST_SCALE", 2.0**60)
    (loss,) = losses(amp="fp16")
    assert loss > 0
    assert all(after == before / 2 for before, after in scales), "too large for float16, each time"


def test_channels_last(monkeypatch: pytest.MonkeyPatch, losses: Callable[..., list[float]]) -> None:
    layouts, real = set(), fitting._step

    def step(model: Any, *arguments: Any) -> dict[str, float]:
        weight = model.roi_heads.mask_head[0][0].weight
        layouts.add((weight.is_contiguous(memory_format=torch.channels_last), weight.is_contiguous()))
        return real(model, *arguments)

    monkeypatch.setattr(fitting, "_step", step)
    plain = losses()
    assert layouts == {(False, True)}
    assert losses(channels_last=True) == pytest.approx(plain, rel=0.01)
    assert layouts == {(False, True), (True, False)}
