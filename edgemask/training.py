"""Training of R-CNNs on COCO-format data: one loop, resumed where it was killed."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_checkpoint, load_state, save_checkpoint
from edgemask.checks import number, optional, whole
from edgemask.datasets import CocoDataset, Sample, augmentation, read_annotations
from edgemask.description import spec_of
from edgemask.errors import DatasetError, ModelFileError, OutputError, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics
from edgemask.fake_quantization import FakeQuantization, quantized_layers
from edgemask.files import creating
from edgemask.loading import batches
from edgemask.mixed_precision import keep_boxes_exact
from edgemask.models import build, parameter_count, prediction_device
from edgemask.progress import progress
from edgemask.reference import ReferenceDetector
from edgemask.weight_files import read_state, read_tensors

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
        quantize: fine-tune for INT8, as `fake_quantization` does it.
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
    quantize: bool = False
    average: float = 0.998
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        for name, check in _PLAN_CHECKS.items():
            check(name, getattr(self, name))
        low, high = self.crop_share
        if not 0 < low <= high <= 1:
            raise UsageError(f"crop_share is {low} to {high}", "give two shares of an image's area, such as 0.15 0.7")
        if self.quantize and self.amp:
            raise UsageError("quantize with amp: bfloat16 is as coarse as the INT8 to train for", "leave out --amp")


_PLAN_CHECKS = {
    "epochs": whole(1, 1_000_000),
    "batch_size": whole(1, 1_000_000),
    "learning_rate": number(1e-12, 1e3),
    "weight_decay": number(0, 1e3),
    "warmup_steps": whole(0, 1_000_000_000),
    "crop": optional(whole(32, 16_384)),
    "average": number(0, 1 - 1e-9),
    "seed": whole(0, 10_000_000),
}


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of training: the FP32 checkpoint, layers trained for INT8, time taken, and COCO metrics per task."""

    checkpoint: str
    parameters: int
    quantized_layers: int
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
        workers: processes that load images; with any, a script must call this under `if __name__ == "__main__":`.

    Raises:
        DatasetError: the data do not fit together.
        UsageError: the plan cannot be meant, an unfinished run had another one, or the loss is no longer a number.
        ModelFileError: `weights` or the state of the unfinished run cannot be used.
        OutputError: the checkpoint or the state cannot be written.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}", "make it first")
    if plan.quantize and weights is None:
        remedy = "train without it first, then give that checkpoint as --weights"
        raise UsageError("--quantize fine-tunes a trained model, and there are no weights to start from", remedy)
    if (val_images is None) != (val_annotations is None):
        raise UsageError("validation needs both images and annotations", "give --val-images and --val-annotations")
    found = read_annotations(annotations)
    dataset = CocoDataset(images, found)
    if val_images is not None and val_annotations is not None:
        _evaluation_data(val_images, val_annotations, found.class_names)  # at once, not after hours of training
    torch.manual_seed(plan.seed)
    model = _trainable(build(plan.model, len(found.categories) + 1, **plan.arguments), plan.model)
    if weights is not None:
        load_state(model, read_state(weights), weights)
    spec = spec_of(
        model,
        class_names=found.class_names,
        category_ids=found.category_ids,
        builder=plan.model,
        builder_arguments=plan.arguments,
    )
    started = time.monotonic()
    state_path = output.with_name(output.name + ".state")
    average, steps, loss = _fit(model, dataset, plan, state_path, workers)
    seconds = time.monotonic() - started
    record = {"plan": dataclasses.asdict(plan), "images": len(dataset), "steps": steps, "loss": loss}
    save_checkpoint(output, average, spec, half=plan.half, training=record)
    metrics = None
    if val_images is not None and val_annotations is not None:
        metrics = evaluate(output, val_images, val_annotations)
    state_path.unlink(missing_ok=True)
    rounded = len(quantized_layers(average)) if plan.quantize else 0
    return TrainingReport(str(output), parameter_count(average), rounded, steps, seconds, loss, metrics)


def evaluate(checkpoint: str | Path, images: str | Path, annotations: str | Path) -> dict[str, CocoMetrics]:
    """COCO metrics of a stored checkpoint, run by PyTorch on the images of an annotation file.

    Raises:
        ModelFileError: no sound checkpoint.
        DatasetError: the data do not fit together, or have other classes than the model.
    """
    model, spec = load_checkpoint(checkpoint)
    dataset = _evaluation_data(images, annotations, spec.class_names)
    category_ids = dataset.annotations.category_ids
    detector = ReferenceDetector(_trainable(model, str(checkpoint)).to(prediction_device()), spec)
    results: list[dict[str, Any]] = []
    for identity, entry in progress(dataset.annotations.images.items(), "evaluate"):
        results += detector.predict(dataset.path(entry)).to_coco(identity, category_ids=category_ids)
    return coco_metrics(annotations, results, tasks=spec.tasks, max_detections=spec.max_detections)


def _trainable(model: torch.nn.Module, name: str) -> GeneralizedRCNN:
    if isinstance(model, GeneralizedRCNN) and not model.roi_heads.has_keypoint():
        return model
    raise UsageError(
        f"{name} finds keypoints or is semantic, which is not trained here", "train it elsewhere; it exports"
    )


def _evaluation_data(images: str | Path, annotations: str | Path, class_names: tuple[str, ...]) -> CocoDataset:
    found = read_annotations(annotations)
    if found.class_names != class_names:
        problem = f"{annotations} has the classes {found.class_names}, the model {class_names}"
        raise DatasetError(problem, "evaluate on data with the classes that the model was trained on")
    return CocoDataset(images, found)


def _fit(
    model: GeneralizedRCNN, dataset: CocoDataset, plan: TrainingPlan, state_path: Path, workers: int
) -> tuple[GeneralizedRCNN, int, float]:
    """Runs the steps that are left; gives the averaged model, the number of steps and the last mean loss."""
    device = prediction_device()
    model.to(device).train()
    if plan.crop is not None:
        model.transform.min_size, model.transform.max_size = (plan.crop,), plan.crop
    decay = get_ema_multi_avg_fn(plan.average)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    if plan.amp:
        keep_boxes_exact(model)
    optimizer = torch.optim.AdamW(_parameter_groups(model, plan.weight_decay), lr=plan.learning_rate)
    total = plan.epochs * math.ceil(len(dataset) / plan.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, plan.warmup_steps))
    parts = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    quantization = FakeQuantization(model, total) if plan.quantize else None  # hooks the model: copied before that
    if quantization is not None:
        parts["quantization"] = quantization
    first, mean_loss, random = _restore(state_path, parts, plan)
    augment = augmentation(crop=plan.crop, crop_share=plan.crop_share, flips=plan.flips)
    samples = batches(
        dataset, augment, batch_size=plan.batch_size, seed=plan.seed, first=first, total=total, workers=workers
    )
    if random is not None:
        torch.set_rng_state(random)  # after the loader was made, which takes a random number
    for step, batch in enumerate(progress(samples, "train", total, first), first):
        loss = _step(model, batch, optimizer, device, amp=plan.amp, quantization=quantization)
        if not math.isfinite(loss):
            raise UsageError(f"the loss became {loss} in step {step}", "lower --learning-rate")
        scheduler.step()
        average.update_parameters(model)
        mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        progress.note(f"loss {mean_loss:.3f}")
        if (step + 1) % SAVE_EVERY == 0:
            _save(state_path, parts, plan, step + 1, mean_loss)
    return average.module.cpu().eval(), total, mean_loss


def _step(
    model: GeneralizedRCNN,
    batch: list[Sample],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    *,
    amp: bool,
    quantization: FakeQuantization | None,
) -> float:
    images = [image.to(device, non_blocking=True) for image, _ in batch]
    targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in batch]
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        losses: dict[str, torch.Tensor] = (quantization or model)(images, targets)
        loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
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


def _save(path: Path, parts: dict[str, Any], plan: TrainingPlan, step: int, loss: float) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    facts = {"plan": repr(plan), "step": step, "loss": loss, "random": torch.get_rng_state()}
    # An open file, since torch reports a full disk as OSError only from there.
    with creating(path) as temporary, temporary.open("wb") as file:
        torch.save(state | facts, file)


def _restore(path: Path, parts: dict[str, Any], plan: TrainingPlan) -> tuple[int, float, torch.Tensor | None]:
    """Loads the state of an unfinished run, if there is one; gives its step, mean loss and random numbers."""
    if not path.exists():
        return 0, math.nan, None
    state = read_tensors(path, "remove it to start anew")
    try:
        if state["plan"] == repr(plan):
            for name, part in parts.items():
                part.load_state_dict(state[name])
            return int(state["step"]), float(state["loss"]), state["random"]
    except Exception as error:
        raise ModelFileError(f"{path} is no state of this run: {error}", "remove it to start anew") from error
    raise UsageError(
        f"{path} belongs to a run with another plan: {state['plan']}", "give the same options, or remove it"
    )
