from collections import Counter
from pathlib import Path

import pytest
from layered import DEPTHWISE, PREDICTORS, write_layered

from edgemask.quantization.layers import chosen, layers_of
from edgemask.quantization.recipes import Recipe, recipe_named
from edgemask.runtimes import ModelFile


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return write_layered(tmp_path_factory.mktemp("layered") / "layered.onnx")


def test_layers_are_found_with_stage_size_and_kind(model: ModelFile) -> None:
    layers = {layer.name: layer for layer in layers_of(model)}
    assert Counter(layer.stage for layer in layers.values()) == {"backbone": 4, "fpn": 3, "rpn": 9, "box_head": 2}
    assert [name for name, layer in layers.items() if layer.depthwise] == [DEPTHWISE]
    assert layers[DEPTHWISE].group == "backbone, depthwise"
    assert layers["fpn/layer/Conv"].group == "fpn"
    assert layers["fpn/layer/Conv"].weights == 16 * 16 * 3 * 3
    assert layers["box_head/head/fc6/Gemm"].operator == "Gemm"
    assert layers["rpn/head/conv/Conv"].weight == layers["rpn/head/conv/Conv_3"].weight


def test_a_layer_whose_weights_are_computed_is_none(tmp_path: Path) -> None:
    model = write_layered(tmp_path / "model.onnx")
    (tensor,) = (tensor for tensor in model.proto.graph.initializer if tensor.name == "deeper")
    model.proto.graph.initializer.remove(tensor)
    assert "backbone/3/Conv" not in [layer.name for layer in layers_of(model)]


def test_the_default_keeps_the_predictors(model: ModelFile) -> None:
    layers = layers_of(model)
    kept = {layer.name for layer in layers} - {layer.name for layer in chosen(layers, recipe_named("default"))}
    assert kept == {*PREDICTORS, "box_head/predictor/fc7/Gemm"}


def test_a_recipe_chooses_by_stage_and_by_name(model: ModelFile) -> None:
    layers = layers_of(model)
    assert len(chosen(layers, recipe_named("everything"))) == len(layers)
    own = Recipe(name="own", stages=("fpn", "backbone"), keep=("fpn/*", "backbone/[12]/*"))
    assert [layer.name for layer in chosen(layers, own)] == ["backbone/0/Conv", "backbone/3/Conv"]
