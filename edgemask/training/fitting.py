"""The loop: steps over augmented batches, and the state from which a run that was killed goes on."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.augmentation import Sample, augmentation
from edgemask.datasets import CocoDataset
from edgemask.errors import ModelFileError, UsageError
from edgemask.fake_quantization import FakeQuantization
from edgemask.files import creating
from edgemask.loading import batches
from edgemask.mixed_precision import keep_boxes_exact
from edgemask.progress import progress
from edgemask.training.curve import Curve
from edgemask.training.optimization import parameter_groups, rate
from edgemask.training.plan import TrainingPlan
from edgemask.training.team import Processes
from edgemask.weight_files import read_tensors

SAVE_EVERY = 200  # steps between two saved states: about three minutes of a compact model on two cores
_SIXTEEN_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FIRST_SCALE = 2.0**12  # of gradients in float16: it doubles while they keep within range
_RANKS = 7919  # prime: between the random numbers of two processes

# Called in all processes after each epoch with the averaged model and the curve so far; gives the row's other facts.
EpochEnd = Callable[[GeneralizedRCNN, Curve, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The averaged model in evaluation mode on the CPU, the number of steps, and the smoothed loss."""

    model: GeneralizedRCNN
    steps: int
    loss: float


def fit(
    model: GeneralizedRCNN,
    dataset: CocoDataset,
    plan: TrainingPlan,
    team: Processes,
    state_path: Path,
    *,
    workers: int,
    epoch_end: EpochEnd | None,
) -> Fitted:
    """Runs the steps that are left of a run.

    Args:
        model: is trained, on the device of its process.
        dataset: what it learns from.
        plan: how.
        team: who takes part.
        state_path: where the state of an unfinished run is kept.
        workers: processes that load images, for each that trains.
        epoch_end: what to do after each epoch.

    Raises:
        UsageError: the loss is no longer a number, or the unfinished run had another plan.
        ModelFileError: the state cannot be used.
        OutputError: the state cannot be written.
    """
    model.to(team.device).train()
    if plan.channels_last:
        model.to(memory_format=torch.channels_last)
    _set_sizes(model, plan)
    if plan.freeze_norm:
        _freeze_norm(model)
    decay = get_ema_multi_avg_fn(plan.average)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    if plan.amp is not None:
        keep_boxes_exact(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, plan.weight_decay), lr=plan.learning_rate)
    per_epoch = math.ceil(len(dataset) / (plan.batch_size * plan.accumulate * team.count))
    total = plan.epochs * per_epoch
    scaler = torch.amp.GradScaler(team.device.type, _FIRST_SCALE, enabled=plan.amp == "fp16")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, plan))
    curve = Curve()
    parts = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler, "curve": curve}
    parts["scaler"] = scaler
    quantization = FakeQuantization(model, total) if plan.quantize else None  # hooks the model: copied before that
    if quantization is not None:
        parts["quantization"] = quantization
    first, mean_loss, random = _restore(state_path, parts, plan, team)
    losses_of = quantization or team.joined(model)
    if not team.first:
        torch.manual_seed(plan.seed + _RANKS * team.rank)
    samples = batches(
        dataset,
        augmentation(
            crop=plan.crop,
            crop_share=plan.crop_share,
            flips=plan.flips,
            keypoint_names=dataset.annotations.keypoint_names,
        ),
        batch_size=plan.batch_size * plan.accumulate,
        seed=plan.seed,
        first=first,
        total=total,
        workers=workers,
        share=(team.rank, team.count),
    )
    if random is not None:
        torch.set_rng_state(random)  # after the loader was made, which takes a random number
    shown = progress(samples, "train", total, first) if team.first else samples
    for step, batch in enumerate(shown, first):
        losses = team.mean(_step(losses_of, batch, optimizer, scaler, plan, team.device))
        loss = losses["loss"]
        if not math.isfinite(loss):
            raise UsageError(f"the loss became {loss} in step {step}", "lower --learning-rate")
        learning_rate = float(scheduler.get_last_lr()[0])
        with warnings.catch_warnings():
            # The first steps may be beyond float16, and are left out by intent.
            warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step", UserWarning)
            scheduler.step()
        average.update_parameters(model)
        curve.add(losses)
        mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
        progress.note(f"loss {mean_loss:.3f}")
        ended = (step + 1) % per_epoch == 0
        if ended and epoch_end is not None:
            epoch_end(average.module, curve, {"step": step + 1, "learning_rate": learning_rate})
        if (ended and epoch_end is not None) or (step + 1) % SAVE_EVERY == 0:
            _save(state_path, parts, plan, team, step + 1, mean_loss)
    return Fitted(average.module.cpu().eval(), total, mean_loss)


def _set_sizes(model: GeneralizedRCNN, plan: TrainingPlan) -> None:
    """Of several sizes, torchvision's transform draws one for each image while it trains."""
    if plan.crop is not None:
        model.transform.min_size, model.transform.max_size = (plan.crop,), plan.crop
    elif plan.scales:
        model.transform.min_size = plan.scales
        model.transform.max_size = max(model.transform.max_size, *plan.scales)


def _freeze_norm(model: GeneralizedRCNN) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _step(
    losses_of: Callable[..., dict[str, torch.Tensor]],
    batch: list[Sample],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    plan: TrainingPlan,
    device: torch.device,
) -> dict[str, float]:
    """One step over all batches whose gradients are accumulated; the losses are their means."""
    optimizer.zero_grad(set_to_none=True)
    chunks = [batch[start : start + plan.batch_size] for start in range(0, len(batch), plan.batch_size)]
    found: dict[str, float] = {}
    for number, chunk in enumerate(chunks, 1):
        images = [image.to(device, non_blocking=True) for image, _ in chunk]
        targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in chunk]
        with _alone(losses_of, number < len(chunks)):
            with torch.autocast(device.type, _SIXTEEN_BITS.get(plan.amp or ""), enabled=plan.amp is not None):
                losses = losses_of(images, targets)
                loss = torch.stack(list(losses.values())).sum()
            share = len(chunk) / len(batch)
            scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        for name, value in ("loss", loss), *losses.items():
            found[name] = found.get(name, 0.0) + share * value.item()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 10.0)
    scaler.step(optimizer)
    scaler.update()
    return found


@contextlib.contextmanager
def _alone(losses_of: object, alone: bool) -> Iterator[None]:
    """Processes exchange gradients with the last batch of a step only."""
    with losses_of.no_sync() if alone and isinstance(losses_of, DistributedDataParallel) else contextlib.nullcontext():
        yield


def _save(path: Path, parts: dict[str, Any], plan: TrainingPlan, team: Processes, step: int, loss: float) -> None:
    random = team.gathered(torch.get_rng_state())
    if not team.first:
        return
    state = {name: part.state_dict() for name, part in parts.items()}
    facts = {"plan": repr(plan), "step": step, "loss": loss, "random": random}
    # An open file, since torch reports a full disk as OSError only from there.
    with creating(path) as temporary, temporary.open("wb") as file:
        torch.save(state | facts, file)


def _restore(
    path: Path, parts: dict[str, Any], plan: TrainingPlan, team: Processes
) -> tuple[int, float, torch.Tensor | None]:
    """Loads the state of an unfinished run, if there is one; gives its step, mean loss and random numbers."""
    if not path.exists():
        return 0, math.nan, None
    state = read_tensors(path, "remove it to start anew")
    try:
        if state["plan"] == repr(plan) and len(state["random"]) == team.count:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            return int(state["step"]), float(state["loss"]), state["random"][team.rank]
    except Exception as error:
        raise ModelFileError(f"{path} is no state of this run: {error}", "remove it to start anew") from error
    raise UsageError(
        f"{path} belongs to a run with another plan, of {len(state['random'])} processes: {state['plan']}",
        "give the same options to as many processes, or remove it",
    )
