"""Keypoints are learnt, as many as the data have, beside boxes and masks or without masks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from narrow import ARGUMENTS, narrow_model
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from training_runs import rows_of

from edgemask.checkpoints import load_checkpoint
from edgemask.errors import DatasetError
from edgemask.models import BUILDERS
from edgemask.scenes import write_scenes
from edgemask.training import TrainingPlan, evaluate, train

BUILDER = "maskkeypointrcnn_narrow_fpn"


def narrow_with_keypoints(num_classes: int, num_keypoints: int = 17, *, masks: bool = True) -> MaskRCNN:
    """The narrow model with a keypoint branch beside, or in place of, that of masks."""
    model = narrow_model(num_classes, rpn_post_nms_top_n_train=50, box_batch_size_per_image=16)
    heads = model.roi_heads
    heads.keypoint_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
    heads.keypoint_head = KeypointRCNNHeads(ARGUMENTS["pyramid_channels"], (16,))
    heads.keypoint_predictor = KeypointRCNNPredictor(16, num_keypoints)
    if not masks:
        heads.mask_roi_pool = heads.mask_head = heads.mask_predictor = None
    return model


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four scenes with two keypoints for each object, at the left and the right of its box."""
    monkeypatch.setitem(BUILDERS, BUILDER, narrow_with_keypoints)  # type: ignore[arg-type]
    path = write_scenes(tmp_path / "scenes", 4, seed=1, size=64)
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["keypoints"] = ["left_end", "right_end"]
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry |= {"keypoints": [x, y + height / 2, 2, x + width - 1, y + height / 2, 2], "num_keypoints": 2}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("masks", [True, False])
def test_keypoints_are_learnt(data: Path, tmp_path: Path, *, masks: bool) -> None:
    plan = TrainingPlan(
        model=BUILDER, arguments={"masks": masks}, epochs=14, batch_size=2, learning_rate=1e-2, warmup_steps=0
    )
    if not masks:  # nor outlines
        content = json.loads(data.read_text())
        for entry in content["annotations"]:
            del entry["segmentation"]
        data.write_text(json.dumps(content))
    places: dict[str, Any] = {"curve": tmp_path / "log", "val_images": data.parent / "images", "val_annotations": data}
    report = train(data.parent / "images", data, tmp_path / "m.safetensors", plan, workers=0, **places)
    assert report.metrics is not None
    assert tuple(report.metrics) == ("boxes", *(["masks"] if masks else []), "keypoints")
    _, spec = load_checkpoint(report.checkpoint)
    assert spec.num_keypoints == 2, "as many as the data have"
    assert spec.builder_arguments == {"masks": masks, "num_keypoints": 2}
    rows = rows_of(tmp_path / "log")
    assert float(rows[-1]["loss_keypoint"]) < 0.95 * float(rows[0]["loss_keypoint"])
    judged = "masks_ap" if masks else "keypoints_ap"
    aps = [float(row[judged]) for row in rows]
    assert report.best_epoch == 1 + aps.index(max(aps))


def test_other_numbers_of_keypoints(data: Path, tmp_path: Path) -> None:
    plan = TrainingPlan(model=BUILDER, arguments={"num_keypoints": 3}, epochs=1, batch_size=2)
    with pytest.raises(DatasetError, match="2 keypoints an object, the model 3"):
        train(data.parent / "images", data, tmp_path / "m.safetensors", plan, workers=0)
    two = dataclasses.replace(plan, arguments={})
    report = train(data.parent / "images", data, tmp_path / "m.safetensors", two, workers=0)
    content = json.loads(data.read_text())
    for category in content["categories"]:
        category["keypoints"] = ["left_end", "middle", "right_end"]
    data.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="3 keypoints an object, the model 2"):
        evaluate(report.checkpoint, data.parent / "images", data)
