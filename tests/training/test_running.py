"""A run of training: the same weights whether or not it was killed, and an early answer to what cannot work."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from narrow import ARGUMENTS, BUILDER, narrow_model
from test_files import full_disk

from edgemask.checkpoints import TRAINING_KEY, load_checkpoint, save_checkpoint
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.description import spec_of
from edgemask.errors import DatasetError, EdgemaskError, ImageError, ModelFileError, OutputError, UsageError
from edgemask.fake_quantization import quantized_layers
from edgemask.mixed_precision import keep_boxes_exact
from edgemask.scenes import CLASS_NAMES, write_scenes
from edgemask.training import TrainingPlan, TrainingReport, evaluate, fitting, train
from edgemask.weight_files import read_state

SETTINGS: dict[str, Any] = {
    "arguments": ARGUMENTS | {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 16},
    "epochs": 2,
    "batch_size": 2,
    "warmup_steps": 2,
    "average": 0.5,
}
PLAN = TrainingPlan(**SETTINGS)
STEPS = 6  # two epochs of six images by two


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes of 64 pixels."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 6, seed=1, size=64)


@pytest.fixture
def run(annotations: Path, tmp_path: Path) -> Callable[..., TrainingReport]:
    """Trains into tmp_path / model.safetensors."""

    def call(plan: TrainingPlan = PLAN, **options: Any) -> TrainingReport:
        options = {"workers": 0, "output": tmp_path / "model.safetensors", "annotations": annotations} | options
        return train(annotations.parent / "images", plan=plan, **options)

    return call


def weights_of(path: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)[0].state_dict()


def kill_in_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Raises where a signal would, in the middle of a step."""
    steps, real = iter(range(10_000)), fitting._step

    def step(*arguments: Any, **options: Any) -> dict[str, float]:
        if next(steps) == number:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(fitting, "_step", step)


def test_a_tiny_run(run: Callable[..., TrainingReport], annotations: Path, tmp_path: Path) -> None:
    report = run(val_images=annotations.parent / "images", val_annotations=annotations)
    assert report.steps == STEPS
    assert math.isfinite(report.loss)
    assert report.seconds > 0
    model, spec = load_checkpoint(report.checkpoint)
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert spec.class_names == CLASS_NAMES
    assert spec.builder == BUILDER
    assert spec.versions["torch"] == torch.__version__
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with safetensors.safe_open(report.checkpoint, "pt") as file:
        record = json.loads(file.metadata()[TRAINING_KEY])
    assert record["plan"]["learning_rate"] == PLAN.learning_rate
    assert (record["images"], record["steps"], record["loss"]) == (6, STEPS, report.loss)
    assert report.metrics is not None
    assert set(report.metrics) == {"boxes", "masks"}
    assert all(0 <= metrics.ap <= metrics.ap50 <= 1 for metrics in report.metrics.values())
    assert (report.best, report.best_epoch) == (str(tmp_path / "model.best.safetensors"), 1)
    assert set(os.listdir(tmp_path)) == {"model.safetensors", "model.best.safetensors"}, "no state and no part is left"


def test_training_changes_weights_and_lowers_the_loss(run: Callable[..., TrainingReport]) -> None:
    one = run(TrainingPlan(**SETTINGS | {"epochs": 1, "warmup_steps": 0, "learning_rate": 1e-2}))
    first = weights_of(one.checkpoint)
    more = run(TrainingPlan(**SETTINGS | {"epochs": 12, "warmup_steps": 0, "learning_rate": 1e-2}))
    assert more.loss < 0.9 * one.loss
    name = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    assert not torch.equal(first[name], weights_of(more.checkpoint)[name])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to start from."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    model = narrow_model(6, seed=9)
    save_checkpoint(path, model, spec_of(model))
    return path


@pytest.mark.parametrize(
    "settings",
    [{}, {"crop": 48, "flips": True, "amp": "bf16", "half": True}, {"amp": "fp16"}, {"quantize": True}],
    ids=["plain", "all", "float16", "quantized"],
)
@pytest.mark.parametrize("killed_in", [2, 3, 5])
def test_a_killed_run_ends_with_the_same_weights(
    run: Callable[..., TrainingReport],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    start: Path,
    settings: dict[str, Any],
    killed_in: int,
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY", 2)
    plan = TrainingPlan(**SETTINGS | settings)
    weights = start if plan.quantize else None
    whole = run(plan, output=tmp_path / "whole.safetensors", weights=weights)
    with monkeypatch.context() as patch:
        kill_in_step(patch, killed_in)
        with pytest.raises(KeyboardInterrupt):
            run(plan, weights=weights)
    assert (tmp_path / "model.safetensors.state").exists()
    assert not (tmp_path / "model.safetensors").exists()
    steps = []
    with monkeypatch.context() as patch:
        real = fitting._step
        patch.setattr(fitting, "_step", lambda *a, **o: steps.append(1) or real(*a, **o))
        resumed = run(plan, weights=weights)
    assert len(steps) == STEPS - killed_in // 2 * 2, "it went on where it was saved, and did not start anew"
    assert resumed.loss == whole.loss
    expected, found = weights_of(whole.checkpoint), weights_of(resumed.checkpoint)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not (tmp_path / "model.safetensors.state").exists()


def test_the_same_seed_gives_the_same_weights(run: Callable[..., TrainingReport], tmp_path: Path) -> None:
    plan = TrainingPlan(**SETTINGS | {"epochs": 1, "crop": 48})
    torch.manual_seed(5)
    one = weights_of(run(plan, output=tmp_path / "one.safetensors").checkpoint)
    torch.manual_seed(6)
    two = weights_of(run(plan, output=tmp_path / "two.safetensors").checkpoint)
    other = weights_of(run(TrainingPlan(**SETTINGS | {"epochs": 1, "crop": 48, "seed": 1})).checkpoint)
    assert all(torch.equal(two[name], value) for name, value in one.items())
    assert not torch.equal(one["backbone.body.stem.0.0.weight"], other["backbone.body.stem.0.0.weight"])


def test_the_state_of_another_plan_is_refused(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY", 1)
    with monkeypatch.context() as patch:
        kill_in_step(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run()
    state = (tmp_path / "model.safetensors.state").read_bytes()
    with pytest.raises(UsageError, match=r"(?s)model\.safetensors\.state belongs to a run with another plan.*epochs=2"):
        run(TrainingPlan(**SETTINGS | {"epochs": 3}))
    assert (tmp_path / "model.safetensors.state").read_bytes() == state


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_broken_state_is_refused(run: Callable[..., TrainingReport], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors.state").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.safetensors\.state is no plain state dict") as caught:
        run()
    assert caught.value.remedy == "remove it to start anew"
    assert (tmp_path / "model.safetensors.state").read_bytes() == content


def test_a_state_of_another_model_is_refused(run: Callable[..., TrainingReport], tmp_path: Path) -> None:
    """The same plan, but annotations with other classes since then."""
    parts = {name: {} for name in ("model", "average", "optimizer", "scheduler")}
    torch.save({"plan": repr(PLAN), "step": 2, "loss": 1.0, **parts}, tmp_path / "model.safetensors.state")
    with pytest.raises(ModelFileError, match="is no state of this run"):
        run()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: float
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY", 1)
    losses = iter([1.0, loss])
    monkeypatch.setattr(fitting, "_step", lambda *_, **__: {"loss": next(losses)})
    with pytest.raises(UsageError, match=f"the loss became {loss} in step 1") as caught:
        run()
    assert "--learning-rate" in (caught.value.remedy or "")
    assert os.listdir(tmp_path) == ["model.safetensors.state"], "the state before it is kept"


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")
def test_the_loss_reported_is_smoothed(run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 1.0, 1.0, 1.0, 1.0, 11.0])
    monkeypatch.setattr(fitting, "_step", lambda *_, **__: {"loss": next(losses)})
    assert run().loss == pytest.approx(1.2)


def test_crops_do_not_change_the_size_of_the_model(run: Callable[..., TrainingReport]) -> None:
    model, spec = load_checkpoint(run(TrainingPlan(**SETTINGS | {"epochs": 1, "crop": 32})).checkpoint)
    assert (spec.min_size, spec.max_size) == (96, 192)
    assert (model.transform.min_size, model.transform.max_size) == ((96,), 192)


@pytest.mark.parametrize("quantize", [False, True])
def test_starts_from_weights(run: Callable[..., TrainingReport], start: Path, *, quantize: bool) -> None:
    """With quantization, too, it is the weights before their rounding that are trained and stored."""
    settings = SETTINGS | {"learning_rate": 1e-9, "epochs": 1, "arguments": ARGUMENTS, "quantize": quantize}
    report = run(TrainingPlan(**settings), weights=start)
    found = weights_of(report.checkpoint)
    for name, value in narrow_model(6, seed=9).named_parameters():
        torch.testing.assert_close(found[name], value.detach(), atol=1e-6, rtol=1e-6)


def test_training_for_int8(run: Callable[..., TrainingReport], start: Path, tmp_path: Path) -> None:
    plain = run(weights=start, output=tmp_path / "plain.safetensors")
    quantized = run(TrainingPlan(**SETTINGS | {"quantize": True}), weights=start)
    assert plain.quantized_layers == 0
    assert quantized.quantized_layers == len(quantized_layers(narrow_model(6))) > 30
    assert quantized.loss != plain.loss
    first, found = read_state(start), weights_of(quantized.checkpoint)
    statistics = [name for name in first if "running" in name]
    assert statistics
    assert all(torch.equal(found[name], first[name]) for name in statistics)
    assert not torch.equal(found["backbone.body.stem.0.0.weight"], first["backbone.body.stem.0.0.weight"])
    with safetensors.safe_open(quantized.checkpoint, "pt") as file:
        assert set(file.keys()) == set(first), "an ordinary checkpoint"
        assert json.loads(file.metadata()[TRAINING_KEY])["plan"]["quantize"] is True


def test_starts_from_no_other_architecture(run: Callable[..., TrainingReport], tmp_path: Path) -> None:
    torch.save(narrow_model(6, pyramid_channels=24).state_dict(), tmp_path / "start.pth")
    with pytest.raises(ModelFileError, match=r"start\.pth are for another architecture"):
        run(weights=tmp_path / "start.pth")


def test_images_without_objects_are_trained_on(tmp_path: Path, annotations: Path) -> None:
    content = json.loads(annotations.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] > 4]
    (tmp_path / "few.json").write_text(json.dumps(content))
    plan = TrainingPlan(**SETTINGS | {"epochs": 1})
    report = train(
        annotations.parent / "images", tmp_path / "few.json", tmp_path / "model.safetensors", plan, workers=0
    )
    assert math.isfinite(report.loss)


def test_bfloat16_keeps_boxes_exact() -> None:
    """Layers compute in bfloat16, but what boxes are made of is float32."""
    model = narrow_model(4).train()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = model.backbone(image)
    keep_boxes_exact(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.backbone.body.stem(image).dtype == torch.bfloat16
        features = model.backbone(image)
        objectness, deltas = model.rpn.head(list(features.values()))
        logits, boxes = model.roi_heads.box_predictor(torch.rand(2, 16))
        masks = model.roi_heads.mask_predictor(torch.rand(2, 16, 14, 14))
    assert list(features) == list(expected)
    for tensor in (*features.values(), *objectness, *deltas, logits, boxes, masks):
        assert tensor.dtype == torch.float32


def test_bfloat16_trains_alike(run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[None] = []
    monkeypatch.setattr(fitting, "keep_boxes_exact", lambda model: kept.append(keep_boxes_exact(model)))
    exact = run(TrainingPlan(**SETTINGS | {"epochs": 1}))
    assert not kept
    coarse = run(TrainingPlan(**SETTINGS | {"epochs": 1, "amp": "bf16"}))
    assert len(kept) == 1
    assert coarse.loss != exact.loss
    assert coarse.loss == pytest.approx(exact.loss, rel=0.05)


def never(*_: Any, **__: Any) -> float:
    pytest.fail("a step was made before the mistake was found")


def with_names(annotations: Path, path: Path, *names: str) -> Path:
    content = json.loads(annotations.read_text())
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("which", ["images", "annotations", "both missing", "classes", "folder", "sizes", "no weights"])
def test_mistakes_are_found_before_the_first_step(
    run: Callable[..., TrainingReport],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    annotations: Path,
    which: str,
) -> None:
    monkeypatch.setattr(fitting, "_step", never)
    images = annotations.parent / "images"
    renamed = with_names(annotations, tmp_path / "renamed.json", "a", "b", "c", "d", "e")
    error, shown, options = {
        "images": (UsageError, "both images and annotations", {"val_images": images}),
        "annotations": (UsageError, "both images and annotations", {"val_annotations": annotations}),
        "both missing": (DatasetError, "nowhere", {"val_images": images, "val_annotations": tmp_path / "nowhere"}),
        "classes": (DatasetError, r"renamed\.json has the classes", {"val_images": images, "val_annotations": renamed}),
        "folder": (OutputError, "no folder .*nowhere", {"output": tmp_path / "nowhere" / "model.safetensors"}),
        "no weights": (UsageError, "no weights to start from", {"plan": TrainingPlan(quantize=True)}),
        "sizes": (UsageError, "min_size", {"plan": TrainingPlan(arguments=ARGUMENTS | {"min_size": 0})}),
    }[which]
    with pytest.raises(error, match=shown):
        run(**options)  # type: ignore[arg-type]


def test_names_that_no_spec_can_hold(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, annotations: Path
) -> None:
    monkeypatch.setattr(fitting, "_step", never)
    broken = with_names(annotations, tmp_path / "names.json", "a", "b", "\x1b[2J", "d", "e")
    with pytest.raises(EdgemaskError, match="name"):
        run(annotations=broken)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_broken_image_is_one_message(
    tmp_path: Path, annotations: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in (annotations.parent / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "000003.jpg").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"000003\.jpg") as caught:
        train(images, annotations, tmp_path / "model.safetensors", PLAN, workers=workers)
    assert "Traceback" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_keeps_the_state(
    run: Callable[..., TrainingReport], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torch.save by path would end in a RuntimeError about an archive."""
    monkeypatch.setattr(fitting, "SAVE_EVERY", 2)
    with monkeypatch.context() as patch:
        kill_in_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run()
    state = (tmp_path / "model.safetensors.state").read_bytes()
    with full_disk(100_000), pytest.raises(OutputError, match=r"model\.safetensors\.state: File too large"):
        run()
    assert (tmp_path / "model.safetensors.state").read_bytes() == state
    assert os.listdir(tmp_path) == ["model.safetensors.state"]
    assert run().steps == STEPS, "with space again, it goes on"


def test_evaluation_needs_the_classes_of_the_model(
    run: Callable[..., TrainingReport], tmp_path: Path, annotations: Path
) -> None:
    report = run(TrainingPlan(**SETTINGS | {"epochs": 1}))
    renamed = with_names(annotations, tmp_path / "renamed.json", "a", "b", "c", "d", "e")
    with pytest.raises(DatasetError, match=r"renamed\.json has the classes"):
        evaluate(report.checkpoint, annotations.parent / "images", renamed)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("warmup_steps", -1),
        ("average", 1.0),
        ("crop", 0),
        ("crop_share", (0.7, 0.2)),
        ("crop_share", (0.0, 0.2)),
        ("seed", -1),
    ],
)
def test_a_plan_that_cannot_be_meant(setting: str, value: Any) -> None:
    with pytest.raises(UsageError, match=setting):
        TrainingPlan(**{setting: value})


def test_16_bits_are_too_coarse_to_train_for_int8() -> None:
    with pytest.raises(UsageError, match="16 bits are as coarse") as caught:
        TrainingPlan(quantize=True, amp="bf16")
    assert caught.value.remedy == "leave out --amp"


def test_batches_come_once_an_epoch_and_in_the_same_order(annotations: Path) -> None:
    from edgemask.loading import batches

    dataset = CocoDataset(annotations.parent / "images", read_annotations(annotations))
    sums = [image.sum().item() for image, _ in (dataset[index] for index in range(6))]
    options: dict[str, Any] = {"batch_size": 4, "seed": 3, "total": 6, "workers": 0}

    def order(first: int) -> list[list[int]]:
        plain = batches(dataset, lambda image, target: (image, target), first=first, **options)  # type: ignore[arg-type, return-value]
        return [[sums.index(image.sum().item()) for image, _ in batch] for batch in plain]

    whole = order(0)
    assert [len(batch) for batch in whole] == [4, 2] * 3
    epochs = [whole[start] + whole[start + 1] for start in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    for first in range(1, 7):
        assert order(first) == whole[first:]
