"""Weights to start from, with the same classes or with others."""

from pathlib import Path

import pytest
import torch
from narrow import BUILDER, narrow_model

from edgemask.errors import ModelFileError
from edgemask.training import starting
from edgemask.training.starting import start_from

ANEW = (
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.cls_score.bias",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.box_predictor.bbox_pred.bias",
    "roi_heads.mask_predictor.mask_fcn_logits.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.bias",
)


@pytest.mark.parametrize(("classes", "anew"), [(6, ()), (3, ANEW)])
def test_all_weights_or_all_but_those_of_classes(tmp_path: Path, classes: int, anew: tuple[str, ...]) -> None:
    source = narrow_model(classes, seed=1).state_dict()
    torch.save(source, tmp_path / "start.pth")
    model = narrow_model(6, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert start_from(model, BUILDER, tmp_path / "start.pth") == anew
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in anew else source[name])


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(narrow_model(3, pyramid_channels=24).state_dict(), tmp_path / "start.pth")
    with pytest.raises(ModelFileError, match=r"start\.pth are for another architecture"):
        start_from(narrow_model(6), BUILDER, tmp_path / "start.pth")


def test_weights_that_torchvision_has(monkeypatch: pytest.MonkeyPatch) -> None:
    published = narrow_model(91, seed=1)
    monkeypatch.setattr(starting, "weight_names", lambda builder: ("COCO_V1",))
    monkeypatch.setattr(starting, "fetch", lambda builder, weights: (published, ("person",)))
    model = narrow_model(3, seed=2)
    assert start_from(model, BUILDER, Path("COCO_V1")) == ANEW, "as the command line gives it"
    name = "backbone.body.stem.0.0.weight"
    assert torch.equal(model.state_dict()[name], published.state_dict()[name])


def test_weights_of_the_backbone_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(starting, "load_backbone", lambda model, builder, weights: asked.append((builder, weights)))
    assert start_from(narrow_model(3), "maskrcnn_resnet18_fpn", Path("IMAGENET1K_V1")) == ()
    assert asked == [("maskrcnn_resnet18_fpn", "IMAGENET1K_V1")]
