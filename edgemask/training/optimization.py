"""How weights follow their gradients: which of them decay, and at what rate."""

import math
from typing import Any

from torch import nn

from edgemask.training.plan import TrainingPlan

_LEAST = 0.01  # of the peak, at the end of a cosine
_DROPS = (2 / 3, 8 / 9)  # of the run: where the rate falls, as in the paper's schedules


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What an optimizer takes; biases and normalisation are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def rate(step: int, total: int, plan: TrainingPlan) -> float:
    """Share of the peak of the learning rate in a step, of so many in all."""
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    if plan.schedule == "step":
        return float(0.1 ** sum(step >= drop * total for drop in _DROPS))
    done = (step - plan.warmup_steps) / max(1, total - plan.warmup_steps)
    return _LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * done))
