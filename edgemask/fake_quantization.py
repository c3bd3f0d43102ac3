"""Fine-tuning for INT8: layers compute with what rounding leaves of their weights and of their inputs.

The layers are those that the recipe `default` of `edgemask quantize` rounds, but transposed convolutions. Weights are
rounded to INT8 by output channel, around 0; what a layer takes, to UINT8 over a range that follows what the layer sees.
So is what an activation other than ReLU takes, since the file rounds what a layer gives. Gradients pass the rounding as
if it were not there (straight-through; Jacob et al., arXiv:1712.05877), and are 0 where a value lies beyond its range.
Left exact is what the file rounds besides: the terms of sums and products.

Parameters stay what and where they are: only for the time of a step the model sees rounded ones. What is stored, and
the moving average of weights, know nothing of the rounding; the ranges serve training alone, since `edgemask quantize`
calibrates anew.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

# What `edgemask.quantization.recipes.PREDICTORS` leaves in FP32, by the names of torchvision's modules.
PREDICTORS = (
    "rpn.head.cls_logits",
    "rpn.head.bbox_pred",
    "roi_heads.box_predictor",
    "roi_heads.mask_predictor",
    "roi_heads.keypoint_predictor",
)
_CURVED = (nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid)  # what a layer gives is rounded before these
SETTLE = 0.05  # of the steps, the first: ranges are found, inputs are not yet rounded to them
FREEZE = 0.75  # of the steps, after which ranges stay: weights end on the grid that they were trained for
MOMENTUM = 0.05  # of a step in the moving average of ranges
_TINY = torch.finfo(torch.float32).tiny  # a scale for what is 0 throughout


def quantized_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers of a torchvision R-CNN that are trained for INT8, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith(PREDICTORS)
    }


def round_weights(weights: Tensor) -> Tensor:
    """What INT8 leaves of weights, symmetric, with a scale for each output channel.

    The file holds weights with the BatchNorm behind them folded in, which multiplies each output channel by a number.
    Its scale is multiplied by that as well: what is rounded here, folded then, equals what is folded first and rounded.

    Args:
        weights: float32 [C, …], C the output channels.

    Returns:
        float32 [C, …], through which the gradient passes.
    """
    scales = (weights.detach().abs().flatten(1).amax(1) / 127).clamp_min(_TINY)
    return torch.fake_quantize_per_channel_affine(
        weights, scales, torch.zeros_like(scales, dtype=torch.int32), 0, -127, 127
    )


def round_activations(values: Tensor, ends: Tensor) -> Tensor:
    """What UINT8 leaves of activations.

    Args:
        values: float32, of any shape.
        ends: float32 [2], the least and the greatest value that can be told apart; the range always holds 0.

    Returns:
        float32 of the same shape, through which the gradient passes inside the range.
    """
    low, high = ends[0].clamp_max(0), ends[1].clamp_min(0)
    scale = ((high - low) / 255).clamp_min(_TINY)
    return torch.fake_quantize_per_tensor_affine(values, scale, torch.round(-low / scale).int(), 0, 255)


class FakeQuantization:
    """Computes a model's losses as INT8 would, step after step.

    A layer that is called more than once in a step, such as the RPN's on each level, has one range for all calls; in
    the file each call has its own.

    Args:
        model: a torchvision R-CNN in training mode, on its device. Its layers get hooks: copy it before, not after. Its
            batch normalisation goes to evaluation mode and stays there. The file folds the statistics that are stored,
            so weights must be trained against those; and those of a detector's few images a step are noise that hides
            the shift which rounding brings (Krishnamoorthi, arXiv:1806.08342). Its scale and bias are still trained.
        total: steps of the whole run.
    """

    def __init__(self, model: nn.Module, total: int) -> None:
        self._model = model
        self._settled = max(1, round(SETTLE * total))
        self._frozen = max(self._settled, round(FREEZE * total))
        self._step = 0
        self._ranges: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}  # in the step that is under way
        layers = quantized_layers(model)
        self._weights = {f"{name}.weight": layer.weight for name, layer in layers.items()}
        for name, module in model.named_modules():
            if name in layers or isinstance(module, _CURVED):
                module.register_forward_pre_hook(functools.partial(self._take, name))
            elif isinstance(module, _BatchNorm):
                module.eval()

    def __call__(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The model's losses by name, for images [3, H, W] in 0-1 and torchvision's targets; makes a step."""
        rounded = {name: round_weights(weights) for name, weights in self._weights.items()}
        losses: dict[str, Tensor] = functional_call(self._model, rounded, (images, targets))
        for name, ends in self._seen.items():
            self._ranges[name] = self._ranges.get(name, ends).to(ends.device).lerp(ends, MOMENTUM)
        self._seen = {}
        self._step += 1
        return losses

    def _take(self, name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Before a module computes: follows the range of its input, and rounds it to what the steps before gave."""
        (values,) = inputs
        if self._step < self._frozen and values.numel():  # a head may get no roi
            low, high = values.detach().aminmax()
            if name in self._seen:
                low, high = low.minimum(self._seen[name][0]), high.maximum(self._seen[name][1])
            self._seen[name] = torch.stack([low, high])
        if self._step < self._settled or name not in self._ranges:
            return None
        return (round_activations(values, self._ranges[name].to(values.device)),)

    def state_dict(self) -> dict[str, Any]:
        """The step, and the ranges by module: what a run needs to go on."""
        return {"step": self._step, "ranges": dict(self._ranges)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a state was taken."""
        self._step, self._ranges = state["step"], dict(state["ranges"])
