import dataclasses
import json

import pytest

from edgemask.errors import UsageError
from edgemask.quantization.recipes import METHODS, RECIPES, STAGES, Recipe, recipe_named


def test_recipes_are_known_by_their_names() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    for recipe in RECIPES:
        assert recipe_named(recipe.name) is recipe


def test_the_default_quantizes_every_stage_and_keeps_the_last_layers() -> None:
    default = recipe_named("default")
    assert default.stages == STAGES
    assert "mask_head/predictor/*" in default.keep
    assert default.per_channel
    assert default.weight_bits == 8


def test_every_method_has_a_recipe() -> None:
    assert {recipe.method for recipe in RECIPES} == set(METHODS)


def test_an_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean percentile"):
        recipe_named("percentil")
    with pytest.raises(UsageError, match="the recipes are default, minmax"):
        recipe_named("qqq")


def test_recipes_are_frozen_and_become_json() -> None:
    recipe = Recipe(name="own", stages=("fpn",), keep=("fpn/a*",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"  # type: ignore[misc]
    record = json.loads(json.dumps(recipe.to_dict()))
    assert record["stages"] == ["fpn"]
    assert Recipe(**{name: value for name, value in record.items()}) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": ("backbone", "neck")}, "expected backbone or fpn"),
        ({"stages": ()}, "expected a list of 1 to"),
        ({"keep": ("",)}, "expected text"),
        ({"method": "kl"}, "expected minmax or percentile or entropy or mse, got 'kl'"),
        ({"percentile": 40}, "expected a number from 50 to 100"),
        ({"weight_bits": 4}, "expected a whole number from 7 to 8, got 4"),
        ({"per_channel": 1}, "expected True or False, got 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe_named("default").replace(**change)
