"""The compact Mask R-CNN."""

from typing import Any

import pytest
import torch
from narrow import ARGUMENTS, BUILDER, narrow_model

from edgemask.errors import UsageError
from edgemask.models import build, parameter_count


def test_the_compact_model_is_compact() -> None:
    assert 2_000_000 < parameter_count(build(BUILDER, 6)) < 3_000_000


def test_the_compact_model_detects() -> None:
    model = narrow_model(4)
    with torch.inference_mode():
        (found,) = model([torch.rand((3, 70, 90), generator=torch.Generator().manual_seed(0))])
    assert found["boxes"].shape[1] == 4
    assert found["masks"].shape[1:] == (1, 70, 90)
    assert found["labels"].max() < 4
    assert len(found["scores"]) > 0


def test_arguments_may_come_from_json() -> None:
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in ARGUMENTS.items()}
    shapes = {name: value.shape for name, value in build(BUILDER, 3, **lists).state_dict().items()}
    assert shapes == {name: value.shape for name, value in narrow_model(3).state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param({"widths": [8, 16, 16]}, "widths", id="three widths"),
        pytest.param({"widths": [8, 16, 16, 10**9]}, r"widths\[3\]", id="a width beyond all memory"),
        pytest.param({"widths": [8, 16, 16, "wide"]}, r"widths\[3\]", id="a width that is text"),
        pytest.param({"anchor_sizes": [8, 16, 32, 64]}, "anchor_sizes", id="four anchor sizes"),
        pytest.param({"pyramid_channels": -1}, "pyramid_channels", id="negative channels"),
        pytest.param({"min_size": 0}, "min_size", id="no size"),
    ],
)
def test_values_that_the_builder_does_not_take(arguments: dict[str, Any], shown: str) -> None:
    with pytest.raises(UsageError, match=f"refused its arguments: {shown}"):
        build(BUILDER, 3, **arguments)
