import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from layered import DEPTHWISE, LEVELS, PREDICTORS, write_layered
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemask.quantization.layers import Layer, chosen, layers_of
from edgemask.quantization.recipes import Recipe, recipe_named
from edgemask.quantization.rewriting import ops_of, rewrite, tensors_to_calibrate
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.devices import open_runtime

MINMAX = recipe_named("minmax")
IMAGE = np.random.default_rng(3).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
INPUTS = {"images": IMAGE, "image_sizes": np.array([[64, 64]], np.int64)}
Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return write_layered(tmp_path_factory.mktemp("layered") / "layered.onnx")


def values(
    proto: onnx.ModelProto, names: Collection[str], spec: ModelFile, folder: Path, device: str = "cpu"
) -> Tensors:
    """What tensors of a graph hold, on the image."""
    more = onnx.ModelProto()
    more.CopyFrom(proto)
    more.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    write_model(more, spec.spec, folder / "tapped.onnx")
    runtime, _ = open_runtime(read_model(folder / "tapped.onnx"), device)
    found = runtime.run(INPUTS)
    runtime.close()
    return {name: found[name] for name in names}


@pytest.fixture(scope="module")
def ranges(model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    wanted = tensors_to_calibrate(model, layers_of(model))
    found = values(model.proto, wanted, model, tmp_path_factory.mktemp("ranges"))
    return {name: (min(0.0, float(value.min())), max(0.0, float(value.max()))) for name, value in found.items()}


def nodes(proto: onnx.ModelProto, operator: str) -> Iterator[onnx.NodeProto]:
    return (node for node in proto.graph.node if node.op_type == operator)


def sources(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in proto.graph.node for name in node.output}


def quantized(proto: onnx.ModelProto) -> set[str]:
    """Names of the layers whose weights come out of eight bits."""
    source = sources(proto)
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    return {node.name for node in layers if source.get(node.input[1], node).op_type == "DequantizeLinear"}


def constants(proto: onnx.ModelProto) -> Tensors:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def layers_by(model: ModelFile, *names: str) -> tuple[Layer, ...]:
    return tuple(layer for layer in layers_of(model) if layer.name in names)


def test_exactly_the_layers_asked_for_are_quantized(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    layers = chosen(layers_of(model), MINMAX)
    proto = rewrite(model, layers, ranges, MINMAX)
    onnx.checker.check_model(proto, full_check=True)
    assert quantized(proto) == {layer.name for layer in layers}
    some = layers_by(model, "backbone/3/Conv", "fpn/inner/Conv")
    assert quantized(rewrite(model, some, ranges, MINMAX)) == {layer.name for layer in some}


def test_weights_have_a_scale_for_each_channel(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    for per_channel, channels in ((True, 16), (False, 1)):
        recipe = MINMAX.replace(per_channel=per_channel)
        proto = rewrite(model, chosen(layers_of(model), recipe), ranges, recipe)
        (layer,) = (node for node in nodes(proto, "Conv") if node.name == DEPTHWISE)
        weight = sources(proto)[layer.input[1]]
        held = constants(proto)
        assert held[weight.input[0]].dtype == np.int8
        assert held[weight.input[1]].size == channels
        assert not held[weight.input[2]].any()


def test_seven_bits_use_half_of_the_numbers(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    largest = {}
    for bits in (7, 8):
        proto = rewrite(model, layers_by(model, "backbone/3/Conv"), ranges, MINMAX.replace(weight_bits=bits))
        largest[bits] = max(abs(int(v.min())) for v in constants(proto).values() if v.dtype == np.int8 and v.ndim == 4)
    assert largest[7] <= 64 < 120 < largest[8]


def test_tensors_keep_their_names_where_they_are_read(
    model: ModelFile, ranges: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    proto = rewrite(model, chosen(layers_of(model), MINMAX), ranges, MINMAX)
    stages = [f"backbone.{number}" for number in (0, 1)] + [f"fpn.{level}" for level in range(LEVELS)]
    stages += [f"rpn.scores.{level}" for level in range(LEVELS)] + ["box_head"]
    expected, found = (values(graph, stages, model, tmp_path) for graph in (model.proto, proto))
    source = sources(proto)
    for name in stages:
        error = np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()
        assert 0 < error < 0.1, name
        if name.startswith(("backbone", "fpn")):  # read by a quantized layer: what it reads is what the name stands for
            assert source[name].op_type == "DequantizeLinear"
            assert len(np.unique(found[name])) <= 256


def test_new_nodes_begin_with_their_stage(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    proto = rewrite(model, chosen(layers_of(model), MINMAX), ranges, MINMAX)
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == {
        node.name.partition("/")[0] for node in model.proto.graph.node
    }
    assert f"{DEPTHWISE}/weight/Dequantize" in names
    assert proto.producer_name == model.proto.producer_name


def test_eight_bits_pass_from_layer_to_layer(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    proto = rewrite(model, chosen(layers_of(model), MINMAX), ranges, MINMAX)
    source = sources(proto)
    readers = {name: node for node in proto.graph.node for name in node.input}
    for node in proto.graph.node:
        if node.op_type in ("Add", "MaxPool", "Resize") and node.name.startswith(("backbone", "fpn")):
            data = node.input[:1] if node.op_type != "Add" else node.input
            assert all(source[name].op_type == "DequantizeLinear" for name in data), node.name
            assert readers[node.output[0]].op_type == "QuantizeLinear", node.name
    assert not any(node.name.startswith("backbone") for node in nodes(proto, "Relu"))  # the range begins at 0


def test_predictors_give_exact_numbers(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    proto = rewrite(model, chosen(layers_of(model), MINMAX), ranges, MINMAX)
    source = sources(proto)
    for name in (f"rpn.{kind}.{level}" for kind in ("scores", "boxes") for level in range(LEVELS)):
        assert source[name].name in PREDICTORS
    everything = rewrite(model, layers_of(model), ranges, recipe_named("everything"))
    assert sources(everything)["rpn.scores.0"].op_type == "DequantizeLinear"


def test_symmetric_activations_suit_tensorrt(
    model: ModelFile, ranges: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    recipe = MINMAX.replace(symmetric=True)
    proto = rewrite(model, chosen(layers_of(model), recipe), ranges, recipe)
    held, source = constants(proto), sources(proto)
    for node in [*nodes(proto, "QuantizeLinear"), *nodes(proto, "DequantizeLinear")]:
        assert held[node.input[2]].dtype == np.int8, node.name
        assert not held[node.input[2]].any(), node.name
    for node in [*nodes(proto, "Conv"), *nodes(proto, "Gemm")]:
        assert node.input[2] in held, "the bias stays as it is"
        if node.name in quantized(proto):
            assert source[node.input[0]].op_type == "DequantizeLinear"
    expected, found = (values(graph, ["box_head"], model, tmp_path)["box_head"] for graph in (model.proto, proto))
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_weights_of_other_layers_take_half_the_room(
    model: ModelFile, ranges: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    proto = rewrite(model, layers_by(model, "backbone/3/Conv"), ranges, MINMAX)
    held, before, source = constants(proto), constants(model.proto), sources(proto)
    for node in nodes(proto, "Conv"):
        if before[weight_of(model, node.name)].size >= 1024 and node.name != "backbone/3/Conv":
            cast = source[node.input[1]]
            assert cast.op_type == "Cast"
            assert held[cast.input[0]].dtype == np.float16
            np.testing.assert_allclose(held[cast.input[0]], before[cast.input[0]], rtol=2**-11, atol=1e-7)
    assert held["bbox_pred"].dtype == np.float16
    assert held["cls_logits"].dtype == np.float32  # too small to be worth a node
    assert sum(node.input[0] == "rpn" for node in nodes(proto, "Cast")) == 1  # one for the three levels
    onnx.checker.check_model(proto, full_check=True)
    huge = onnx.ModelProto()
    huge.CopyFrom(model.proto)
    (weight,) = (tensor for tensor in huge.graph.initializer if tensor.name == "bbox_pred")
    weight.CopyFrom(numpy_helper.from_array(np.full((12, 16, 3, 3), 1e5, np.float32), "bbox_pred"))
    kept = rewrite(dataclasses.replace(model, proto=huge), layers_by(model, "backbone/3/Conv"), ranges, MINMAX)
    assert constants(kept)["bbox_pred"].dtype == np.float32


def weight_of(model: ModelFile, name: str) -> str:
    return next(layer.weight for layer in layers_of(model) if layer.name == name)


@pytest.mark.openvino
def test_both_runtimes_compute_the_same(
    model: ModelFile, ranges: dict[str, tuple[float, float]], tmp_path: Path
) -> None:
    proto = rewrite(model, chosen(layers_of(model), MINMAX), ranges, MINMAX)
    one, other = (values(proto, ["fpn.0", "box_head"], model, tmp_path, device) for device in ("cpu", "openvino:CPU"))
    for name in one:
        step = np.abs(one[name]).max() / 127
        assert np.abs(one[name] - other[name]).max() <= 4 * step, name


def test_what_needs_a_range_is_known_before(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    wanted = tensors_to_calibrate(model, layers_of(model))
    assert "stage/resize" in wanted
    assert "fpn.0" in wanted
    assert "backbone/0/Conv" not in wanted  # clipped at once, and read by nothing else
    assert not set(wanted) & set(constants(model.proto))
    for layers in (layers_of(model), chosen(layers_of(model), MINMAX), layers_by(model, "fpn/layer/Conv")):
        needed = tensors_to_calibrate(model, layers)
        assert set(needed) <= set(wanted)
        rewrite(model, layers, {name: ranges[name] for name in needed}, MINMAX)


def test_tensors_of_any_origin_are_rounded(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    """A graph output, the second output of a node, and an input of the graph."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("fpn.1", 1, None))
    split = onnx.helper.make_node(
        "Split", ["backbone.0"], ["backbone/a", "backbone/b"], "backbone/Split", num_outputs=2, axis=2
    )
    (deeper,) = (node for node in proto.graph.node if node.name == "backbone/3/Conv")
    (stem,) = (node for node in proto.graph.node if node.name == "backbone/0/Conv")
    deeper.input[0], stem.input[0] = "backbone/b", "images"
    proto.graph.node.insert(list(proto.graph.node).index(deeper), split)
    known = ranges | {"backbone/b": ranges["backbone.0"], "images": (0.0, 255.0)}
    odd = dataclasses.replace(model, proto=proto)
    made = rewrite(odd, chosen(layers_of(odd), MINMAX), known, MINMAX)
    onnx.checker.check_model(made)
    assert {"backbone/Split/1/Quantize", "stage/Mul_3/input/Quantize"} <= {node.name for node in made.graph.node}
    assert sources(made)["fpn.1"].op_type == "DequantizeLinear"
    assert sources(made)["fpn.1/exact"].name == "fpn/layer/Conv_2"


def test_a_clip_without_zero_stays(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    for low, stays in ((0.0, False), (0.5, True)):
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        (relu,) = (node for node in proto.graph.node if node.name == "backbone/3/Relu")
        relu.op_type, relu.input[:] = "Clip", [relu.input[0], "low"]
        proto.graph.initializer.append(numpy_helper.from_array(np.array(low, np.float32), "low"))
        clipped = dataclasses.replace(model, proto=proto)
        made = rewrite(clipped, chosen(layers_of(clipped), MINMAX), ranges, MINMAX)
        assert ("Clip" in {node.op_type for node in made.graph.node}) is stays
        alone = layers_by(clipped, "backbone/3/Conv")  # nothing quantized reads what the Clip gives
        assert ("backbone/3/Conv" in tensors_to_calibrate(clipped, alone)) is stays


def test_the_model_itself_is_left_as_it_is(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    before = model.proto.SerializeToString(deterministic=True)
    rewrite(model, layers_of(model), ranges, MINMAX)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_nothing_is_written_on_the_way(
    model: ModelFile, ranges: dict[str, tuple[float, float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The quantizer's own folders would stay for ever where the process is killed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert rewrite(model, layers_of(model), ranges, MINMAX).graph.node


def test_recorded_ops_name_what_they_give(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    op = {"name": "fpn/op", "op": "X", "attributes": {}, "inputs": ["backbone.0"], "output": "fpn/inner/Conv"}
    other = op | {"output": "nms/total"}
    proto = rewrite(model, layers_of(model), ranges, MINMAX)
    assert ops_of(model.spec, proto) is None
    records = ops_of(model.spec.replace(ops=(op, other)), proto)
    assert records is not None
    assert [record["output"] for record in records] == ["fpn/inner/Conv/exact", "nms/total"]
    assert records[0]["inputs"] == ["backbone.0"]


def test_a_recipe_of_ones_own_reaches_the_graph(model: ModelFile, ranges: dict[str, tuple[float, float]]) -> None:
    own = Recipe(name="own", stages=("backbone",), keep=("*depthwise*",))
    proto = rewrite(model, chosen(layers_of(model), own), ranges, own)
    assert quantized(proto) == {f"backbone/{number}/Conv" for number in range(4)}
