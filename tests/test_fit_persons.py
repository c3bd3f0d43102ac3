"""The fit of a model on photographs of persons: what it takes for a target, and what it writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from script_files import script_module
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

from edgemask.checkpoints import load_checkpoint
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.errors import DatasetError
from edgemask.models import BUILDERS, mask_keypoint_rcnn

NARROW = "maskkeypointrcnn_narrow"
HEIGHT, WIDTH = 64, 96
PERSON = 1
BOX = [30, 10, 20, 40]  # x, y, width, height
OUTLINE = [[30, 10, 50, 10, 50, 50, 30, 50]]
NOSE, LEFT_EYE, RIGHT_EYE = 0, 1, 2


SMALL = {"min_size": 64, "max_size": 96, "box_detections_per_img": 3}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with script_module("scripts/fit_persons.py") as module:
        yield module


def narrow(num_classes: int, **settings: Any) -> KeypointRCNN:
    """As the builders' models, with few channels in pyramid and keypoint head."""
    channels = 16
    net = resnet18(weights=None, norm_layer=nn.BatchNorm2d)
    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    backbone = BackboneWithFPN(net, layers, [64, 128, 256, 512], channels)
    return mask_keypoint_rcnn(
        backbone,
        num_classes,
        keypoint_head=KeypointRCNNHeads(channels, (channels,)),
        keypoint_predictor=KeypointRCNNPredictor(channels, 17),
        **settings,
    )


def person(identity: int, **changes: Any) -> dict[str, Any]:
    """One whose nose and left eye are marked, the eye as hidden."""
    points = np.zeros((17, 3), int)
    points[NOSE], points[LEFT_EYE] = (40, 15, 2), (43, 13, 1)
    entry = {"id": identity, "image_id": 1, "category_id": PERSON, "bbox": BOX, "segmentation": OUTLINE, "iscrowd": 0}
    return entry | {"keypoints": points.ravel().tolist(), "num_keypoints": 2} | changes


def document() -> dict[str, Any]:
    """A person with keypoints, one without, a crowd and one of no width in the first image; nobody in the second."""
    nothing = [0] * 51
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, 100, HEIGHT * WIDTH - 100]}
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": PERSON, "name": "person"}],
        "annotations": [
            person(1),
            person(2, keypoints=nothing, num_keypoints=0, bbox=[60, 20, 10, 10]),
            person(3, iscrowd=1, segmentation=crowd),
            person(4, bbox=[5, 5, 0.5, 9]),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def photographs(script: ModuleType, folder: Path, content: dict[str, Any]) -> Any:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return script.read_photographs(CocoDataset(folder, read_annotations(path)), PERSON)


def run(script: ModuleType, folder: Path, content: dict[str, Any], *options: str) -> int:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    output = str(folder / "persons.safetensors")
    return script.main(["--images", str(folder), "--annotations", str(path), "-o", output, "--steps", "2", *options])


@pytest.mark.parametrize("options", [[], ["--bfloat16"]], ids=["float32", "bfloat16"])
def test_two_steps(
    script: ModuleType, folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(BUILDERS, NARROW, narrow)  # type: ignore[arg-type]
    for name, value in SMALL.items():
        monkeypatch.setitem(script.ARGUMENTS, name, value)
    with torch.random.fork_rng(devices=[]):
        assert run(script, folder, document(), "--model", NARROW, *options) == 0
    assert "2 photographs, 2 persons, 1 of them with keypoints" in capsys.readouterr().out
    model, spec = load_checkpoint(folder / "persons.safetensors")
    assert spec.tasks == ("boxes", "masks", "keypoints")
    assert spec.num_keypoints == 17
    assert spec.class_names == ("person",)
    assert spec.category_ids == (PERSON,)
    assert spec.builder == NARROW
    assert (spec.min_size, spec.max_size, spec.max_detections) == tuple(SMALL.values())
    found = model([torch.rand(3, HEIGHT, WIDTH)])[0]
    assert found["keypoints"].shape[1:] == (17, 3)
    assert found["masks"].shape[1:] == (1, HEIGHT, WIDTH)
    name = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    fresh = narrow(2).state_dict()[name]
    with torch.random.fork_rng(devices=[]):
        start = ["--weights", str(folder / "persons.safetensors")]
        assert run(script, folder, document(), "--model", NARROW, "--steps", "1", *start, *options) == 0
    again = load_checkpoint(folder / "persons.safetensors")[0].state_dict()[name]
    assert torch.allclose(again, model.state_dict()[name], atol=1e-3), "it started from what was fitted before"
    assert not torch.allclose(again, fresh, atol=1e-2)


def test_what_is_a_target(script: ModuleType, folder: Path) -> None:
    first, second = photographs(script, folder, document())
    target = script.target_of(first)
    assert target["boxes"].tolist() == [[30, 10, 50, 50], [60, 20, 70, 30]], "no crowd, nobody without a width"
    assert target["labels"].tolist() == [1, 1]
    assert target["masks"].dtype == torch.uint8
    assert target["masks"].sum((1, 2)).tolist() == [800, 800]
    assert target["keypoints"][0, [NOSE, LEFT_EYE]].tolist() == [[40, 15, 2], [43, 13, 1]]
    assert target["keypoints"][0, RIGHT_EYE:].count_nonzero() == 0
    assert target["keypoints"][1].count_nonzero() == 0, "a person without keypoints has no target for them"
    empty = script.target_of(second)
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, HEIGHT, WIDTH)
    assert empty["keypoints"].shape == (0, 17, 3)


def test_mirrored(script: ModuleType, folder: Path) -> None:
    first = photographs(script, folder, document())[0]
    mirrored = script.flipped(first)
    assert mirrored.boxes.tolist() == [[46, 10, 66, 50], [26, 20, 36, 30]]
    rows, columns = torch.nonzero(mirrored.masks[0], as_tuple=True)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (46, 66, 10, 50)
    assert mirrored.keypoints[0, NOSE].tolist() == [WIDTH - 1 - 40, 15, 2]
    assert mirrored.keypoints[0, RIGHT_EYE].tolist() == [WIDTH - 1 - 43, 13, 1], "the left eye is a right one now"
    assert mirrored.keypoints[0, LEFT_EYE].tolist() == [0, 0, 0], "what is not marked stays so"
    assert torch.equal(mirrored.image[:, :, 0], first.image[:, :, -1])
    again = script.flipped(mirrored)
    for name in ("image", "boxes", "masks", "keypoints"):
        assert torch.equal(getattr(again, name), getattr(first, name)), name


def test_batches_have_persons_and_others(script: ModuleType, folder: Path) -> None:
    found = photographs(script, folder, document())
    batch = next(script.batches(found))
    assert [len(photograph.boxes) for photograph in batch] == [2, 2, 2, 0]
    alone = next(script.batches(found[:1]))
    assert [len(photograph.boxes) for photograph in alone] == [2, 2, 2, 2]


def without_keypoints(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        del entry["keypoints"]


def nothing_marked(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["keypoints"] = [0] * 51


def too_few(content: dict[str, Any]) -> None:
    content["annotations"][0]["keypoints"] = [1, 2, 2] * 5


def nobody(content: dict[str, Any]) -> None:
    content["categories"][0]["name"] = "dog"


def another_size(content: dict[str, Any]) -> None:
    content["images"][0]["width"] = WIDTH + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_keypoints, r"a\.png: keypoints: .*got an annotation without\n.*person_keypoints"),
        (nothing_marked, r"no person in .* has a keypoint that is marked\n.*person_keypoints"),
        (too_few, r"a\.png: keypoints: expected a list of 51 entries"),
        (another_size, r"a\.png: height and width: .*\(64, 96\), got \(64, 97\)"),
    ],
)
def test_refuses_annotations(script: ModuleType, folder: Path, change: Any, message: str) -> None:
    content = document()
    change(content)
    with pytest.raises(DatasetError, match=message):
        photographs(script, folder, content)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without_keypoints, [], "keypoints"),
        (nobody, [], "has the classes dog\nexpected one named person"),
        (None, ["--model", "maskrcnn_resnet18_fpn"], "finds boxes, masks"),
        (None, ["--minutes", "0"], "--minutes: expected a number"),
    ],
)
def test_says_what_is_wrong(
    script: ModuleType, folder: Path, change: Any, options: list[str], message: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setitem(BUILDERS, NARROW, narrow)
    content = document()
    if change is not None:
        change(content)
    with torch.random.fork_rng(devices=[]):
        assert run(script, folder, content, *(options or ["--model", NARROW])) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (folder / "persons.safetensors").exists()
