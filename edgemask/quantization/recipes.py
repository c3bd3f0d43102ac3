"""Recipes: how a model is quantized, as frozen, named values.

All but `everything` leave in FP32 the last layers of each head: what they give is read as numbers (box deltas, scores,
mask logits, heatmaps), not as features. They are a small part of the work, and eight bits of them are what makes masks
collapse (facebookresearch/d2go issue 135) and the zoo's Mask R-CNN fall to 98.3 % of its accuracy.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from edgemask.checks import Check, choice, did_you_mean, number, refuse, several, text, whole
from edgemask.errors import UsageError

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
# Of the graph, by which its nodes are named; `head` is that of a semantic model.
STAGES = ("backbone", "fpn", "rpn", "box_head", "mask_head", "keypoint_head", "head")
PREDICTORS = (
    "rpn/head/cls_logits*",
    "rpn/head/bbox_pred*",
    "box_head/predictor/*",
    "mask_head/predictor/*",
    "keypoint_head/predictor/*",
    "head/4/*",
)
_PATTERN_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is quantized.

    Args:
        name: of the recipe.
        about: what it is for, in a line.
        stages: in which layers are quantized, out of `STAGES`.
        keep: layers that stay in FP32 all the same: shell patterns of the names of their nodes, `*` for anything.
        method: how the range of a tensor follows from calibration: `minmax`, its extremes; `percentile`, without the
            outermost values; `entropy`, the range of the least loss of information, as TensorRT's calibration takes it;
            `mse`, the range of the least squared error.
        percentile: of `percentile`, on either side, 50-100.
        per_channel: a scale for each output channel of a weight, not one for all.
        symmetric: activations as INT8 around 0, as TensorRT asks for, not as UINT8 from their least value on.
        weight_bits: 8, or 7 where a processor adds up pairs of products in 16 bits, which overflow at 8: x86 without
            VNNI.

    Raises:
        UsageError: a value that cannot be meant.
    """

    name: str
    about: str = "of the caller's own"
    stages: tuple[str, ...] = STAGES
    keep: tuple[str, ...] = PREDICTORS
    method: Method = "mse"
    percentile: float = 99.99
    per_channel: bool = True
    symmetric: bool = False
    weight_bits: int = 8

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def replace(self, **changes: Any) -> Self:
        """Returns a checked copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in _fields(self).items()}


def _fields(recipe: Recipe) -> Mapping[str, Any]:
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        refuse(name, "True or False", value)
    return value


_CHECKS: dict[str, Check] = {
    "name": text,
    "about": text,
    "stages": several(choice(*STAGES), 1, len(STAGES)),
    "keep": several(text, 0, _PATTERN_LIMIT),
    "method": choice(*METHODS),
    "percentile": number(50, 100),
    "per_channel": _switch,
    "symmetric": _switch,
    "weight_bits": whole(7, 8),
}

RECIPES = (
    Recipe(name="default", about="all heavy layers, without those whose outputs are read as numbers"),
    Recipe(name="minmax", about="as default, with ranges that hold every value seen", method="minmax"),
    Recipe(name="percentile", about="as default, with ranges that leave out the outermost values", method="percentile"),
    Recipe(name="entropy", about="as default, with ranges that lose the least information", method="entropy"),
    Recipe(name="no-vnni", about="as default, for x86 processors before VNNI: weights of 7 bits", weight_bits=7),
    Recipe(name="features", about="backbone, pyramid and RPN only: the heads stay exact", stages=STAGES[:3]),
    Recipe(name="everything", about="every layer: smallest, and rarely good enough", keep=()),
)


def recipe_named(name: str) -> Recipe:
    """Returns the recipe of a name.

    Raises:
        UsageError: there is none; names the closest one.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    names = [recipe.name for recipe in RECIPES]
    raise UsageError(f"there is no recipe {name!r}", did_you_mean(name, names, f"the recipes are {', '.join(names)}"))
