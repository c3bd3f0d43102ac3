"""Layers as a search takes them: in groups, in parts that share their weights, and by their share of all weights."""

from edgemask.quantization.layers import Layer
from edgemask.quantization.search_records import grouped, share_of_weights, shared


def layer(name: str, weight: str, weights: int = 10, *, depthwise: bool = False) -> Layer:
    stage = name.partition("/")[0]
    return Layer(name=name, stage=stage, operator="Conv", weight=weight, weights=weights, depthwise=depthwise)


FIRST = layer("backbone/0", "stem")
DEPTHWISE = layer("backbone/1", "depthwise", 5, depthwise=True)
LEVELS = [layer(f"rpn/{level}", "rpn", 20) for level in range(3)]
BRANCH = layer("rpn/scores", "scores", 15)
LAYERS = [FIRST, LEVELS[0], DEPTHWISE, *LEVELS[1:], BRANCH]


def test_groups() -> None:
    groups = grouped(LAYERS)
    assert list(groups) == ["backbone", "rpn", "backbone, depthwise"]
    assert groups["rpn"] == {*LEVELS, BRANCH}
    assert groups["backbone"] == {FIRST}


def test_shared_weights_make_one_part() -> None:
    assert shared(LAYERS) == [{FIRST}, set(LEVELS), {DEPTHWISE}, {BRANCH}]


def test_shared_weights_count_once() -> None:
    assert share_of_weights(LEVELS, LAYERS) == 20 / 50
    assert share_of_weights(LEVELS[:1], LAYERS) == 20 / 50
    assert share_of_weights([], LAYERS) == 0
    assert share_of_weights(LAYERS, LAYERS) == 1
