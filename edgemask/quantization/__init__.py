"""INT8: a model file quantized, within a budget of accuracy."""

from edgemask.quantization.quantizing import quantize
from edgemask.quantization.recipes import METHODS, RECIPES, STAGES, Recipe, recipe_named
from edgemask.quantization.records import QuantizationReport

__all__ = ["METHODS", "RECIPES", "STAGES", "QuantizationReport", "Recipe", "quantize", "recipe_named"]
