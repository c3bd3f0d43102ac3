"""The sizes to which torchvision's eager transform resizes, with pixels and without."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from edgemask.spec import ModelSpec

Size = tuple[int, int]


@contextmanager
def without_pixels() -> Iterator[None]:
    """Lets `interpolate` find the size of its result, or refuse, as ever; only the pixels are not computed."""
    kernel = torch._C._nn.upsample_bilinear2d

    def without(image: torch.Tensor, size: list[int], *rest: Any) -> torch.Tensor:
        return kernel(image, size, *rest) if 0 in size else image.new_empty(()).expand(*image.shape[:2], *size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._C._nn, "upsample_bilinear2d", without)
        yield


def torchvision_size(height: int, width: int, spec: ModelSpec) -> Size | None:
    """(H, W) of what eager makes of an image; None where it refuses one that would have a side of 0 pixels."""
    fixed = None if spec.fixed_size is None else spec.fixed_size[::-1]
    image = torch.zeros(()).expand(1, height, width)
    try:
        resized, _ = _transform(spec.min_size, spec.max_size, fixed).resize(image)
    except RuntimeError as error:
        if "sizes should be greater than 0" not in str(error):
            raise
        return None
    return resized.shape[-2], resized.shape[-1]


@cache
def _transform(min_size: int, max_size: int, fixed_size: Size | None) -> GeneralizedRCNNTransform:
    return GeneralizedRCNNTransform(min_size, max_size, [0.0], [1.0], fixed_size=fixed_size).eval()
