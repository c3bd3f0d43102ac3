"""The first stage that differs is the one with the fault, and no other one is accused."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from narrow import narrow_model
from numpy.typing import NDArray
from torchvision.models.detection import MaskRCNN

from edgemask.canvas import place_on_canvas
from edgemask.description import spec_of
from edgemask.divergence import StageCheck, compare_stages, first_divergence
from edgemask.export.graph_module import GraphModule
from edgemask.reference import ReferenceDetector
from edgemask.scenes import draw_scene

Outputs = dict[str, NDArray[Any]]
PIXELS = draw_scene(2, seed=1, size=128).image[:96]


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    """With weights large enough that boxes and scores spread, and no two of them tie."""
    model = narrow_model(4, seed=3, box_detections_per_img=30, rpn_post_nms_top_n_test=60)
    with torch.no_grad():
        for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
            layer.weight *= 20
        for layer in (model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred):
            layer.weight *= 10
    return model


@pytest.fixture(scope="module")
def reference(model: MaskRCNN) -> ReferenceDetector:
    return ReferenceDetector(model, spec_of(model))


@torch.inference_mode()
def outputs_of(model: MaskRCNN) -> Outputs:
    """What an exact export of the model would give: its outputs and all stage tensors."""
    canvas, placement = place_on_canvas(PIXELS, spec_of(model))
    graph = GraphModule(model, spec_of(model).replace(canvas=placement.canvas))
    found, taps = graph(torch.from_numpy(canvas)[None], torch.tensor([placement.size]))
    return {name: value.numpy() for name, value in (found | taps).items()}


@pytest.fixture
def outputs(model: MaskRCNN) -> Outputs:
    return outputs_of(model)


def test_an_exact_export_passes(reference: ReferenceDetector, outputs: Outputs) -> None:
    checks = compare_stages(reference, PIXELS, outputs)
    assert first_divergence(checks) is None
    assert [check.stage for check in checks] == [
        "stage/resize",
        *(f"backbone.{level}" for level in range(4)),
        *(f"{stage}.{level}" for stage in ("fpn", "rpn.scores", "rpn.boxes") for level in range(5)),
        *("rpn.boxes", "rpn.scores", "proposals", "box_head", "box_head.boxes", "nms", "mask_head", "masks"),
    ]
    assert len(outputs["proposals"]) == 60
    assert len(outputs["boxes"]) == 30, "the checks had something to check"


def scale(*path: str | int, by: float = 1.01) -> Callable[[MaskRCNN], None]:
    """A fault in the weights of one layer."""

    def plant(model: MaskRCNN) -> None:
        layer: Any = model
        for name in path:
            layer = layer[name] if isinstance(name, int) else getattr(layer, name)
        with torch.no_grad():
            layer.weight *= by

    return plant


def setting(part: str, name: str, value: Any) -> Callable[[MaskRCNN], None]:
    return lambda model: setattr(getattr(model, part), name, value)


@pytest.mark.parametrize(
    ("plant", "stage", "accused"),
    [
        pytest.param(setting("transform", "image_mean", [0.4, 0.4, 0.4]), "stage/resize", {"stage/resize"}, id="mean"),
        pytest.param(scale("backbone", "body", "layer1", 0, "conv1"), "backbone.0", {"backbone"}, id="layer1"),
        pytest.param(scale("backbone", "body", "layer4", 1, "conv2"), "backbone.3", {"backbone"}, id="layer4"),
        pytest.param(scale("backbone", "fpn", "layer_blocks", 2, 0), "fpn.2", {"fpn"}, id="level of the pyramid"),
        pytest.param(scale("backbone", "fpn", "inner_blocks", 3, 0), "fpn.0", {"fpn"}, id="top of the pyramid"),
        pytest.param(scale("rpn", "head", "cls_logits"), "rpn.scores.0", {"rpn"}, id="objectness"),
        pytest.param(scale("rpn", "head", "bbox_pred"), "rpn.boxes.0", {"rpn"}, id="deltas of anchors"),
        pytest.param(setting("rpn", "nms_thresh", 0.4), "proposals", {"proposals"}, id="NMS of proposals"),
        pytest.param(setting("rpn", "min_size", 30.0), "rpn.scores", {"rpn"}, id="least size of proposals"),
        pytest.param(scale("roi_heads", "box_head", "fc6"), "box_head", {"box_head"}, id="box head"),
        pytest.param(scale("roi_heads", "box_predictor", "cls_score"), "box_head", {"box_head"}, id="classes"),
        pytest.param(scale("roi_heads", "box_predictor", "bbox_pred"), "box_head.boxes", {"box_head"}, id="deltas"),
        pytest.param(setting("roi_heads", "nms_thresh", 0.2), "nms", {"nms"}, id="NMS of detections"),
        pytest.param(setting("roi_heads", "detections_per_img", 20), "nms", {"nms"}, id="number of detections"),
        pytest.param(scale("roi_heads", "mask_head", 1, 0), "mask_head", {"mask_head"}, id="mask head"),
        pytest.param(scale("roi_heads", "mask_predictor", "mask_fcn_logits"), "mask_head", {"mask_head"}, id="logits"),
    ],
)
def test_a_fault_in_the_model_accuses_its_stage_alone(
    model: MaskRCNN,
    reference: ReferenceDetector,
    plant: Callable[[MaskRCNN], None],
    stage: str,
    accused: set[str],
) -> None:
    faulty = copy.deepcopy(model)
    plant(faulty)
    checks = compare_stages(reference, PIXELS, outputs_of(faulty))
    first = first_divergence(checks)
    assert first is not None
    assert first.stage == stage
    assert {check.stage.split(".")[0] for check in checks if not check.passed} == accused
    assert checks[-1].stage == "masks", "later stages are compared all the same, on what they were given"


def reorder(outputs: Outputs) -> None:
    """The worst detection first, everything about it in its place."""
    for name in ("boxes", "scores", "labels", "masks", "mask_head"):
        outputs[name] = outputs[name][::-1].copy()


def swap_labels(outputs: Outputs) -> None:
    """Scores of one class under the label of another one; the masks follow the label."""
    labels = outputs["labels"] = outputs["labels"] % 3 + 1
    logits = torch.from_numpy(outputs["mask_head"])
    outputs["masks"] = logits[torch.arange(len(labels)), torch.from_numpy(labels)].sigmoid().numpy()


def shift_scores(outputs: Outputs) -> None:
    outputs["scores"] = outputs["scores"] - np.float32(0.01)


def drop_last(outputs: Outputs) -> None:
    for name in ("boxes", "scores", "labels", "masks", "mask_head"):
        outputs[name] = outputs[name][:-1]


def take_other_class(outputs: Outputs) -> None:
    outputs["masks"] = 1 / (1 + np.exp(-outputs["mask_head"][:, 0]))


def add_proposal(outputs: Outputs) -> None:
    """One box too many; what the box head makes of it fits."""
    for name in ("proposals", "box_head", "box_head.boxes"):
        outputs[name] = np.concatenate([outputs[name], outputs[name][:1]])
    outputs["proposals"][-1, 1:] += 3


@pytest.mark.parametrize(
    ("plant", "stage"),
    [
        (reorder, "nms"),
        (swap_labels, "nms"),
        (shift_scores, "nms"),
        (drop_last, "nms"),
        (take_other_class, "masks"),
        (add_proposal, "proposals"),
    ],
)
def test_a_fault_in_the_outputs_names_its_stage(
    reference: ReferenceDetector, outputs: Outputs, plant: Callable[[Outputs], None], stage: str
) -> None:
    plant(outputs)
    first = first_divergence(compare_stages(reference, PIXELS, outputs))
    assert first is not None
    assert first.stage == stage


@pytest.mark.parametrize("stage", ["stage/resize", "backbone.2", "fpn.4", "rpn.scores.1", "box_head", "mask_head"])
@pytest.mark.parametrize("fault", ["missing", "other shape", "not a number"])
def test_no_stage_is_fed_with_nonsense(reference: ReferenceDetector, outputs: Outputs, stage: str, fault: str) -> None:
    if fault == "missing":
        del outputs[stage]
    elif fault == "other shape":
        outputs[stage] = outputs[stage][..., :-1]
    else:
        outputs[stage] = outputs[stage].copy()
        outputs[stage].flat[5] = np.nan
    checks = compare_stages(reference, PIXELS, outputs)
    assert first_divergence(checks) == checks[-1]
    assert checks[-1].stage == stage
    assert not np.isfinite(checks[-1].error)


def test_rounding_is_no_fault(reference: ReferenceDetector, outputs: Outputs) -> None:
    """Sums in another order differ in the last bits; what is compared is ten times as coarse."""
    chance = np.random.default_rng(0)
    for name, value in outputs.items():
        if name.startswith(("backbone", "fpn", "rpn.scores.", "rpn.boxes.", "box_head", "mask_head")):
            noise = chance.uniform(-1, 1, value.shape) * 2e-6 * np.abs(value).max()
            outputs[name] = value + noise.astype(np.float32)
    checks = compare_stages(reference, PIXELS, outputs)
    failed = [check.stage for check in checks if not check.passed and check.stage not in ("proposals", "nms", "masks")]
    assert failed == []


def test_first_divergence() -> None:
    checks = [StageCheck("fpn.0", 1e-6, 2e-5), StageCheck("fpn.1", 3e-5, 2e-5), StageCheck("nms", 1.0, 2e-3)]
    assert first_divergence(checks) == checks[1]
    assert first_divergence(checks[:1]) is None
    assert not StageCheck("nms", float("nan"), 1.0).passed


def test_nothing_found_on_either_side(model: MaskRCNN) -> None:
    picky = copy.deepcopy(model)
    picky.roi_heads.score_thresh = 0.9999
    outputs = outputs_of(picky)
    assert len(outputs["boxes"]) == 0
    checks = compare_stages(ReferenceDetector(picky, spec_of(picky)), PIXELS, outputs)
    assert first_divergence(checks) is None
    assert checks[-1].stage == "masks"


def test_nothing_found_by_the_export_alone(model: MaskRCNN, reference: ReferenceDetector) -> None:
    picky = copy.deepcopy(model)
    picky.roi_heads.score_thresh = 0.9999
    first = first_divergence(compare_stages(reference, PIXELS, outputs_of(picky)))
    assert first is not None
    assert (first.stage, first.error) == ("nms", 1.0)
