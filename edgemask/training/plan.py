"""Everything that decides how training goes."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgemask.checks import choice, number, optional, several, whole
from edgemask.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Everything that decides how training goes; stored in the checkpoint.

    Attributes:
        model: a builder's name.
        arguments: the builder's arguments besides the number of classes.
        epochs: passes over the images.
        batch_size: images that are computed at once, in each process.
        accumulate: batches whose gradients make one step; the step is that of a batch so many times as large, but for
            normalisation, whose statistics are those of each batch.
        learning_rate: peak of AdamW's rate, after a linear warm-up.
        schedule: what follows: `cosine` falls to a hundredth, `step` divides by ten after 2/3 and after 8/9 of the run.
        weight_decay: AdamW's, applied to weights of convolutions and linear layers.
        warmup_steps: steps of the warm-up.
        crop: side in pixels of random training crops; None trains on whole images.
        crop_share: range of a crop's share of the image's area.
        scales: shorter sides in pixels, of which each whole image gets one at random; empty: the model's own.
        flips: flip upside down too.
        freeze_norm: keep the statistics of normalisation as they are, for batches of one or two images.
        amp: compute in `bf16` or `fp16` where that is safe; float16's gradients are scaled, and a step in which they
            leave its range is left out. None: float32.
        channels_last: lay weights out with channels last, which tensor cores like; the same results but for rounding.
        quantize: fine-tune for INT8, as `fake_quantization` does it.
        average: decay of the moving average of weights that is evaluated and stored.
        half: store the weights as float16.
        seed: of weights, order, augmentation and sampling.
    """

    model: str = "maskrcnn_compact_fpn"
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 12
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.05
    warmup_steps: int = 300
    crop: int | None = None
    crop_share: tuple[float, float] = (0.15, 0.7)
    scales: tuple[int, ...] = ()
    flips: bool = False
    freeze_norm: bool = False
    amp: str | None = None
    channels_last: bool = False
    quantize: bool = False
    average: float = 0.998
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        for name, check in _CHECKS.items():
            check(name, getattr(self, name))
        low, high = self.crop_share
        if not 0 < low <= high <= 1:
            raise UsageError(f"crop_share is {low} to {high}", "give two shares of an image's area, such as 0.15 0.7")
        if self.crop is not None and self.scales:
            raise UsageError("scales with crop: crops have one size", "vary --crop-share, or leave out --crop")
        if self.quantize and self.amp:
            raise UsageError("quantize with amp: 16 bits are as coarse as the INT8 to train for", "leave out --amp")


_CHECKS = {
    "epochs": whole(1, 1_000_000),
    "batch_size": whole(1, 1_000_000),
    "accumulate": whole(1, 10_000),
    "learning_rate": number(1e-12, 1e3),
    "schedule": choice("cosine", "step"),
    "weight_decay": number(0, 1e3),
    "warmup_steps": whole(0, 1_000_000_000),
    "crop": optional(whole(32, 16_384)),
    "scales": several(whole(32, 16_384), 0, 100),
    "amp": optional(choice("bf16", "fp16")),
    "average": number(0, 1 - 1e-9),
    "seed": whole(0, 10_000_000),
}
