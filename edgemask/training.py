"""Training of R-CNNs on COCO-format data: one loop, resumed where it was killed."""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_checkpoint, load_state, read_state, save_checkpoint, spec_of
from edgemask.datasets import Augment, CocoAnnotations, CocoDataset, Sample, augmentation, read_annotations
from edgemask.errors import DatasetError, ModelFileError, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics
from edgemask.files import creating
from edgemask.models import build, parameter_count, prediction_device
from edgemask.progress import progress
from edgemask.reference import ReferenceDetector

SAVE_EVERY = 200  # steps between two saved states: about three minutes of a compact model on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Everything that decides how training goes; stored in the checkpoint.

    Attributes:
        model: a builder's name.
        arguments: the builder's arguments besides the number of classes.
        epochs: passes over the images.
        batch_size: images per step.
        learning_rate: peak of AdamW's rate, after a linear warm-up and before a cosine decay to a hundredth.
        weight_decay: AdamW's, applied to weights of convolutions and linear layers.
        warmup_steps: steps of the warm-up.
        crop: side in pixels of random training crops; None trains on whole images.
        crop_share: range of a crop's share of the image's area.
        flips: flip upside down too.
        amp: compute in bfloat16 where that is safe.
        average: decay of the moving average of weights that is evaluated and stored.
        half: store the weights as float16.
        seed: of weights, order, augmentation and sampling.
    """

    model: str = "maskrcnn_compact_fpn"
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 12
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 300
    crop: int | None = None
    crop_share: tuple[float, float] = (0.15, 0.7)
    flips: bool = False
    amp: bool = False
    average: float = 0.998
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers with which no step could be made."""
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", "give a number above 0")


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of training: where the checkpoint is, how long it took, and its COCO metrics per task."""

    checkpoint: str
    parameters: int
    steps: int
    seconds: float
    loss: float
    metrics: dict[str, CocoMetrics] | None


def train(
    images: str | Path,
    annotations: str | Path,
    output: str | Path,
    plan: TrainingPlan,
    *,
    weights: str | Path | None = None,
    val_images: str | Path | None = None,
    val_annotations: str | Path | None = None,
    workers: int = 1,
) -> TrainingReport:
    """Trains a model and writes its checkpoint; after a kill the same call goes on where it was.

    Args:
        images: folder of the training images.
        annotations: their COCO-format annotations; classes are taken from them.
        output: checkpoint to write (safetensors); `OUTPUT.state` beside it holds the state of an unfinished run.
        plan: how to train.
        weights: a checkpoint or state dict of the same architecture to start from.
        val_images: folder of validation images.
        val_annotations: their annotations; with them COCO metrics are measured at the end.
        workers: processes that load images.

    Raises:
        DatasetError: the data do not fit together.
        UsageError: the plan cannot be meant, or the loss is no longer a number.
    """
    output = Path(output)
    found = read_annotations(annotations)
    dataset = CocoDataset(images, found)
    if (val_images is None) != (val_annotations is None):
        raise UsageError("validation needs both images and annotations", "give --val-images and --val-annotations")
    torch.manual_seed(plan.seed)
    model = build(plan.model, len(found.categories) + 1, **plan.arguments)
    if weights is not None:
        load_state(model, read_state(weights), weights)
    started = time.monotonic()
    average, steps, loss = _fit(model, dataset, plan, output.with_name(output.name + ".state"), workers)
    spec = spec_of(
        average,
        class_names=found.class_names,
        category_ids=found.category_ids,
        builder=plan.model,
        builder_arguments=plan.arguments,
    )
    seconds = time.monotonic() - started
    record = {"plan": dataclasses.asdict(plan), "images": len(dataset), "steps": steps, "loss": loss}
    save_checkpoint(output, average, spec, half=plan.half, training=record)
    metrics = None
    if val_images is not None and val_annotations is not None:
        metrics = evaluate(output, val_images, val_annotations)
    output.with_name(output.name + ".state").unlink(missing_ok=True)
    return TrainingReport(str(output), parameter_count(average), steps, seconds, loss, metrics)


def evaluate(checkpoint: str | Path, images: str | Path, annotations: str | Path) -> dict[str, CocoMetrics]:
    """COCO metrics of a stored checkpoint, run by PyTorch on the images of an annotation file."""
    model, spec = load_checkpoint(checkpoint)
    found = read_annotations(annotations)
    if found.class_names != spec.class_names:
        raise DatasetError(
            f"{annotations} has the classes {found.class_names}, the model {spec.class_names}",
            "evaluate on data with the classes that the model was trained on",
        )
    dataset = CocoDataset(images, found)
    detector = ReferenceDetector(model.to(prediction_device()), spec)
    results: list[dict[str, Any]] = []
    for identity, entry in progress(found.images.items(), "evaluate"):
        results += detector.predict(dataset.path(entry)).to_coco(identity, category_ids=spec.category_ids)
    return coco_metrics(annotations, results, tasks=spec.tasks, max_detections=spec.max_detections)


def _fit(
    model: GeneralizedRCNN, dataset: CocoDataset, plan: TrainingPlan, state_path: Path, workers: int
) -> tuple[GeneralizedRCNN, int, float]:
    """Runs the steps that are left; gives the averaged model, the number of steps and the last mean loss."""
    device = prediction_device()
    model.to(device).train()
    if plan.crop is not None:
        test_sizes = model.transform.min_size, model.transform.max_size
        model.transform.min_size, model.transform.max_size = (plan.crop,), plan.crop
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.average), use_buffers=True)
    optimizer = torch.optim.AdamW(_parameter_groups(model, plan.weight_decay), lr=plan.learning_rate)
    total = plan.epochs * math.ceil(len(dataset) / plan.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, plan.warmup_steps))
    parts = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    first, mean_loss = _restore(state_path, parts, plan)
    for step, batch in enumerate(progress(_batches(dataset, plan, first, total, workers), "train", total, first), first):
        loss = _step(model, batch, optimizer, device, amp=plan.amp)
        if not math.isfinite(loss):
            raise UsageError(f"the loss became {loss} in step {step}", "lower --learning-rate")
        scheduler.step()
        average.update_parameters(model)
        mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        progress.note(f"loss {mean_loss:.3f}")
        if (step + 1) % SAVE_EVERY == 0:
            _save(state_path, parts, plan, step + 1, mean_loss)
    trained: GeneralizedRCNN = average.module.cpu().eval()
    if plan.crop is not None:
        trained.transform.min_size, trained.transform.max_size = test_sizes
    return trained, total, mean_loss


def _step(
    model: GeneralizedRCNN,
    batch: list[Sample],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    *,
    amp: bool,
) -> float:
    images = [image.to(device, non_blocking=True) for image, _ in batch]
    targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in batch]
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        losses: dict[str, torch.Tensor] = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return loss.item()


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and normalisation are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _rate(step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) from step `first` on: the same order whether or not the run was cut."""

    def __init__(self, length: int, plan: TrainingPlan, first: int, total: int) -> None:
        self._length, self._plan, self._first, self._total = length, plan, first, total

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = math.ceil(self._length / self._plan.batch_size)
        for epoch in range(self._first // per_epoch, self._total // per_epoch):
            generator = torch.Generator().manual_seed(self._plan.seed * 100_003 + epoch)
            order = torch.randperm(self._length, generator=generator).tolist()
            for position in range(per_epoch):
                if epoch * per_epoch + position >= self._first:
                    chosen = order[position * self._plan.batch_size : (position + 1) * self._plan.batch_size]
                    yield [(epoch, index) for index in chosen]


class _Augmented(Dataset[Sample]):
    """Augments with random numbers that depend on seed, epoch and index alone."""

    def __init__(self, dataset: CocoDataset, augment: Augment, seed: int) -> None:
        self._dataset, self._augment, self._seed = dataset, augment, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self._seed * 100_003 + epoch) * 1_000_003 + index)
            return self._dataset.augmented(index, self._augment)


def _batches(
    dataset: CocoDataset, plan: TrainingPlan, first: int, total: int, workers: int
) -> Iterator[list[Sample]]:
    augment = augmentation(crop=plan.crop, crop_share=plan.crop_share, flips=plan.flips)
    loader = DataLoader(
        _Augmented(dataset, augment, plan.seed),
        batch_sampler=_Order(len(dataset), plan, first, total),
        collate_fn=list,
        num_workers=workers,
        # Forked workers inherit the locks of threads that they do not have.
        multiprocessing_context="forkserver" if workers else None,
    )
    return iter(loader)


def _save(path: Path, parts: dict[str, Any], plan: TrainingPlan, step: int, loss: float) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    facts = {"plan": repr(plan), "step": step, "loss": loss, "random": torch.get_rng_state()}
    with creating(path) as temporary:
        torch.save(state | facts, temporary)


def _restore(path: Path, parts: dict[str, Any], plan: TrainingPlan) -> tuple[int, float]:
    """Loads the state of an unfinished run, if there is one; gives its step and mean loss."""
    if not path.exists():
        return 0, math.nan
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same_plan = state["plan"] == repr(plan)
    except Exception as error:
        raise ModelFileError(f"{path} is no state of a training run: {error}", "remove it to start anew") from error
    if not same_plan:
        raise UsageError(
            f"{path} belongs to a run with another plan: {state['plan']}", "give the same options, or remove it"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"])
    return int(state["step"]), float(state["loss"])
