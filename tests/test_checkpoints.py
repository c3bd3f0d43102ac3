"""Checkpoints: weights and spec in one file; weights of strangers by name and shape."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from families import FAMILIES
from narrow import ARGUMENTS, BUILDER, narrow_model
from test_files import full_disk
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.ops.misc import FrozenBatchNorm2d

from edgemask.checkpoints import (
    TRAINING_KEY,
    load_checkpoint,
    load_model,
    load_state,
    save_checkpoint,
)
from edgemask.description import spec_of, weights_digest
from edgemask.errors import ModelFileError, OutputError, UsageError
from edgemask.models import BUILDERS, compact_resnet
from edgemask.spec import SPEC_KEY, ModelSpec
from edgemask.weight_files import read_state

NAMES = ("dot", "line")


def narrow_spec(model: MaskRCNN) -> ModelSpec:
    return spec_of(model, class_names=NAMES, category_ids=(7, 9), builder=BUILDER, builder_arguments=ARGUMENTS)


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    return narrow_model(seed=1)


@pytest.fixture(scope="module")
def checkpoint(model: MaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, model, narrow_spec(model))
    return path


def assert_same_weights(one: torch.nn.Module, two: torch.nn.Module) -> None:
    state = two.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "np") as file:
        return dict(file.metadata())


def test_round_trip(model: MaskRCNN, checkpoint: Path) -> None:
    loaded, spec = load_checkpoint(checkpoint)
    assert_same_weights(loaded, model)
    assert not loaded.training
    assert spec == narrow_spec(model)
    assert spec.source_sha256 == weights_digest(model)


def test_round_trip_as_half(model: MaskRCNN, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, model, narrow_spec(model), half=True)
    assert path.stat().st_size < 0.6 * checkpoint.stat().st_size
    loaded, spec = load_checkpoint(path)
    for name, value in loaded.state_dict().items():
        expected = model.state_dict()[name]
        assert value.dtype == expected.dtype, name
        assert torch.equal(value, expected.half().to(expected.dtype)), name
    stored = ModelSpec.from_json(metadata_of(path)[SPEC_KEY])
    assert stored.source_sha256 == spec.source_sha256 == weights_digest(loaded) != weights_digest(model)


def test_half_keeps_what_it_cannot_hold(tmp_path: Path) -> None:
    model = narrow_model()
    large = model.rpn.head.bbox_pred.bias
    with torch.no_grad():
        large[0] = 1e6
    save_checkpoint(tmp_path / "half.safetensors", model, narrow_spec(model), half=True)
    loaded, _ = load_checkpoint(tmp_path / "half.safetensors")
    assert torch.equal(loaded.rpn.head.bbox_pred.bias, large)


def test_how_the_weights_came_to_be_is_kept(model: MaskRCNN, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, narrow_spec(model), training={"steps": 5, "loss": 0.5})
    assert json.loads(metadata_of(path)[TRAINING_KEY]) == {"steps": 5, "loss": 0.5}


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrow families are builders by their names."""
    for name, family in FAMILIES.items():
        monkeypatch.setitem(BUILDERS, name, lambda _classes, family=family: family.build())  # type: ignore[arg-type]


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip_of_every_family(tmp_path: Path, name: str, half: bool) -> None:
    """C4 shares a layer between its heads, and it has two names in the file."""
    model: Any = FAMILIES[name].build()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_((value + 0.125).half())
    spec = spec_of(model, builder=name)
    save_checkpoint(tmp_path / "model.safetensors", model, spec, half=half)
    loaded, found = load_checkpoint(tmp_path / "model.safetensors")
    assert_same_weights(loaded, model)
    assert found == spec


def test_a_shared_layer_with_two_values() -> None:
    model: Any = FAMILIES["mask_c4"].build()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    load_state(FAMILIES["mask_c4"].build(), state, "tied.pth")
    name = "roi_heads.mask_head.0.conv1.weight"
    state[name] += 1
    before = weights_digest(model)
    with pytest.raises(ModelFileError, match=rf"roi_heads\.box_head\.0\.0\.conv1\.weight and {name} differ"):
        load_state(model, state, "untied.pth")
    assert weights_digest(model) == before, "nothing was loaded"


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("theirs", [True, False])
def test_the_second_classifier_may_be_missing(ours: bool, theirs: bool) -> None:
    """Of a semantic model, for training alone."""
    source, model = (FAMILIES["semantic_fcn"].build() for _ in range(2))
    with torch.no_grad():
        for value in source.parameters():
            value.add_(0.5)
    state = source.state_dict()
    if not theirs:
        state = {name: value for name, value in state.items() if not name.startswith("aux_classifier.")}
    if not ours:
        model.aux_classifier = None  # type: ignore[assignment]
    load_state(model, dict(state), "weights.pth")
    for name, value in model.state_dict().items():
        if name in state:
            assert torch.equal(value, state[name]), name


def test_a_second_classifier_of_other_classes() -> None:
    model = FAMILIES["semantic_fcn"].build()
    state = model.state_dict()
    state["aux_classifier.4.bias"] = torch.zeros(21)
    with pytest.raises(ModelFileError, match=r": 1 tensors differ, .* aux_classifier\.4\.bias: expected \(6,\)"):
        load_state(model, dict(state), "other.pth")


def test_full_disk(model: MaskRCNN, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    with full_disk(10_000), pytest.raises(OutputError, match=r"model\.safetensors"):
        save_checkpoint(path, model, narrow_spec(model))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.99])
def test_a_truncated_checkpoint(checkpoint: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "short.safetensors"
    data = checkpoint.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match=r"short\.safetensors is no safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"page\.safetensors"):
        load_checkpoint(tmp_path / "page.safetensors")


def test_missing_checkpoints(tmp_path: Path) -> None:
    for read in (load_checkpoint, read_state):
        for name in ("missing.safetensors", "."):
            with pytest.raises(ModelFileError, match="cannot read"):
                read(tmp_path / name)
    with pytest.raises(ModelFileError, match=r"cannot read .*missing\.pth: No such file"):
        read_state(tmp_path / "missing.pth")


def test_safetensors_without_a_spec(model: MaskRCNN, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(ModelFileError, match="no edgemask spec") as caught:
        load_checkpoint(path)
    assert "--weights" in (caught.value.remedy or "")
    assert read_state(path).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        pytest.param({"builder": "maskrcnn_of_tomorrow"}, "maskrcnn_of_tomorrow", id="unknown builder"),
        pytest.param({"builder": None}, "which builder", id="no builder"),
        pytest.param({"builder_arguments": {"widths": [8, 16, 16, 10**9]}}, "widths", id="arguments beyond all memory"),
        pytest.param({"builder_arguments": {"num_classes": 3}}, "num_classes", id="arguments that clash"),
        pytest.param({"class_names": ("a", "b", "c"), "category_ids": ()}, "another architecture", id="other classes"),
        pytest.param({"builder_arguments": ARGUMENTS | {"head_width": 32}}, "another architecture", id="other width"),
    ],
)
def test_a_spec_that_does_not_fit(model: MaskRCNN, tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    save_checkpoint(tmp_path / "odd.safetensors", model, narrow_spec(model).replace(**change))
    with pytest.raises(ModelFileError, match=rf"odd\.safetensors.*{shown}"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_a_broken_spec_names_the_file(model: MaskRCNN, tmp_path: Path) -> None:
    safetensors.torch.save_file(model.state_dict(), tmp_path / "odd.safetensors", {SPEC_KEY: "{}"})
    with pytest.raises(ModelFileError, match=r"odd\.safetensors: specification"):
        load_checkpoint(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("wrapping", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
def test_foreign_state_dicts(model: MaskRCNN, tmp_path: Path, suffix: str, wrapping: str | None) -> None:
    path = tmp_path / f"weights{suffix}"
    state = model.state_dict()
    torch.save(state if wrapping is None else {wrapping: state, "epoch": 3}, path)
    fresh = narrow_model(seed=2)
    load_state(fresh, read_state(path), path)
    assert_same_weights(fresh, model)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04broken", bytes(100), b"\x80\x02]q\x00."])
def test_a_broken_state_dict(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.pth"):
        read_state(tmp_path / "broken.pth")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_state_dict(model: MaskRCNN, tmp_path: Path, share: float) -> None:
    whole = io.BytesIO()
    torch.save(model.state_dict(), whole)
    data = whole.getvalue()
    (tmp_path / "short.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match=r"short\.pth is no plain state dict"):
        read_state(tmp_path / "short.pth")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, torch.zeros(2), {"model": {"epoch": 3}}])
def test_a_file_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"other\.pth is no state dict of tensors"):
        read_state(tmp_path / "other.pth")


def test_weights_of_another_architecture(model: MaskRCNN) -> None:
    fresh = narrow_model(seed=2)
    before = weights_digest(fresh)
    state = narrow_model(head_width=32).state_dict()
    with pytest.raises(ModelFileError, match="another architecture") as caught:
        load_state(fresh, state, "other.pth")
    # Five layers depend on the width of the box head: fc6 (2 tensors), fc7 (2), two predictors' weights.
    assert ": 6 tensors differ" in caught.value.problem
    assert "roi_heads.box_head.fc6.weight: expected (16, 784), got (32, 784)" in caught.value.problem
    assert weights_digest(fresh) == before, "nothing was loaded"


def test_missing_and_surplus_weights(model: MaskRCNN) -> None:
    state = model.state_dict()
    state["surplus"] = state.pop("rpn.head.cls_logits.bias")
    with pytest.raises(
        ModelFileError, match=r": 2 tensors differ, .* rpn\.head\.cls_logits\.bias: expected \(3,\), got none"
    ):
        load_state(narrow_model(), state, "other.pth")


def test_frozen_normalisation_gives_and_takes_weights(model: MaskRCNN) -> None:
    """A model made from torchvision's weights has frozen layers, those of a builder by name are trainable."""

    def freeze(part: torch.nn.Module) -> None:
        for name, layer in part.named_children():
            if isinstance(layer, torch.nn.BatchNorm2d):
                setattr(part, name, FrozenBatchNorm2d(layer.num_features))
            freeze(layer)

    frozen = narrow_model(seed=2)
    freeze(frozen)
    assert not any(name.endswith("num_batches_tracked") for name in frozen.state_dict())
    load_state(frozen, model.state_dict(), "trained.pth")
    fresh = narrow_model(seed=3)
    load_state(fresh, frozen.state_dict(), "frozen.pth")
    image = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))]
    with torch.inference_mode():
        expected, found = model(image)[0], fresh(image)[0]
    torch.testing.assert_close(found["boxes"], expected["boxes"])


def test_load_model_takes_a_checkpoint(model: MaskRCNN, checkpoint: Path) -> None:
    loaded, spec = load_model(str(checkpoint), num_classes=3)
    assert_same_weights(loaded, model)
    assert spec.class_names == NAMES
    _, renamed = load_model(str(checkpoint), class_names=["__background__", "one", "two"])
    assert renamed.class_names == ("one", "two")
    assert renamed.category_ids == (7, 9)


def test_a_checkpoint_has_its_own_weights_and_classes(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="weights of its own"):
        load_model(str(checkpoint), weights="other.pth")
    with pytest.raises(UsageError, match="3 classes with the background, not 91"):
        load_model(str(checkpoint), num_classes=91)
    with pytest.raises(UsageError, match="1 class names for a model of 2"):
        load_model(str(checkpoint), class_names=["one"])


@pytest.mark.parametrize(
    ("builder", "remedy"),
    [
        (BUILDER, "add --weights FILE"),
        ("maskrcnn_resnet50_fpn", "add --weights FILE or --weights COCO_V1"),
        ("fcn_resnet50", "add --weights FILE or --weights COCO_WITH_VOC_LABELS_V1"),
    ],
)
def test_a_builder_without_weights(builder: str, remedy: str) -> None:
    with pytest.raises(UsageError, match="without weights would export random numbers") as caught:
        load_model(builder, num_classes=3)
    assert caught.value.remedy == remedy


def test_a_builder_with_a_file(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            load_model.__globals__["BUILDERS"], "narrow", lambda classes, **settings: narrow_model(classes, seed=4)
        )
        model = narrow_model(3, seed=5)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        for options in ({"num_classes": 3}, {"class_names": NAMES}, {"class_names": NAMES, "num_classes": 3}):
            loaded, spec = load_model("narrow", weights=tmp_path / "weights.pth", **options)  # type: ignore[arg-type]
            assert_same_weights(loaded, model)
            assert spec.builder == "narrow"
            assert len(spec.class_names) == 2
        _, spec = load_model("narrow", weights=tmp_path / "weights.pth")
        assert spec.class_names == ("class_1", "class_2"), "as many as the weights are for"
        torch.save({}, tmp_path / "empty.pth")
        with pytest.raises(UsageError, match=r"empty\.pth does not tell the number of classes") as caught:
            load_model("narrow", weights=tmp_path / "empty.pth")
        assert "--num-classes" in (caught.value.remedy or "")
        with pytest.raises(ModelFileError, match="another architecture"):
            load_model("narrow", weights=tmp_path / "weights.pth", num_classes=5)
        with pytest.raises(ModelFileError, match="cannot read"):
            load_model("narrow", weights=tmp_path / "nowhere.pth", num_classes=3)


def narrow_keypoints(num_classes: int, *, num_keypoints: int = 17) -> KeypointRCNN:
    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    return KeypointRCNN(
        BackboneWithFPN(compact_resnet((8, 8, 8, 8)), layers, [8] * 4, out_channels=16),
        box_head=TwoMLPHead(16 * 7**2, 16),
        box_predictor=FastRCNNPredictor(16, num_classes),
        keypoint_head=KeypointRCNNHeads(16, (16,)),
        keypoint_predictor=KeypointRCNNPredictor(16, num_keypoints),
    )


@pytest.mark.parametrize("count", [5, 17])
def test_the_number_of_keypoints_is_read_off_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int
) -> None:
    monkeypatch.setitem(BUILDERS, "keypoints", narrow_keypoints)  # type: ignore[arg-type]
    model = narrow_keypoints(3, num_keypoints=count)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded, spec = load_model("keypoints", weights=tmp_path / "weights.pth")
    assert_same_weights(loaded, model)
    assert (spec.tasks, spec.num_keypoints) == (("boxes", "keypoints"), count)
    assert (len(spec.class_names), spec.builder_arguments) == (2, {"num_keypoints": count})
    save_checkpoint(tmp_path / "model.safetensors", loaded, spec)
    again, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert_same_weights(again, model)


def test_keypoints_where_the_builder_has_none(tmp_path: Path) -> None:
    torch.save(narrow_keypoints(3).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelFileError, match="another architecture"):
        load_model(BUILDER, weights=tmp_path / "weights.pth")


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("name", ["semantic_fcn", "semantic_deeplab"])
def test_a_semantic_builder_with_a_file(tmp_path: Path, name: str) -> None:
    model = FAMILIES[name].build()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded, spec = load_model(name, weights=tmp_path / "weights.pth")
    assert_same_weights(loaded, model)
    assert (spec.tasks, len(spec.class_names), spec.builder) == (("semantic",), 5, name)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "users_own_models"
    (tmp_path / f"{name}.py").write_text(
        "from narrow import narrow_model\n"
        "def make(): return narrow_model(3, seed=6).train()\n"
        "def number(): return 5\n"
        "def semantic(): from families import FAMILIES; return FAMILIES['semantic_fcn'].build().train()\n"
        "def other(): from torchvision.models.segmentation import LRASPP; return LRASPP.__new__(LRASPP)\n"
        "def fails(): raise KeyError('anchors')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_of_the_user(package: str, model: MaskRCNN, checkpoint: Path, tmp_path: Path) -> None:
    made, spec = load_model(f"{package}:make", class_names=NAMES)
    assert_same_weights(made, narrow_model(3, seed=6))
    assert not made.training
    assert spec.builder is None
    assert spec.class_names == NAMES
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    for weights in (tmp_path / "weights.pth", checkpoint):
        made, spec = load_model(f"{package}:make", weights=weights)
        assert_same_weights(made, model)
        assert spec.source_sha256 == weights_digest(model)


def test_a_semantic_model_of_the_user(package: str) -> None:
    made, spec = load_model(f"{package}:semantic", class_names=list("abcde"))
    assert_same_weights(made, FAMILIES["semantic_fcn"].build())
    assert not made.training
    assert (spec.tasks, spec.class_names) == (("semantic",), tuple("abcde"))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{}:number", "returned a int"),
        ("{}:other", "returned a LRASPP"),
        ("{}:fails", "KeyError: 'anchors'"),
        ("{}:missing", "AttributeError"),
        ("nowhere.at_all:make", "ModuleNotFoundError"),
        (":make", "ValueError"),
    ],
)
def test_functions_that_give_no_model(package: str, source: str, shown: str) -> None:
    with pytest.raises(UsageError, match=shown):
        load_model(source.format(package))


def test_nothing_of_that_name() -> None:
    with pytest.raises(UsageError, match="'maskrcnn_compact' is no file and no builder") as caught:
        load_model("maskrcnn_compact")
    assert BUILDER in (caught.value.remedy or "")
    with pytest.raises(ModelFileError, match="cannot read"):
        load_model("nowhere.safetensors")


def test_a_state_dict_where_a_checkpoint_belongs(model: MaskRCNN, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelFileError, match=r"weights\.pth") as caught:
        load_model(str(tmp_path / "weights.pth"))
    assert "--weights" in (caught.value.remedy or "")


def test_detections_survive_the_round_trip(model: MaskRCNN, checkpoint: Path) -> None:
    image = [torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(2))]
    loaded, _ = load_checkpoint(checkpoint)
    with torch.inference_mode():
        expected, found = model(image)[0], loaded(image)[0]
    assert len(expected["boxes"]) > 0
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)
