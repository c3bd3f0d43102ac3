"""The whole export: fixed and dynamic canvases, run on both runtimes and compared; see `test_families_*.py` too."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from narrow import narrow, narrow_c4
from numpy.typing import NDArray
from PIL import Image
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.canvas import place_on_canvas, placement_of
from edgemask.checkpoints import load_checkpoint
from edgemask.divergence import compare_stages, first_divergence
from edgemask.errors import OutputError, ParityError, UsageError
from edgemask.export import ExportReport, export_onnx, exporter
from edgemask.parity import TOLERANCES, compare
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import Detector, read_model
from edgemask.runtimes.ov import shared_core
from edgemask.runtimes.taps import STAGES, with_taps
from edgemask.scenes import draw_scene

CASES: dict[str, tuple[Callable[[], MaskRCNN], dict[str, Any]]] = {
    "fpn, fixed canvas, batch of 2": (narrow, {"shape": (96, 128), "batch": 2}),
    "two maps, dynamic canvas": (lambda: narrow_c4(2), {}),
}
DEVICES = ("cpu", "openvino:CPU")
SCENES = {
    "square": draw_scene(3, size=120).image,
    "tall": draw_scene(4, size=160).image[:, :90],
    "smaller": draw_scene(5, size=64).image[:50],
    "nothing": draw_scene(6, size=100, objects=0).image[:70],
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskRCNN, ExportReport]:
    build, options = CASES[request.param]
    model = build()
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    return model, export_onnx(model, path, verify=False, **options)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskRCNN, Path]:
    model = narrow_c4()
    path = tmp_path_factory.mktemp("small") / "m.onnx"
    export_onnx(model, path, shape=(96, 96), verify=False)
    return model, path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[GeneralizedRCNN, ExportReport]:
    with resources.as_file(resources.files("edgemask") / "assets" / "sample.safetensors") as path:
        model, spec = load_checkpoint(path)
    path = tmp_path_factory.mktemp("trained") / "m.onnx"
    return model, export_onnx(model, path, spec=spec)


def test_verified_after_writing(trained: tuple[GeneralizedRCNN, ExportReport]) -> None:
    _, report = trained
    assert report.verification is not None
    assert report.verification.parity.passed
    assert report.spec.parity is not None
    assert report.spec.parity["matched_share"] == 1.0
    assert read_model(report.path).spec == report.spec


def stretched(height: int, width: int) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(draw_scene(0, seed=9).image).resize((width, height)))


@pytest.mark.parametrize("device", DEVICES)
def test_same_detections_at_other_sizes(trained: tuple[GeneralizedRCNN, ExportReport], device: str) -> None:
    model, report = trained
    reference = ReferenceDetector(model, report.spec)
    images = {f"{side} px": draw_scene(side, seed=9, size=side).image for side in (320, 200, 411)}
    images["tall"] = draw_scene(1, seed=9).image[:, 40:280]
    images |= {f"{height}x{width}": stretched(height, width) for height, width in ((1, 1), (31, 1333), (12, 256))}
    images["nothing"] = draw_scene(2, seed=9, objects=0).image
    with Detector(read_model(report.path), device) as detector:
        found = detector.predict(list(images.values()))
    expected = [reference.predict(image) for image in images.values()]
    assert sum(map(len, expected)) > 10
    compare(zip(images, expected, found, strict=True), TOLERANCES["fp32"]).raise_for_failure()


def test_graph_is_sound(case: tuple[MaskRCNN, ExportReport]) -> None:
    proto = onnx.load(case[1].path)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    operators = {node.op_type for function in proto.functions for node in function.node}
    operators |= {node.op_type for node in proto.graph.node}
    assert not operators & {"If", "Loop", "Scan", "SequenceAt", "SplitToSequence", "SequenceConstruct"}
    assert {function.name for function in proto.functions} == {
        node.op_type for node in proto.graph.node if node.domain == "edgemask"
    }
    assert proto.ir_version == 8
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 18, "edgemask": 1}


def test_names_and_outputs(case: tuple[MaskRCNN, ExportReport]) -> None:
    proto = onnx.load(case[1].path)
    assert [value.name for value in proto.graph.input] == ["images", "image_sizes"]
    assert [value.name for value in proto.graph.output] == ["batch_index", "boxes", "scores", "labels", "masks"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.output} == {"detections"}
    prefixes = {node.name.split("/")[0] for node in proto.graph.node}
    assert prefixes <= {"stage", "backbone", "fpn", "rpn", "proposals", "box_head", "nms", "mask_head", "graph"}
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    produced = {name for node in proto.graph.node for name in node.output}
    own = {"stage/resize", "backbone.0", "rpn.scores", "rpn.boxes", "proposals", "box_head", "nms", "mask_head"}
    assert own <= produced


def test_nothing_about_the_machine(case: tuple[MaskRCNN, ExportReport]) -> None:
    data = Path(case[1].path).read_bytes()
    for trace in (b"site-packages", str(Path(__file__).resolve().parents[2]).encode(), b"torch.onnx", b"graph_module"):
        assert trace not in data


@pytest.mark.parametrize("device", DEVICES)
def test_every_stage_agrees_at_other_sizes(case: tuple[MaskRCNN, ExportReport], device: str) -> None:
    model, report = case
    reference, file = ReferenceDetector(model, report.spec), read_model(report.path)
    for image in SCENES.values():
        if placement_of(image.shape[:2], report.spec).resized_beyond_reference:
            continue
        checks = compare_stages(file, device, image, record_stages(reference, image))
        assert first_divergence(checks) is None
        assert {check.stage.split(".")[0] for check in checks} >= {name.split(".")[0] for name in STAGES} - {
            "fpn",
            "head",
        }


@pytest.mark.parametrize("case", ["fpn, fixed canvas, batch of 2"], indirect=True)
@pytest.mark.parametrize(
    ("weight", "stages"),
    [
        ("backbone.layer1.0.conv1.weight", ["backbone.0"]),
        ("backbone.layer4.1.conv2.weight", ["backbone.3"]),
        ("fpn.layer_blocks.2.0.weight", ["fpn.2"]),
        ("fpn.inner_blocks.3.0.weight", [f"fpn.{level}" for level in range(4)]),
        ("rpn.head.cls_logits.weight", [f"rpn.scores.{level}" for level in range(5)]),
    ],
)
def test_a_fault_in_a_pyramid_accuses_its_stage_alone(
    case: tuple[MaskRCNN, ExportReport], weight: str, stages: list[str]
) -> None:
    model, report = case
    file, image = read_model(report.path), SCENES["smaller"]
    (tensor,) = (tensor for tensor in file.proto.graph.initializer if tensor.name == weight)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
    checks = compare_stages(file, "cpu", image, record_stages(ReferenceDetector(model, report.spec), image))
    assert [check.stage for check in checks if not check.passed] == stages


@pytest.mark.parametrize("limit", [100, 1])  # of one at most, the exporter could take it that there is one
def test_no_detection_at_all(small: tuple[MaskRCNN, Path], tmp_path: Path, limit: int) -> None:
    model, _ = small
    options: dict[str, Any] = {"shape": (96, 96), "score_threshold": 1.0, "max_detections": limit}
    report = export_onnx(model, tmp_path / "m.onnx", verify=False, **options)
    for device in DEVICES:
        with Detector(read_model(report.path), device) as detector:
            found = detector.predict([SCENES["square"], SCENES["nothing"]])
            raw = detector.run(np.zeros((1, 3, 96, 96), np.float32), np.array([[96, 96]], np.int64))
        assert [len(one) for one in found] == [0, 0]
        assert {name: value.shape for name, value in raw.items()} == {
            "batch_index": (0,),
            "boxes": (0, 4),
            "scores": (0,),
            "labels": (0,),
            "masks": (0, 20, 20),
        }


@pytest.mark.parametrize("case", [name for name, (_, options) in CASES.items() if "batch" in options], indirect=True)
def test_a_batch_gives_what_its_images_give_alone(case: tuple[MaskRCNN, ExportReport]) -> None:
    _, report = case
    with Detector(read_model(report.path), "cpu") as detector:
        images = [SCENES["square"][:96, :96], np.zeros((96, 96, 3), np.uint8)]
        placed = [place_on_canvas(image, report.spec) for image in images]
        together = detector.run(
            np.stack([canvas for canvas, _ in placed]), np.array([place.size for _, place in placed], np.int64)
        )
        for index, (canvas, placement) in enumerate(placed):
            twice = detector.run(np.stack([canvas] * 2), np.array([placement.size] * 2, np.int64))
            for name in ("boxes", "scores", "masks"):
                own = together[name][together["batch_index"] == index]
                np.testing.assert_allclose(own, twice[name][twice["batch_index"] == 0], atol=2e-4)


def test_model_is_not_changed(tmp_path: Path) -> None:
    model = narrow_c4()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = (model.transform.min_size, model.roi_heads.score_thresh, model.roi_heads.detections_per_img)
    export_onnx(model, tmp_path / "m.onnx", shape=(64, 64), score_threshold=0.3, max_detections=3, verify=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert attributes == (model.transform.min_size, model.roi_heads.score_thresh, model.roi_heads.detections_per_img)
    assert model.roi_heads.box_roi_pool.scales is None


def test_limits_replace_the_models_own(small: tuple[MaskRCNN, Path], tmp_path: Path) -> None:
    model, path = small
    report = export_onnx(model, tmp_path / "m.onnx", shape=(96, 96), max_detections=3, proposals=7, verify=False)
    assert (report.spec.max_detections, report.spec.max_proposals) == (3, 7)
    with Detector(with_taps(read_model(report.path)), "cpu") as detector:
        outputs = detector.run(np.full((1, 3, 96, 96), 90, np.float32), np.array([[96, 96]], np.int64))
    assert len(outputs["proposals"]) == 7
    assert len(outputs["boxes"]) <= 3
    with Detector(read_model(path), "cpu") as detector:
        assert len(detector.predict(SCENES["square"])) > 3


def test_openvino_target_holds_no_function(small: tuple[MaskRCNN, Path], tmp_path: Path) -> None:

    model, path = small
    export_onnx(model, tmp_path / "ov.onnx", shape=(96, 96), target="openvino", verify=False)
    proto = onnx.load(tmp_path / "ov.onnx")
    assert not proto.functions
    assert not any(node.domain for node in proto.graph.node)
    stages = {node.name.partition("/")[0] for node in proto.graph.node}
    assert stages <= {"stage", "backbone", "rpn", "proposals", "box_head", "nms", "mask_head", "graph"}
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    assert shared_core().read_model(tmp_path / "ov.onnx").inputs
    image = SCENES["square"]
    with Detector(read_model(tmp_path / "ov.onnx"), "cpu") as one, Detector(read_model(path), "cpu") as other:
        np.testing.assert_array_equal(one.predict(image).boxes, other.predict(image).boxes)


def test_a_canvas_below_the_resize_rule_replaces_it(tmp_path: Path) -> None:
    report = export_onnx(narrow_c4(), tmp_path / "m.onnx", shape=(64, 96), verify=False)
    assert (report.spec.min_size, report.spec.max_size) == (64, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (100, 96)}, "128x96"),
        ({"shape": (0, 96)}, "32x96"),
        ({"class_names": ["only one"]}, "1 class names for a model of 2 classes"),
        ({"target": "tensorflow"}, "no target 'tensorflow'"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_onnx(narrow_c4(), tmp_path / "m.onnx", verify=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        export_onnx(narrow_c4(), tmp_path / "nowhere" / "m.onnx", shape=(64, 64), verify=False)


@pytest.fixture(scope="module")
def traced() -> list[onnx.ModelProto]:
    """The one graph, once it was traced, into which each fault is put."""
    return []


@pytest.mark.parametrize(
    ("weight", "stage"),
    [
        ("backbone.fine.0.0.weight", "backbone.0"),
        ("rpn.head.cls_logits.weight", "rpn.scores.0"),
        ("mask_head.last.weight", "mask_head"),
    ],
)
def test_a_wrong_graph_is_refused_with_its_first_bad_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: list[onnx.ModelProto], weight: str, stage: str
) -> None:
    build_proto = exporter.build_proto

    def broken(*arguments: Any) -> onnx.ModelProto:
        if not traced:
            traced.append(build_proto(*arguments))
        proto = onnx.ModelProto()
        proto.CopyFrom(traced[0])
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == weight)
        values = onnx.numpy_helper.to_array(tensor) * np.float32(-1.2)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
        return proto

    monkeypatch.setattr(exporter, "build_proto", broken)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(ParityError, match=f"first at stage {stage}:"):
        export_onnx(narrow_c4(), path, shape=(96, 96))
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]
