"""Semantic models so narrow that tests run them in milliseconds; random weights, the same ones for the same seed."""

from collections import OrderedDict
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops.misc import Conv2dNormActivation

from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec

NAMES = ("cat", "dog", "tree", "sky")
WIDTH = 16
AnyModel = TypeVar("AnyModel", FCN, DeepLabV3)


class Backbone(nn.Module):
    """Stride 8, as torchvision's dilated ones have; gives the last map and an auxiliary one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*(Conv2dNormActivation(c, WIDTH, stride=2) for c in (3, WIDTH, WIDTH)))
        self.coarse = Conv2dNormActivation(WIDTH, WIDTH, dilation=2)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.fine(images)
        return OrderedDict(out=self.coarse(fine), aux=fine)


def narrow_fcn(seed: int = 0, *, aux: bool = True) -> FCN:
    """An FCN of `NAMES` and the background, whose labels change within every picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auxiliary = FCNHead(WIDTH, 1 + len(NAMES)) if aux else None
        return spread(FCN(Backbone(), FCNHead(WIDTH, 1 + len(NAMES)), auxiliary).eval())


def narrow_deeplab(seed: int = 0) -> DeepLabV3:
    """The same with DeepLab's head, part of which pools over the whole canvas."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spread(DeepLabV3(Backbone(), DeepLabHead(WIDTH, 1 + len(NAMES), (1, 2, 3))).eval())


@torch.no_grad()
def spread(model: AnyModel) -> AnyModel:
    """Centres and scales the last layer, so that classes are decided and each of them occurs."""
    scenes = torch.from_numpy(np.stack([draw_scene(index, seed=5, size=96).image for index in range(3)]))
    layer = model.classifier[-1]
    layer.bias.zero_()
    logits = model((scenes.permute(0, 3, 1, 2) / 255 - 0.45) / 0.225)["out"]
    deviation, mean = torch.std_mean(logits, (0, 2, 3))
    layer.weight.mul_(3 / deviation.view(-1, 1, 1, 1))
    layer.bias.copy_(-3 * mean / deviation)
    return model


def narrow_spec(**changes: Any) -> ModelSpec:
    """What is known of these models."""
    values: dict[str, Any] = {"tasks": ("semantic",), "class_names": NAMES, "min_size": 96, "max_size": 192}
    return ModelSpec(**(values | changes))
