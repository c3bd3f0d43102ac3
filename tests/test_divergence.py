"""The first stage that differs is the one with the fault, and no other one is accused."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from narrow import narrow_c4
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgemask import detections
from edgemask.canvas import Placement, place_on_canvas
from edgemask.divergence import (
    STAGE_TOLERANCES,
    StageCheck,
    compare_records,
    compare_stages,
    first_divergence,
)
from edgemask.errors import UsageError
from edgemask.export import export_onnx
from edgemask.masks import paste_masks
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import ModelFile, read_model, stage_runs
from edgemask.runtimes.stage_runs import stages_of_file
from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec
from edgemask.stage_record import Record

# Half as large on the canvas, in both directions: what resizes wrongly or pastes at the wrong size shows.
PIXELS = draw_scene(2, seed=1, size=256).image[:192]
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
ROAD = [
    "stage/resize",
    *(f"{stage}.{level}" for stage in ("backbone", "rpn.scores", "rpn.boxes") for level in range(2)),
    *("rpn.boxes", "rpn.scores", "proposals", "box_head", "box_head.boxes", "nms", "mask_head", "masks"),
    *("detections", "paste"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFile, Record]:
    """A file with 20 detections on the image, and what PyTorch has at the borders of its stages."""
    model = narrow_c4(2)
    model.roi_heads.box_roi_pool.sampling_ratio = model.roi_heads.mask_roi_pool.sampling_ratio = 2
    with torch.no_grad():
        model.roi_heads.mask_predictor.mask_fcn_logits.bias += 2
    path = tmp_path_factory.mktemp("divergence") / "m.onnx"
    report = export_onnx(model, path, shape=(96, 128), verify=False)
    return read_model(path), record_stages(ReferenceDetector(model, report.spec), PIXELS)


@pytest.fixture
def file(exported: tuple[ModelFile, Record]) -> ModelFile:
    """A copy to plant faults in."""
    proto = onnx.ModelProto()
    proto.CopyFrom(exported[0].proto)
    return dataclasses.replace(exported[0], proto=proto)


@pytest.fixture
def record(exported: tuple[ModelFile, Record]) -> Record:
    return {name: value.copy() for name, value in exported[1].items()}


def accused(checks: tuple[StageCheck, ...]) -> list[str]:
    return [check.stage for check in checks if not check.passed]


@pytest.mark.parametrize("device", DEVICES)
def test_an_exact_export_passes(file: ModelFile, record: Record, device: str) -> None:
    checks = compare_stages(file, device, PIXELS, record)
    assert accused(checks) == []
    assert [check.stage for check in checks] == ROAD
    assert len(record["proposals"]) == 50
    assert len(record["boxes"]) == 20, "the checks had something to check"
    assert np.unpackbits(record["paste"]).sum() > 1000


def test_an_onnx_file_is_a_reference_too(file: ModelFile, record: Record) -> None:
    own = stages_of_file(file, "cpu", PIXELS)
    assert list(own) == list(record)
    assert {name: (value.shape, value.dtype) for name, value in own.items()} == {
        name: (value.shape, value.dtype) for name, value in record.items()
    }
    checks = compare_stages(file, "cpu", PIXELS, own)
    assert accused(checks) == []
    assert max(check.error for check in checks) < 1e-6
    assert accused(compare_records(record, own)) == []


def weight(name: str) -> Callable[[onnx.GraphProto], None]:
    """A fault in the weights of one layer."""

    def plant(graph: onnx.GraphProto) -> None:
        (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
        values = numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    return plant


def attribute(node: str, name: str, value: Any) -> Callable[[onnx.GraphProto], None]:
    def plant(graph: onnx.GraphProto) -> None:
        (own,) = (own for own in graph.node if own.name.startswith(node))
        (old,) = (old for old in own.attribute if old.name == name)
        assert helper.get_attribute_value(old) != value
        old.CopyFrom(helper.make_attribute(name, value))

    return plant


def swapped_branches(graph: onnx.GraphProto) -> None:
    """What is removed and what is kept, the wrong way round."""
    (choice,) = (node for node in graph.node if node.output[0] == "rpn.scores")
    assert choice.op_type == "Where"
    choice.input[1], choice.input[2] = choice.input[2], choice.input[1]


def shifted_labels(graph: onnx.GraphProto) -> None:
    (sum_,) = (node for node in graph.node if node.output[0] == "labels")
    assert sum_.op_type == "Add"
    graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "two"))
    sum_.input[1] = "two"


def without_sigmoid(graph: onnx.GraphProto) -> None:
    (last,) = (node for node in graph.node if node.output[0] == "masks")
    last.op_type = "HardSigmoid"


def flipped(part: str) -> Callable[[onnx.GraphProto], None]:
    return attribute(f"{part}/pool/MultiScaleRoiAlign", "coordinate_transformation_mode", "half_pixel")


def sampled_once(part: str) -> Callable[[onnx.GraphProto], None]:
    return attribute(f"{part}/pool/MultiScaleRoiAlign", "sampling_ratio", 1)


BOX_HEAD = ["box_head", "box_head.boxes"]


@pytest.mark.parametrize(
    ("plant", "stages"),
    [
        pytest.param(weight("backbone.fine.0.0.weight"), ["backbone.0"], id="the fine map"),
        pytest.param(weight("backbone.coarse.0.weight"), ["backbone.1"], id="the coarse map"),
        pytest.param(weight("rpn.head.cls_logits.weight"), ["rpn.scores.0", "rpn.scores.1"], id="objectness"),
        pytest.param(weight("rpn.head.bbox_pred.weight"), ["rpn.boxes.0", "rpn.boxes.1"], id="deltas of anchors"),
        pytest.param(swapped_branches, ["rpn.scores"], id="candidates removed"),
        pytest.param(attribute("proposals/BatchedNms", "iou_threshold", 0.4), ["proposals"], id="NMS of proposals"),
        pytest.param(weight("box_head.head.fc6.weight"), BOX_HEAD, id="box head"),
        pytest.param(weight("box_head.predictor.cls_score.weight"), ["box_head"], id="classes"),
        pytest.param(weight("box_head.predictor.bbox_pred.weight"), ["box_head.boxes"], id="deltas"),
        pytest.param(flipped("box_head"), BOX_HEAD, id="aligned flipped, box head"),
        pytest.param(sampled_once("box_head"), BOX_HEAD, id="sampling ratio 1, box head"),
        pytest.param(attribute("nms/BatchedNms", "iou_threshold", 0.2), ["nms"], id="NMS of detections"),
        pytest.param(attribute("nms/BatchedNms", "score_threshold", 0.6), ["nms"], id="score threshold"),
        pytest.param(attribute("nms/BatchedNms", "max_per_class", 1), ["nms"], id="number of detections"),
        pytest.param(shifted_labels, ["nms"], id="labels shifted"),
        pytest.param(weight("mask_head.head.1.0.weight"), ["mask_head"], id="mask head"),
        pytest.param(weight("mask_head.last.weight"), ["mask_head"], id="mask logits"),
        pytest.param(flipped("mask_head"), ["mask_head"], id="aligned flipped, mask head"),
        pytest.param(sampled_once("mask_head"), ["mask_head"], id="sampling ratio 1, mask head"),
        pytest.param(without_sigmoid, ["masks"], id="another sigmoid"),
    ],
)
def test_a_fault_in_the_graph_accuses_its_stage_alone(
    file: ModelFile, record: Record, plant: Callable[[onnx.GraphProto], None], stages: list[str]
) -> None:
    plant(file.proto.graph)
    checks = compare_stages(file, "cpu", PIXELS, record)
    assert accused(checks) == stages
    assert [check.stage for check in checks] == ROAD, "later stages are compared all the same, on the reference's input"


@pytest.mark.openvino
def test_a_fault_is_found_on_openvino_too(file: ModelFile, record: Record) -> None:
    flipped("mask_head")(file.proto.graph)
    shifted_labels(file.proto.graph)
    assert accused(compare_stages(file, "openvino:CPU", PIXELS, record)) == ["nms", "mask_head"]


Placed = tuple[NDArray[np.float32], Placement]


def bgr(image: NDArray[np.uint8], spec: ModelSpec) -> Placed:
    return place_on_canvas(np.ascontiguousarray(image[:, :, ::-1]), spec)


def one_pixel_less(image: NDArray[np.uint8], spec: ModelSpec) -> Placed:
    """As the sizes of traced models, which are computed in float32, may come out."""
    return place_on_canvas(image, spec.replace(fixed_size=(95, 128)))


def antialiased(image: NDArray[np.uint8], spec: ModelSpec) -> Placed:
    canvas, placement = place_on_canvas(image, spec)
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(planes, placement.size, mode="bilinear", antialias=True)
    height, width = placement.size
    canvas[:, :height, :width] = resized[0].numpy()
    return canvas, placement


@pytest.mark.parametrize(
    ("place", "stages"),
    [
        (bgr, ["stage/resize"]),
        (antialiased, ["stage/resize"]),
        (one_pixel_less, ["stage/resize", "detections", "paste"]),  # boxes are brought back by the wrong ratio too
    ],
)
def test_a_fault_before_the_graph_is_the_resize(
    file: ModelFile, record: Record, monkeypatch: pytest.MonkeyPatch, place: Any, stages: list[str]
) -> None:
    monkeypatch.setattr(stage_runs, "place_on_canvas", place)
    assert accused(compare_stages(file, "cpu", PIXELS, record)) == stages


def at_network_size(masks: Any, boxes: Any, image_size: Any, threshold: float) -> Any:
    return paste_masks(masks, boxes, (96, 128), threshold)


def without_border(masks: Any, boxes: Any, image_size: Any, threshold: float) -> Any:
    """A pixel too far to the right."""
    return paste_masks(masks, boxes + np.float32(1), image_size, threshold)


def half_sure(masks: Any, boxes: Any, image_size: Any, threshold: float) -> Any:
    return paste_masks(masks, boxes, image_size, 0.45)


@pytest.mark.parametrize("paste", [at_network_size, without_border, half_sure])
def test_a_fault_behind_the_graph_is_the_paste(
    file: ModelFile, record: Record, monkeypatch: pytest.MonkeyPatch, paste: Any
) -> None:
    monkeypatch.setattr(detections, "paste_masks", paste)
    assert accused(compare_stages(file, "cpu", PIXELS, record)) == ["paste"]


def test_boxes_left_on_the_canvas(file: ModelFile, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemask.runtimes import results

    monkeypatch.setattr(results, "boxes_to_original", lambda boxes, placement: boxes)
    assert accused(compare_stages(file, "cpu", PIXELS, record)) == ["detections", "paste"]


def test_nothing_found_on_either_side(file: ModelFile, record: Record) -> None:
    attribute("nms/BatchedNms", "score_threshold", 1.0)(file.proto.graph)
    (check,) = (check for check in compare_stages(file, "cpu", PIXELS, record) if check.stage == "nms")
    assert check.error == 1.0, "the file alone found nothing"
    empty = stages_of_file(file, "cpu", PIXELS)
    assert len(empty["boxes"]) == 0
    checks = compare_stages(file, "cpu", PIXELS, empty)
    assert accused(checks) == []
    assert [check.stage for check in checks] == ROAD


def test_a_reference_on_another_canvas_is_refused(file: ModelFile, record: Record) -> None:
    record["stage/resize"] = np.zeros((1, 3, 128, 128), np.float32)
    with pytest.raises(UsageError, match=r"canvas of the reference: expected \(96, 128\).*, got \(128, 128\)"):
        compare_stages(file, "cpu", PIXELS, record)


@pytest.fixture
def own(record: Record) -> Record:
    """What an exact candidate gives."""
    return {name: value.copy() for name, value in record.items()}


def reorder(own: Record) -> None:
    """The worst detection first, everything about it in its place."""
    for name in ("boxes", "scores", "labels"):
        own[name] = own[name][::-1]


def swap_labels(own: Record) -> None:
    own["labels"] = own["labels"] % 3 + 1


def shift_scores(own: Record) -> None:
    own["scores"] = own["scores"] - np.float32(0.01)


def drop_last(own: Record) -> None:
    for name in ("boxes", "scores", "labels"):
        own[name] = own[name][:-1]


def add_proposal(own: Record) -> None:
    own["proposals"] = np.concatenate([own["proposals"], own["proposals"][:1] + np.float32(3)])


def move_candidates(own: Record) -> None:
    own["rpn.boxes"][:, :5] += 0.1


def shift_candidate_scores(own: Record) -> None:
    own["rpn.scores"] = np.where(own["rpn.scores"] < 0, own["rpn.scores"], own["rpn.scores"] * np.float32(0.99))


def shift_final_labels(own: Record) -> None:
    own["detections"][:, 5] += 1


@pytest.mark.parametrize(
    ("plant", "stage"),
    [
        (reorder, "nms"),
        (swap_labels, "nms"),
        (shift_scores, "nms"),
        (drop_last, "nms"),
        (add_proposal, "proposals"),
        (move_candidates, "rpn.boxes"),
        (shift_candidate_scores, "rpn.scores"),
        (shift_final_labels, "detections"),
    ],
)
def test_what_is_chosen_otherwise(record: Record, own: Record, plant: Callable[[Record], None], stage: str) -> None:
    plant(own)
    (check,) = (check for check in compare_records(record, own) if not check.passed)
    assert check.stage == stage
    assert 0 < check.error <= 1


def test_one_choice_of_a_thousand_is_a_tie(record: Record, own: Record) -> None:
    """Shares are of the rows of both sides, wherever in the order they lie."""
    expected = np.random.default_rng(0).uniform(0, 90, (1000, 5)).astype(np.float32)
    record["proposals"], own["proposals"] = expected, np.random.default_rng(1).permutation(expected)
    own["proposals"][7, 1] += 1
    (check,) = (check for check in compare_records(record, own) if check.stage == "proposals")
    assert (check.error, check.passed) == (1e-3, True)
    own["proposals"] = np.delete(own["proposals"], [2, 3, 4, 5], axis=0)
    (check,) = (check for check in compare_records(record, own) if check.stage == "proposals")
    assert check.error == pytest.approx(6 / 1996)
    assert not check.passed


@pytest.mark.parametrize("stage", [name for name in ROAD if name != "nms"])
@pytest.mark.parametrize("fault", ["missing", "other shape", "not a number"])
def test_nonsense_is_infinitely_far(record: Record, own: Record, stage: str, fault: str) -> None:
    if fault == "missing":
        del own[stage]
    elif fault == "other shape" or stage == "paste":
        own[stage] = own[stage][..., :-1]
    else:
        own[stage].flat[5] = np.nan
    (check,) = (check for check in compare_records(record, own) if not check.passed)
    assert check.stage == stage
    assert check.error == math.inf


@pytest.fixture
def noisy(own: Record) -> Record:
    """Sums in another order differ in the last bits; what is compared is ten times as coarse."""
    chance = np.random.default_rng(0)
    for name, value in own.items():
        if value.dtype == np.float32 and name not in ("scores", "detections"):
            own[name] = value + (chance.uniform(-1, 1, value.shape) * 2e-6 * np.abs(value).max()).astype(np.float32)
    return own


def test_rounding_is_no_fault(record: Record, noisy: Record) -> None:
    assert accused(compare_records(record, noisy)) == []


def test_errors_of_int8_are_reported_only(record: Record, own: Record) -> None:
    own["backbone.1"] = own["backbone.1"] * np.float32(1.3)
    own["box_head"] = own["box_head"] * np.float32(1.1)
    checks = compare_records(record, own, "int8")
    assert accused(checks) == []
    worst = max(checks, key=lambda check: check.error)
    assert (worst.stage, worst.error) == ("backbone.1", pytest.approx(0.3, rel=1e-3))
    own["masks"][0, 0, 0] = np.nan
    checks = compare_records(record, own, "int8")
    assert accused(checks) == ["masks"], "what is no number fails all the same"


def test_tolerances_grow_with_coarser_precision() -> None:
    rows = [dataclasses.astuple(STAGE_TOLERANCES[precision]) for precision in ("fp32", "fp16", "int8")]
    for finer, coarser in itertools.pairwise(rows):
        assert all(one <= other for one, other in zip(finer, coarser, strict=True))


def test_the_first_that_differs() -> None:
    checks = [StageCheck("fpn.0", 1e-6, 2e-5), StageCheck("fpn.1", 3e-5, 2e-5), StageCheck("nms", 1.0, 2e-3)]
    assert first_divergence(checks) == checks[1]
    assert first_divergence(checks[:1]) is None
    assert not StageCheck("nms", math.nan, 1.0).passed
    assert not StageCheck("nms", math.inf, math.inf).passed
