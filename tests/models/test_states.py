"""What a state dict tells about its model."""

import pytest
import torch

from edgemask.models import BUILDERS, arguments_in, build, class_count_in

KEYPOINT_BIAS = "roi_heads.keypoint_predictor.kps_score_lowres.bias"


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_is_told_what_its_weights_are_for(name: str) -> None:
    keypoints = {"num_keypoints": 5} if "keypoint" in name else {}
    with torch.device("meta"):
        state = build(name, 7, **keypoints).state_dict()
    assert class_count_in(state) == 7
    assert arguments_in(state, name) == keypoints


def test_keypoints_are_told_only_to_whom_they_concern() -> None:
    state = {KEYPOINT_BIAS: torch.zeros(5)}
    assert arguments_in(state, "maskrcnn_resnet50_fpn") == {}
    assert arguments_in({}, "keypointrcnn_resnet50_fpn") == {}


def test_a_strangers_state_dict_tells_nothing() -> None:
    odd = {name: torch.zeros(()) for name in (KEYPOINT_BIAS, "classifier.4.bias")}
    assert class_count_in({}) is None
    assert class_count_in(odd) is None
    assert arguments_in(odd, "keypointrcnn_resnet50_fpn") == {}
