"""What is read off a model: its spec, its number of classes, the digest of its weights."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from families import FAMILIES, KEYPOINT_NAMES, NUM_CLASSES
from narrow import ARGUMENTS, BUILDER, narrow_model
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.transforms._presets import SemanticSegmentation

from edgemask.description import class_count, spec_of, weights_digest
from edgemask.errors import UsageError
from edgemask.spec import RESIZE_LIMIT, ModelSpec

NAMES = ("dot", "line")


def narrow_spec(model: MaskRCNN) -> ModelSpec:
    return spec_of(model, class_names=NAMES, category_ids=(7, 9), builder=BUILDER, builder_arguments=ARGUMENTS)


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    return narrow_model(seed=1)


def family(name: str) -> Any:
    return FAMILIES[name].build()


def test_spec_says_what_the_model_is(model: MaskRCNN) -> None:
    spec = narrow_spec(model)
    assert spec.tasks == ("boxes", "masks")
    assert spec.class_names == NAMES
    assert spec.category_ids == (7, 9)
    assert (spec.min_size, spec.max_size, spec.fixed_size) == (96, 192, None)
    assert spec.image_mean == tuple(model.transform.image_mean)
    assert spec.image_std == tuple(model.transform.image_std)
    assert (spec.score_threshold, spec.nms_threshold, spec.max_detections) == (0.05, 0.5, 100)
    assert spec.mask_size == 28
    assert spec.versions["torchvision"] == torchvision.__version__
    assert spec.source_sha256 == weights_digest(model)


def test_spec_of_other_settings() -> None:
    settings = {"box_score_thresh": 0.2, "box_nms_thresh": 0.4, "box_detections_per_img": 9, "fixed_size": (96, 64)}
    settings |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 3.0], "size_divisible": 64}
    spec = spec_of(narrow_model(**settings), class_names=["__background__", *NAMES])
    assert (spec.score_threshold, spec.nms_threshold, spec.max_detections) == (0.2, 0.4, 9)
    assert spec.fixed_size == (64, 96), "torchvision says width first"
    assert (spec.image_mean, spec.image_std, spec.size_divisible) == ((0.1, 0.2, 0.3), (1, 2, 3), 64)
    assert spec.class_names == NAMES
    assert spec.category_ids == (1, 2)


def test_spec_without_masks(model: MaskRCNN) -> None:
    boxes = narrow_model(seed=1)
    boxes.roi_heads.mask_roi_pool = boxes.roi_heads.mask_head = boxes.roi_heads.mask_predictor = None
    spec = spec_of(boxes)
    assert (spec.tasks, spec.mask_size) == (("boxes",), None)
    assert spec.class_names == ("class_1", "class_2")


def test_spec_of_leaves_the_model_as_it_is() -> None:
    model = narrow_model().train()
    frozen = model.roi_heads.mask_head[0]
    frozen.eval()
    before = weights_digest(model)
    spec_of(model)
    assert model.roi_heads.mask_head.training
    assert not frozen.training, "each layer keeps its own mode"
    assert weights_digest(model) == before


def test_spec_of_another_number_of_classes(model: MaskRCNN) -> None:
    with pytest.raises(UsageError, match="3 class names for a model of 2 classes"):
        spec_of(model, class_names=["a", "b", "c"])


def test_spec_of_a_predictor_without_scores() -> None:
    model = narrow_model()
    model.roi_heads.box_predictor = torch.nn.Identity()
    with pytest.raises(UsageError, match="number of classes of Identity"):
        spec_of(model)


@pytest.mark.parametrize("name", FAMILIES)
def test_tasks_and_classes_of_every_family(name: str) -> None:
    model = family(name)
    spec = spec_of(model)
    assert spec.tasks == FAMILIES[name].tasks
    assert class_count(model) == NUM_CLASSES == len(spec.class_names) + 1
    assert spec.num_keypoints == (len(KEYPOINT_NAMES) if "keypoints" in spec.tasks else None)
    assert (spec.mask_size is None) == ("masks" not in spec.tasks)


def test_masks_are_as_large_as_the_head_makes_them() -> None:
    """A pyramid's head doubles the 14x14 that it pools; the C4 head halves its 10x10 first."""
    assert spec_of(family("mask_basic")).mask_size == 28
    assert spec_of(family("mask_c4")).mask_size == 10


@pytest.mark.parametrize("name", ["semantic_fcn", "semantic_deeplab"])
def test_a_semantic_model_gets_the_preset_of_its_kind(name: str) -> None:
    spec = spec_of(family(name), class_names=["__background__", *"abcde"])
    preset = SemanticSegmentation(resize_size=520)
    assert [spec.min_size] == preset.resize_size
    assert spec.max_size == RESIZE_LIMIT, "the long side has no limit"
    assert (list(spec.image_mean), list(spec.image_std)) == (preset.mean, preset.std)
    assert spec.class_names == tuple("abcde")
    assert spec.category_ids == (1, 2, 3, 4, 5)
    assert (spec.mask_size, spec.num_keypoints, spec.fixed_size) == (None, None, None)


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"])
def test_every_preset_of_torchvision_is_the_one_taken(name: str) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    expected = SemanticSegmentation(resize_size=520)
    assert (preset.resize_size, preset.mean, preset.std) == (expected.resize_size, expected.mean, expected.std)


def test_a_classifier_without_convolutions() -> None:
    model = family("semantic_fcn")
    model.classifier = nn.Identity()
    with pytest.raises(UsageError, match="number of classes of Identity"):
        class_count(model)


@pytest.mark.parametrize(
    ("branch", "layer", "shown"),
    [
        ("mask", nn.Flatten(), r"the mask head gives the shape \(1, 4704\)"),
        ("mask", nn.AvgPool2d((2, 1)), r"the mask head gives the shape \(1, 6, 14, 28\)"),
        ("keypoint", nn.Flatten(), r"the keypoint head gives the shape \(1, 15680\)"),
        ("keypoint", nn.AvgPool2d((1, 2)), r"the keypoint head gives the shape \(1, 5, 56, 28\)"),
    ],
)
def test_heads_that_give_no_square_maps(branch: str, layer: nn.Module, shown: str) -> None:
    model = family("mask_keypoint")
    predictor = getattr(model.roi_heads, f"{branch}_predictor")
    setattr(model.roi_heads, f"{branch}_predictor", nn.Sequential(copy.deepcopy(predictor), layer))
    with pytest.raises(UsageError, match=shown) as caught:
        spec_of(model)
    assert f"square {branch} maps" in (caught.value.remedy or "")


def test_digest_depends_on_values_names_and_types(model: MaskRCNN) -> None:
    digest = weights_digest(model)
    assert digest == weights_digest(narrow_model(seed=1))
    changed = narrow_model(seed=1)
    with torch.no_grad():
        changed.rpn.head.cls_logits.bias[0] += 1e-6
    assert weights_digest(changed) != digest
    assert weights_digest(narrow_model(seed=1).bfloat16()) != digest, "numpy has no bfloat16"
    one, other = torch.nn.Linear(1, 2), torch.nn.ModuleDict({"part": torch.nn.Linear(1, 2)})
    other["part"].load_state_dict(one.state_dict())
    assert weights_digest(one) != weights_digest(other)
