"""What is put together from torchvision's parts."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.ops.misc import FrozenBatchNorm2d

from edgemask.checkpoints import load_state
from edgemask.models import BUILDERS, build, compact_resnet, mask_keypoint_rcnn, maskrcnn_resnet50_c4, parameter_count
from edgemask.models.pyramids import PYRAMIDS

IMAGE = torch.rand((3, 64, 64), generator=torch.Generator().manual_seed(0))
TINY = {"min_size": 64, "max_size": 64, "rpn_post_nms_top_n_test": 6, "box_detections_per_img": 3}


@pytest.fixture
def seeded() -> Iterator[None]:
    """Random weights are the same ones each time; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", PYRAMIDS)
def test_pyramids_begin_at_the_stride_4(name: str) -> None:
    with torch.device("meta"):
        pyramid = PYRAMIDS[name]().eval()
        maps = pyramid(torch.zeros((1, 3, 128, 192)))
    shapes = {level: tuple(map_.shape) for level, map_ in maps.items()}
    names = ("0", "1", "2", "3", "pool")
    assert shapes == {level: (1, 256, 32 >> number, 48 >> number) for number, level in enumerate(names)}
    assert pyramid.out_channels == 256


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_maps_of_a_mobilenet_are_the_last_of_their_stride(name: str) -> None:
    with torch.device("meta"):
        body = PYRAMIDS[name]().body
        sides, image = {}, torch.zeros((1, 3, 128, 128))
        for layer, block in body.items():
            image = block(image)
            sides[layer] = 128 // image.shape[-1]
    last = {stride: layer for layer, stride in sides.items()}
    assert body.return_layers == {last[stride]: str(level) for level, stride in enumerate((4, 8, 16, 32))}


def test_a_pyramid_has_an_anchor_size_for_each_map() -> None:
    with torch.device("meta"):
        for name in BUILDERS:
            if name.partition("_")[0] == "maskrcnn" and name.endswith("_fpn"):
                model = build(name, 3)
                maps = model.backbone(torch.zeros((1, 3, 64, 64)))
                assert len(model.rpn.anchor_generator.sizes) == len(maps), name


def test_normalisation_is_pytorchs_own() -> None:
    """torchvision's MobileNets by themselves have another epsilon than in its detection models."""
    with torch.device("meta"):
        layers = [m for m in PYRAMIDS["mobilenet_v3_large"]().modules() if isinstance(m, nn.BatchNorm2d)]
        assert mobilenet_v3_large().features[0][1].eps == 1e-3
    assert {layer.eps for layer in layers} == {1e-5}


@pytest.mark.usefixtures("seeded")
def test_a_state_dict_of_torchvisions_recipe_loads() -> None:
    """Frozen batch normalisation, as torchvision has it with a pretrained backbone."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d)
    theirs = MaskRCNN(backbone, 3, **TINY).eval()
    ours = build("maskrcnn_resnet18_fpn", 3, **TINY)
    load_state(ours, theirs.state_dict(), "theirs.pth")
    with torch.inference_mode():
        expected, found = theirs([IMAGE])[0], ours([IMAGE])[0]
    assert len(expected["boxes"]) > 0
    torch.testing.assert_close(found["boxes"], expected["boxes"])
    assert torch.equal(found["labels"], expected["labels"])


@pytest.mark.usefixtures("seeded")
def test_masks_and_keypoints_of_one_model() -> None:
    backbone = BackboneWithFPN(
        compact_resnet((8, 8, 8, 8)), {f"layer{n + 1}": str(n) for n in range(4)}, [8] * 4, out_channels=16
    )
    heads = {"keypoint_head": KeypointRCNNHeads(16, (16,)), "keypoint_predictor": KeypointRCNNPredictor(16, 5)}
    model = mask_keypoint_rcnn(backbone, 4, **heads, **TINY, box_score_thresh=0.0).eval()
    with torch.inference_mode():
        (found,) = model([IMAGE])
    count = len(found["boxes"])
    assert count > 0
    assert found["masks"].shape == (count, 1, 64, 64)
    assert found["keypoints"].shape == (count, 5, 3)
    assert found["keypoints_scores"].shape == (count, 5)


def test_c4_is_as_in_the_paper() -> None:
    with torch.device("meta"):
        model = maskrcnn_resnet50_c4(81)
        maps = model.backbone(torch.zeros((1, 3, 160, 96)))
        heads = model.roi_heads
        rois = torch.zeros((2, 1024, *heads.box_roi_pool.output_size))
        scores, deltas = heads.box_predictor(heads.box_head(rois))
        masks = heads.mask_predictor(heads.mask_head(rois))
    assert maps.shape == (1, 1024, 10, 6), "one map of the stride 16"
    assert heads.box_roi_pool.output_size == heads.mask_roi_pool.output_size == (14, 14)
    assert heads.box_head[0] is heads.mask_head, "boxes and masks share the fifth stage"
    assert model.rpn.anchor_generator.num_anchors_per_location() == [15]
    assert (scores.shape, deltas.shape, masks.shape) == ((2, 81), (2, 324), (2, 81, 14, 14))
    assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == (12_000, 2000)
    model.eval()
    assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == (3000, 300)
    assert heads.fg_bg_sampler.batch_size_per_image == 64


def test_c4_takes_the_whole_resnet() -> None:
    """All of it but its last layer is in the model, once."""
    with torch.device("meta"):
        model, net = maskrcnn_resnet50_c4(3), resnet50()
    own = parameter_count(model.backbone) + parameter_count(model.roi_heads.mask_head)
    assert own == parameter_count(net) - parameter_count(net.fc)


@pytest.mark.usefixtures("seeded")
def test_c4_detects() -> None:
    model = build("maskrcnn_resnet50_c4", 3, **TINY, box_score_thresh=0.0)
    with torch.inference_mode():
        model.roi_heads.box_predictor.bbox_pred.weight.zero_()  # those of a random model leave the image
        (found,) = model([IMAGE])
    assert 0 < len(found["boxes"]) <= 3
    assert found["masks"].shape == (len(found["boxes"]), 1, 64, 64)
