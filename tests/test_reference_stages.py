"""What is recorded of PyTorch is what its own code has at the borders of its stages."""

from typing import Any

import numpy as np
import pytest
import torch
from families import load
from narrow import narrow, narrow_c4
from narrow_semantic import narrow_fcn, narrow_spec
from numpy.typing import NDArray
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.description import spec_of
from edgemask.divergence import StageCheck, compare_records
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.scenes import draw_scene
from edgemask.semantic_reference import SemanticReference
from edgemask.stage_record import Record, on_the_road

PIXELS = draw_scene(1, seed=40, size=160, objects=6).image[10:150]


def reference_of(model: GeneralizedRCNN, **changes: Any) -> ReferenceDetector:
    return ReferenceDetector(model, spec_of(model).replace(**changes))


@pytest.mark.parametrize("family", ["mask_keypoint", "faster_resnet"])
def test_the_end_of_the_road_is_what_predict_gives(family: str) -> None:
    reference = reference_of(load(family))
    record, found = record_stages(reference, PIXELS), reference.predict(PIXELS)
    assert list(record) == on_the_road(record)
    assert len(found) > 5
    np.testing.assert_array_equal(record["detections"][:, :4], found.boxes)
    np.testing.assert_array_equal(record["detections"][:, 4], found.scores)
    np.testing.assert_array_equal(record["detections"][:, 5], found.labels)
    np.testing.assert_array_equal(record["labels"], found.labels)
    assert ("paste" in record) == (found.masks is not None)
    if found.masks is not None and found.keypoints is not None:
        np.testing.assert_array_equal(record["masks"], found.masks)
        np.testing.assert_allclose(1 / (1 + np.exp(-record["mask_head"])), found.masks, atol=1e-6)
        np.testing.assert_array_equal(record["detections.keypoints"], found.keypoints)
        bitmaps = np.unpackbits(record["paste"], axis=2, count=PIXELS.shape[1]).astype(np.bool_)
        assert (bitmaps != found.bitmaps()).mean() < 1e-6, "torchvision's own paste"


def test_the_middle_of_the_road() -> None:
    """Recorded tensors, put into torchvision's own layers, give the next ones."""
    reference = reference_of(narrow(4), canvas=(128, 192))
    model, record = reference.model, record_stages(reference, PIXELS)
    assert record["stage/resize"].shape == (1, 3, 128, 192)
    np.testing.assert_array_equal(record["image_sizes"], [reference.resize(PIXELS).image_sizes[0]])
    values = {name: torch.from_numpy(value) for name, value in record.items()}
    with torch.inference_mode():
        maps = [values[f"fpn.{level}"] for level in range(5)]
        objectness, deltas = model.rpn.head(maps)
        logits, moves = model.roi_heads.box_predictor(
            model.roi_heads.box_head(
                model.roi_heads.box_roi_pool(
                    {str(level): value for level, value in enumerate(maps)}, [values["proposals"][:, 1:]], [(128, 192)]
                )
            )
        )
    for level in range(5):
        torch.testing.assert_close(values[f"rpn.scores.{level}"], objectness[level])
        torch.testing.assert_close(values[f"rpn.boxes.{level}"], deltas[level])
    torch.testing.assert_close(values["box_head"], logits)
    torch.testing.assert_close(values["box_head.boxes"], moves)


def test_candidates_are_in_the_graphs_layout() -> None:
    reference = reference_of(narrow(4))
    reference.model.rpn.min_size = 12.0
    reference.model.rpn._pre_nms_top_n = {"training": 40, "testing": 40}
    record = record_stages(reference, PIXELS)
    counts = [min(40, record[f"rpn.scores.{level}"].size) for level in range(5)]
    scores, boxes = record["rpn.scores"][0], record["rpn.boxes"][0]
    assert (len(scores), boxes.shape) == (sum(counts), (sum(counts), 4))
    for level, own in enumerate(np.split(scores, np.cumsum(counts)[:-1])):
        assert (np.diff(own[own >= 0]) <= 0).all(), "by descending score within a level"
        best = 1 / (1 + np.exp(-record[f"rpn.scores.{level}"].max()))
        assert own[0] in (pytest.approx(best), -1)
    sides = boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_array_equal(scores == -1, (sides < 12).any(1))
    assert 0 < (scores == -1).sum() < len(scores)
    height, width = record["image_sizes"][0]
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    kept = {tuple(box) for box in boxes[scores >= 0].tolist()}
    assert {tuple(box) for box in record["proposals"][:, 1:].tolist()} <= kept


def test_given_proposals_take_the_place_of_the_rpns() -> None:
    reference = reference_of(narrow_c4(2), proposals="input")
    boxes = np.array([[4, 8, 60, 50], [10, 10, 100, 90]], np.float32)
    record = record_stages(reference, PIXELS, proposals=boxes)
    assert not any(name.startswith("rpn") for name in record)
    np.testing.assert_array_equal(record["proposals.boxes"], boxes)
    size = record["image_sizes"][0] / PIXELS.shape[:2]
    expected = np.column_stack([[0, 0], boxes * [size[1], size[0], size[1], size[0]]])
    np.testing.assert_allclose(record["proposals"], expected, rtol=1e-6)
    assert record["proposals"].dtype == np.float32
    np.testing.assert_array_equal(record["detections"][:, :4], reference.predict(PIXELS, proposals=boxes).boxes)
    assert [name for name in record if name.startswith(("backbone", "fpn"))] == ["backbone.0", "backbone.1"]


def test_an_image_without_objects() -> None:
    reference = reference_of(narrow(4), score_threshold=1.0)
    record = record_stages(reference, PIXELS)
    names = ("boxes", "scores", "labels", "mask_head", "masks", "detections", "paste")
    assert {len(record[name]) for name in names} == {0}
    assert record["mask_head"].shape == record["masks"].shape
    assert len(record["box_head"]) > 0


def test_nobody_listens_afterwards() -> None:
    reference = reference_of(narrow_c4())
    record_stages(reference, PIXELS)
    with pytest.raises(AttributeError):
        record_stages(reference, None)  # type: ignore[arg-type]
    assert not any(layer._forward_hooks for layer in reference.model.modules())


@pytest.fixture(scope="module")
def semantic() -> SemanticReference:
    """On a canvas a part of which is padding."""
    return SemanticReference(narrow_fcn(), narrow_spec(canvas=(96, 160)))


SCENE = draw_scene(2, seed=1, size=128).image[:96]


def test_a_semantic_record(semantic: SemanticReference) -> None:
    record, found = record_stages(semantic, SCENE), semantic.segment(SCENE)
    names = ["image_sizes", "stage/resize", "backbone.0", "head", "labels", "scores", "map", "map.scores"]
    assert list(record) == names
    np.testing.assert_array_equal(record["map"], found.labels)
    np.testing.assert_array_equal(record["map.scores"], found.scores)
    np.testing.assert_array_equal(record["image_sizes"], [[96, 128]])
    assert (record["labels"].dtype, record["labels"].shape) == (np.uint8, (1, 96, 160))
    assert not record["labels"][:, :, 128:].any()
    assert not record["scores"][:, :, 128:].any()
    assert len(np.unique(record["labels"])) > 3


def shift(own: Record) -> None:
    """Labels one row too low."""
    own["labels"] = np.roll(own["labels"], 1, axis=1)


def take_corners(own: Record) -> None:
    """Another rule of upsampling."""
    logits = torch.from_numpy(own["head"])
    logits = torch.nn.functional.interpolate(logits, size=(96, 160), mode="bilinear", align_corners=True)
    own["labels"] = logits.argmax(1).to(torch.uint8).numpy()
    own["labels"][:, :, 128:] = 0


def leave_padding(own: Record) -> None:
    own["labels"][:, :, 140:] = 1


def take_sigmoid(own: Record) -> None:
    """Probabilities that do not know of the other classes."""
    own["scores"] = np.where(own["scores"] > 0, 1 / (1 + np.exp(-own["head"].max())), 0).astype(np.float32)


def lose_a_row(own: Record) -> None:
    own["map"] = own["map"][1:]


def accused(checks: tuple[StageCheck, ...]) -> list[str]:
    return [check.stage for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("plant", "stage"),
    [
        (shift, "labels"),
        (take_corners, "labels"),
        (leave_padding, "labels"),
        (take_sigmoid, "scores"),
        (lose_a_row, "map"),
    ],
)
def test_a_fault_in_a_semantic_stage_accuses_it_alone(semantic: SemanticReference, plant: Any, stage: str) -> None:
    record = record_stages(semantic, SCENE)
    own = {name: value.copy() for name, value in record.items()}
    assert accused(compare_records(record, own)) == []
    plant(own)
    assert accused(compare_records(record, own)) == [stage]


def test_few_pixels_on_borders_of_classes_are_no_fault(semantic: SemanticReference) -> None:
    record = record_stages(semantic, SCENE)
    labels: NDArray[np.uint8] = record["labels"].copy()
    labels.ravel()[: 96 * 128 // 1000 + 1] = 255
    (check,) = (check for check in compare_records(record, record | {"labels": labels}) if check.stage == "labels")
    assert 1e-3 < check.error < 1.1e-3, "a share of the image's pixels, not of the canvas's"
    assert not check.passed
