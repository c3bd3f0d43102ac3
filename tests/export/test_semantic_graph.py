"""Semantic models: the exported graph labels as PyTorch does, on both runtimes; the rest is refused by name."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from narrow import narrow_c4
from narrow_semantic import NAMES, Backbone, narrow_deeplab, narrow_fcn, narrow_spec
from numpy.typing import NDArray
from torch import nn
from torchvision.models.segmentation import FCN

from edgemask.canvas import place_on_canvas
from edgemask.divergence import compare_stages, first_divergence
from edgemask.errors import UnsupportedModel, UsageError
from edgemask.export.semantic_graph import Classes, SemanticGraph, check_semantic
from edgemask.export.tracing import build_proto
from edgemask.parity.semantic import SEMANTIC_TOLERANCES, compare_maps
from edgemask.reference_stages import record_stages
from edgemask.runtimes import ModelFile, read_model, stage_runs, write_model
from edgemask.runtimes.ov import shared_core
from edgemask.runtimes.stage_runs import stages_of_file
from edgemask.scenes import draw_scene
from edgemask.semantic import SemanticMap
from edgemask.semantic_reference import SemanticReference
from edgemask.spec import ModelSpec

Run = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
CASES: dict[str, tuple[Callable[[], Any], ModelSpec]] = {
    "FCN, dynamic canvas, dynamic batch": (narrow_fcn, narrow_spec(batch=None)),
    "FCN, fixed canvas, batch of 2": (narrow_fcn, narrow_spec(canvas=(128, 160), min_size=64, max_size=128, batch=2)),
    "DeepLab, dynamic canvas": (narrow_deeplab, narrow_spec()),
    "DeepLab, fixed canvas": (narrow_deeplab, narrow_spec(canvas=(192, 224))),
}
SCENES = {
    "square": draw_scene(3, size=120).image,
    "tall": draw_scene(4, size=160).image[:, :90],
    "smaller": draw_scene(5, size=64).image[:50],
    "nothing": draw_scene(6, size=100, objects=0).image[:70],
}
STAGES = ("stage/resize", "backbone.0", "head")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Any, ModelSpec, onnx.ModelProto]:
    build, spec = CASES[request.param]
    model = build()
    check_semantic(model, spec.canvas)
    return model, spec, build_proto(SemanticGraph(model, spec).eval(), spec)


def on_onnxruntime(model: bytes) -> Run:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def on_openvino(model: bytes) -> Run:
    pytest.importorskip("openvino")
    core = shared_core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = compiled(inputs)
        return {name: found[name].copy() for name in names}

    return run


RUNTIMES = {"ONNX Runtime": on_onnxruntime, "OpenVINO": on_openvino}


@pytest.fixture(params=RUNTIMES)
def opened(request: pytest.FixtureRequest) -> Callable[[bytes], Run]:
    return RUNTIMES[request.param]


def test_the_graph_is_plain(case: tuple[Any, ModelSpec, onnx.ModelProto]) -> None:
    _, _, proto = case
    onnx.checker.check_model(proto, full_check=True)
    assert [output.name for output in proto.graph.output] == ["labels", "scores"]
    assert {node.op_type for node in proto.graph.node}.isdisjoint({"If", "Loop", "Scan", "SequenceEmpty", "Softmax"})
    assert {node.domain for node in proto.graph.node} == {""}
    assert len(proto.functions) == 0
    assert {name for node in proto.graph.node for name in node.output} >= set(STAGES)
    weights = {tensor.name for tensor in proto.graph.initializer if "weight" in tensor.name}
    assert weights, "weights keep their names"
    assert not any("aux" in name for name in weights)
    assert all(
        node.name.split("/")[0] in {"stage", "backbone", "head", "classes", "graph"} for node in proto.graph.node
    )


def test_every_map_equals_pytorch(case: tuple[Any, ModelSpec, onnx.ModelProto], opened: Callable[[bytes], Run]) -> None:
    model, spec, proto = case
    run, reference = opened(proto.SerializeToString()), SemanticReference(model, spec)
    pairs = []
    for name, pixels in SCENES.items():
        canvas, placement = place_on_canvas(pixels, spec)
        assert not placement.resized_beyond_reference
        copies = spec.batch or 1
        found = run({"images": np.stack([canvas] * copies), "image_sizes": np.array([placement.size] * copies)})
        assert (found["labels"].dtype, found["scores"].dtype) == (np.uint8, np.float32)
        own = SemanticMap.from_canvas(found["labels"][0], found["scores"][0], placement)
        pairs.append((name, reference.segment(pixels), own))
    report = compare_maps(pairs, SEMANTIC_TOLERANCES["fp32"])
    report.raise_for_failure()
    assert len(report.labels) == 5, "there was something to compare"
    assert report.background_share < 0.5
    assert report.score_difference_max < 2e-4


def written(case: tuple[Any, ModelSpec, onnx.ModelProto], path: Path) -> ModelFile:
    write_model(case[2], case[1], path / "m.onnx")
    return read_model(path / "m.onnx")


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)])
def test_every_stage_equals_pytorch(case: tuple[Any, ModelSpec, onnx.ModelProto], device: str, tmp_path: Path) -> None:
    file, reference = written(case, tmp_path), SemanticReference(case[0], case[1])
    for pixels in SCENES.values():
        record = record_stages(reference, pixels)
        checks = compare_stages(file, device, pixels, record)
        assert first_divergence(checks) is None
        assert [check.stage for check in checks] == [*STAGES, "labels", "scores", "map", "map.scores"]
        assert list(stages_of_file(file, device, pixels)) == list(record)


@pytest.mark.parametrize("case", ["DeepLab, fixed canvas"], indirect=True)
@pytest.mark.parametrize(("weight", "stage"), [("backbone.coarse.0.weight", "backbone.0"), ("head.4.weight", "head")])
def test_a_fault_accuses_its_stage_alone(
    case: tuple[Any, ModelSpec, onnx.ModelProto], weight: str, stage: str, tmp_path: Path
) -> None:
    model, spec, proto = case
    faulty = copy.deepcopy(proto)
    (tensor,) = (tensor for tensor in faulty.graph.initializer if tensor.name == weight)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), weight))
    record = record_stages(SemanticReference(model, spec), SCENES["square"])
    checks = compare_stages(written((model, spec, faulty), tmp_path), "cpu", SCENES["square"], record)
    assert [check.stage for check in checks if not check.passed] == [stage]


@pytest.mark.parametrize("case", ["FCN, dynamic canvas, dynamic batch"], indirect=True)
def test_another_canvas_is_the_resize(
    case: tuple[Any, ModelSpec, onnx.ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be brought back from a canvas on which the image does not lie."""
    monkeypatch.setattr(stage_runs, "place_on_canvas", lambda pixels, spec: place_on_canvas(pixels[:64], spec))
    record = record_stages(SemanticReference(case[0], case[1]), SCENES["square"])
    checks = compare_stages(written(case, tmp_path), "cpu", SCENES["square"], record)
    failed = {check.stage: check.error for check in checks if not check.passed}
    assert failed == dict.fromkeys(["stage/resize", "map", "map.scores"], np.inf)


@pytest.mark.parametrize("case", [name for name, (_, spec) in CASES.items() if spec.batch != 1], indirect=True)
def test_images_of_a_batch_do_not_touch_each_other(
    case: tuple[Any, ModelSpec, onnx.ModelProto], opened: Callable[[bytes], Run]
) -> None:
    _, spec, proto = case
    run = opened(proto.SerializeToString())
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 3, *(spec.canvas or (96, 128)))).astype(np.float32)
    sizes = np.array([images.shape[2:], [50, 77]])
    found = run({"images": images, "image_sizes": sizes})
    for index, (height, width) in enumerate(sizes):
        changed = images.copy()
        changed[1 - index] = 7
        changed[index, :, height:] = changed[index, :, :, width:] = 200
        again = run({"images": changed, "image_sizes": sizes})
        for name in ("labels", "scores"):
            assert not found[name][index, height:].any()
            assert not found[name][index, :, width:].any()
            np.testing.assert_array_equal(again[name][index], found[name][index])
        assert (found["scores"][index, :height, :width] > 1 / 6).all()


@pytest.fixture(scope="module")
def classes() -> bytes:
    class Inputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classes = Classes()

        def forward(self, logits: torch.Tensor, images: torch.Tensor, sizes: torch.Tensor) -> Any:
            return self.classes(logits, images, sizes)

    example = (torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 16, 24), torch.tensor([[16, 24]]))
    program = torch.onnx.export(
        Inputs(),
        example,
        dynamo=True,
        verbose=False,
        opset_version=18,
        dynamic_shapes={"logits": {}, "images": {2: torch.export.Dim("H"), 3: torch.export.Dim("W")}, "sizes": {}},
        input_names=["logits", "images", "sizes"],
        output_names=["labels", "scores"],
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@pytest.mark.filterwarnings("ignore")  # torch's exporter about itself
@pytest.mark.parametrize(
    ("centre", "spread", "error"),
    [(0, 1, 3e-7), (0, 30, 1e-5), (1e4, 1, 3e-3), (-1e4, 1, 3e-3)],
    ids=["doubtful", "sure", "exp overflows", "exp underflows"],
)
def test_scores_are_those_of_a_softmax(
    classes: bytes, opened: Callable[[bytes], Run], centre: float, spread: float, error: float
) -> None:
    """The error grows with the last bit of the logits."""
    logits = np.random.default_rng(1).normal(centre, spread, (1, 4, 2, 3)).astype(np.float32)
    inputs = {"logits": logits, "images": np.zeros((1, 3, 16, 24), np.float32), "sizes": np.array([[16, 24]])}
    found = opened(classes)(inputs)
    large = torch.nn.functional.interpolate(torch.from_numpy(logits).double(), size=(16, 24), mode="bilinear")
    expected = large.softmax(1).amax(1).numpy()
    assert expected.min() < 0.9
    np.testing.assert_allclose(found["scores"], expected, rtol=0, atol=error)


@pytest.mark.filterwarnings("ignore")  # torch's exporter about itself
def test_ties_go_to_the_lower_label(classes: bytes, opened: Callable[[bytes], Run]) -> None:
    logits = np.random.default_rng(2).integers(0, 2, (1, 4, 2, 3)).astype(np.float32)
    logits[:, :, 0, 0] = 5
    logits[:, :, 1, 2] = (0, 3, 0, 3)
    inputs = {"logits": logits, "images": np.zeros((1, 3, 16, 24), np.float32), "sizes": np.array([[16, 24]])}
    found = opened(classes)(inputs)
    assert found["labels"][0, 0, 0] == 0
    assert found["scores"][0, 0, 0] == 0.25
    assert found["labels"][0, -1, -1] == 1
    large = torch.nn.functional.interpolate(torch.from_numpy(logits), size=(16, 24), mode="bilinear").numpy()
    assert (np.sort(large, 1)[:, -1] == np.sort(large, 1)[:, -2]).mean() > 0.1, "there are ties all over"
    np.testing.assert_array_equal(found["labels"], large.argmax(1))


class OwnForward(FCN):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)


def with_own_forward(model: FCN) -> None:
    model.__class__ = OwnForward


def with_patched_forward(model: FCN) -> None:
    model.forward = lambda x: {"out": x}


def with_nan(model: FCN) -> None:
    model.classifier[4].bias.data[0] = torch.nan


CHANGES: list[tuple[Callable[[FCN], Any], str]] = [
    (lambda model: model.train(), "training mode"),
    (lambda model: model.half(), "torch.float16"),
    (with_nan, r"classifier\.4\.bias holds values that are no numbers"),
    (with_own_forward, r"a OwnForward, has its own forward\(\)"),
    (with_patched_forward, r"its own forward\(\)"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_refused(change: Callable[[FCN], Any], message: str) -> None:
    model = narrow_fcn()
    check_semantic(model, (96, 96))
    change(model)
    with pytest.raises(UnsupportedModel, match=message):
        check_semantic(model, (96, 96))


def test_other_families_are_refused() -> None:
    lraspp = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None).eval()
    for model, name in ((lraspp, "LRASPP"), (narrow_c4(), "MaskRCNN")):
        with pytest.raises(UnsupportedModel, match=f"a {name} is neither an R-CNN nor a semantic model of torchvision"):
            check_semantic(model, None)


def test_what_is_left_out_is_not_checked() -> None:
    model = narrow_fcn()
    model.aux_classifier[4].bias.data[0] = torch.nan
    check_semantic(model, None)


@pytest.mark.parametrize("canvas", [(96, 100), (0, 96), (16, 16)])
def test_canvas_of_other_multiples(canvas: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="no multiple of 32"):
        check_semantic(narrow_fcn(), canvas)


class Bare(Backbone):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images)["out"]


def test_backbones_without_the_map_are_refused() -> None:
    model = FCN(Bare(), narrow_fcn().classifier).eval()
    with pytest.raises(UnsupportedModel, match="no map named 'out'"):
        SemanticGraph(model, narrow_spec())


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"its classifier gives \[1, 5, 32, 40\], for 4 classes"):
        SemanticGraph(narrow_fcn(), narrow_spec(class_names=NAMES[1:]))
    with pytest.raises(UnsupportedModel, match="the most is 256"):
        SemanticGraph(narrow_fcn(), narrow_spec(class_names=tuple(map(str, range(256)))))


def test_the_model_is_shared_and_not_changed() -> None:
    model = narrow_fcn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = SemanticGraph(model, narrow_spec())
    assert graph.backbone is model.backbone
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
