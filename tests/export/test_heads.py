"""Behind the proposals: masks of the predicted class alone, and pooling as torchvision's own module does it."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from edgemask.errors import UnsupportedModel
from edgemask.export.heads import BoxHead, KeypointHead, MaskHead, Pool

CHANNELS, CLASSES, CANVAS = 6, 5, (256, 320)
LABELS = torch.tensor([1, 4, 2, 2, 0, 3, 1])  # 0: a padded row
# Measured: 4e-7, by another order of sums. Logits are of about unit deviation.
TOLERANCE = 5e-6


class Given(nn.Module):
    """Stands in for a pooler: gives the map `0`, one for each roi."""

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        return features["0"][: len(rois)]


class Doubled(nn.Sequential):
    """A sequence with a forward of its own."""

    def forward(self, maps: Tensor) -> Tensor:
        return 2 * super().forward(maps)


class Wrapped(nn.Module):
    """A predictor that is no sequence."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class Squashed(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps).tanh()


def conv(*, kernel: int = 1, kind: type[nn.Conv2d] = nn.Conv2d, **settings: Any) -> nn.Conv2d:
    return kind(CHANNELS, CLASSES, kernel, **settings)


def transposed(kernel: Any = 2, *, stride: Any = 2, **settings: Any) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(CHANNELS, CHANNELS, kernel, stride=stride, **settings)


def hooked(predictor: nn.Sequential, index: int) -> nn.Sequential:
    predictor[index].register_forward_hook(lambda _, __, maps: maps * 3)
    return predictor


def one_activation_twice() -> nn.Sequential:
    """`named_children` gives the activation once."""
    activation = nn.Tanh()
    first, second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, activation, second, activation, conv())


def with_own_call(predictor: nn.Sequential, layer: nn.Module) -> nn.Sequential:
    own = layer.forward
    layer.forward = lambda maps: own(maps) + 1  # type: ignore[method-assign]
    return predictor


def with_hook(predictor: nn.Sequential, layer: nn.Module, *, before: bool) -> nn.Sequential:
    if before:
        layer.register_forward_pre_hook(lambda _, maps: (maps[0] - 1,))
    else:
        layer.register_forward_hook(lambda _, __, logits: logits * 3)
    return predictor


def on_last(change: Callable[..., nn.Sequential], **settings: Any) -> nn.Sequential:
    predictor = nn.Sequential(nn.ReLU(), conv())
    return change(predictor, predictor[-1], **settings)


def on_all(change: Callable[..., nn.Sequential], **settings: Any) -> nn.Sequential:
    predictor = nn.Sequential(nn.ReLU(), conv())
    return change(predictor, predictor, **settings)


FAST: dict[str, Callable[[], nn.Module]] = {
    "torchvision's": lambda: MaskRCNNPredictor(CHANNELS, 8, CLASSES),
    "without bias": lambda: nn.Sequential(nn.ReLU(), conv(bias=False)),
    "one layer": lambda: nn.Sequential(conv(padding="valid", dilation=2)),
    "one activation twice": one_activation_twice,
}
# A transposed convolution, by how it is told of: those of windows without overlap become a product.
UNFOLDED: dict[str, Callable[[], nn.Module]] = {
    "torchvision's": lambda: MaskRCNNPredictor(CHANNELS, 8, CLASSES),
    "without bias": lambda: nn.Sequential(transposed(bias=False), nn.ReLU(), conv()),
    "a block of 3x3": lambda: nn.Sequential(transposed(3, stride=3), nn.Tanh(), conv()),
    "no activation": lambda: nn.Sequential(transposed(), conv()),
    "two activations": lambda: nn.Sequential(transposed(), nn.SiLU(), nn.ReLU6(), conv()),
}
FOLDED: dict[str, Callable[[], nn.Module]] = {
    "a block that is not square": lambda: nn.Sequential(transposed((2, 3), stride=(2, 3)), nn.ReLU(), conv()),
    "overlap": lambda: nn.Sequential(transposed(4, stride=2, padding=1), nn.ReLU(), conv()),
    "gaps": lambda: nn.Sequential(transposed(2, stride=3), nn.ReLU(), conv()),
    "padding": lambda: nn.Sequential(transposed(2, stride=2, padding=1), nn.ReLU(), conv()),
    "output padding": lambda: nn.Sequential(transposed(2, stride=2, output_padding=1), nn.ReLU(), conv()),
    "dilation": lambda: nn.Sequential(transposed(2, stride=2, dilation=2), nn.ReLU(), conv()),
    "groups": lambda: nn.Sequential(transposed(2, stride=2, groups=2), nn.ReLU(), conv()),
    "a norm behind it": lambda: nn.Sequential(transposed(), nn.InstanceNorm2d(CHANNELS), conv()),
    "a convolution behind it": lambda: nn.Sequential(transposed(), nn.Conv2d(CHANNELS, CHANNELS, 3), conv()),
    "a hook behind it": lambda: hooked(nn.Sequential(transposed(), nn.ReLU(), conv()), 0),
    "a hook behind its activation": lambda: hooked(nn.Sequential(transposed(), nn.ReLU(), conv()), 1),
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(transposed()), nn.ReLU(), conv()),
}


GENERAL: dict[str, Callable[[], nn.Module]] = {
    "no sequence": lambda: Wrapped(nn.ReLU(), conv()),
    "a sequence of its own": lambda: Doubled(nn.ReLU(), conv()),
    "no last layer": lambda: nn.Sequential(),
    "an activation last": lambda: nn.Sequential(conv(), nn.Tanh()),
    "a sequence last": lambda: nn.Sequential(nn.ReLU(), nn.Sequential(conv())),
    "in groups": lambda: nn.Sequential(nn.Conv2d(CHANNELS, 10, 1), nn.Conv2d(10, CLASSES, 1, groups=5)),
    "3x3": lambda: nn.Sequential(nn.ReLU(), conv(kernel=3, padding=1)),
    "strided": lambda: nn.Sequential(nn.ReLU(), conv(stride=2)),
    "padded": lambda: nn.Sequential(nn.ReLU(), conv(padding=1)),
    "transposed": lambda: nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(CHANNELS, CLASSES, 1)),
    "a layer of its own": lambda: nn.Sequential(nn.ReLU(), conv(kind=Squashed)),
    "weight_norm": lambda: nn.Sequential(nn.ReLU(), parametrizations.weight_norm(conv())),
    "its last layer's call replaced": lambda: on_last(with_own_call),
    "its call replaced": lambda: on_all(with_own_call),
    "a hook before the last layer": lambda: on_last(with_hook, before=True),
    "a hook behind the last layer": lambda: on_last(with_hook, before=False),
    "a hook before it": lambda: on_all(with_hook, before=True),
    "a hook behind it": lambda: on_all(with_hook, before=False),
}


def maps_of(rois: int, channels: int = CHANNELS) -> dict[str, Tensor]:
    torch.manual_seed(rois)
    return {"0": torch.randn(rois, channels, 10, 10)}


@torch.no_grad()
def of_own_class(predictor: nn.Module, features: dict[str, Tensor]) -> tuple[MaskHead, Tensor, Tensor]:
    """The head, its logits, and those of all classes, of which each roi's own is taken."""
    head = MaskHead(Given(), nn.Identity(), predictor).eval()
    logits, masks = head(features, torch.zeros(len(LABELS), 5), LABELS)
    torch.testing.assert_close(masks, logits.sigmoid(), rtol=0, atol=0)
    return head, logits, predictor(features["0"])[torch.arange(len(LABELS)), LABELS]


@pytest.mark.parametrize("name", FAST)
def test_the_last_layer_is_computed_for_one_class(name: str) -> None:
    torch.manual_seed(1)
    head, logits, expected = of_own_class(FAST[name](), maps_of(len(LABELS)))
    assert head.last is not None
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)
    assert logits.std() > 0.1, "there is something to compare"


@pytest.mark.parametrize("name", UNFOLDED)
def test_a_transposed_convolution_without_overlap_is_a_product(name: str) -> None:
    torch.manual_seed(1)
    head, logits, expected = of_own_class(UNFOLDED[name](), maps_of(len(LABELS)))
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in head.modules())
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)
    assert logits.std() > 0.1, "there is something to compare"


@pytest.mark.parametrize("name", FOLDED)
def test_any_other_transposed_convolution_stays(name: str) -> None:
    torch.manual_seed(1)
    head, logits, expected = of_own_class(FOLDED[name](), maps_of(len(LABELS)))
    assert head.upsampling is None
    assert head.last is not None
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", GENERAL)
def test_any_other_predictor_is_computed_whole(name: str) -> None:
    torch.manual_seed(1)
    channels = CLASSES if name == "no last layer" else CHANNELS
    head, logits, expected = of_own_class(GENERAL[name](), maps_of(len(LABELS), channels))
    assert head.last is None
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)


def test_the_model_is_left_as_it_was_and_names_stay() -> None:
    predictor = MaskRCNNPredictor(CHANNELS, 8, CLASSES)
    names = list(predictor.state_dict())
    head = MaskHead(Given(), nn.Identity(), predictor)
    assert list(predictor.state_dict()) == names
    assert head.last is predictor.mask_fcn_logits
    assert [*head.state_dict()] == [
        "last.weight",
        "last.bias",
        "upsampling.conv5_mask.weight",
        "upsampling.conv5_mask.bias",
    ]


@pytest.mark.parametrize("predictor", [FAST["torchvision's"], GENERAL["no sequence"]])
def test_masks_of_nothing(predictor: Callable[[], nn.Module]) -> None:
    head = MaskHead(Given(), nn.Identity(), predictor()).eval()
    logits, masks = head(maps_of(0), torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert logits.shape == masks.shape
    assert logits.shape[0] == 0
    assert logits.shape[1] == logits.shape[2] > 0


def pyramid(*strides: int, names: str = "0123456") -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    rows, columns = CANVAS
    maps = [torch.randn(2, 3, rows // stride, columns // stride) for stride in strides]
    return OrderedDict(zip(names, maps, strict=False))


def boxes_of(count: int) -> list[Tensor]:
    """Boxes of two images, from tiny ones to the whole canvas."""
    torch.manual_seed(count)
    sides = 2 ** (torch.rand(count, 2) * 6 + 2)
    corners = torch.rand(count, 2) * 100
    boxes = torch.cat([corners, corners + sides], 1)
    return [boxes[: count // 3], boxes[count // 3 :]]


def rois_of(boxes: list[Tensor]) -> Tensor:
    return torch.cat([torch.cat([torch.full((len(own), 1), float(image)), own], 1) for image, own in enumerate(boxes)])


POOLED: dict[str, tuple[tuple[int, ...], list[str]]] = {
    "a pyramid": ((4, 8, 16, 32), ["0", "1", "2", "3"]),
    "names in another order": ((4, 8, 16), ["2", "0", "1"]),
    "one map": ((16,), ["0"]),
    "a part of the maps": ((4, 8, 16, 32, 64), ["1", "2", "3"]),
    "names that the model lacks": ((8, 16), ["0", "1", "2", "pool"]),
    "two maps of one stride": ((32, 32, 64), ["0", "1"]),  # torchvision's MobileNet, whose third is not pooled from
    "the last stride twice": ((8, 16, 16), ["0", "1", "2"]),
    "the first stride again": ((8, 16, 8), ["0", "1", "2"]),
}


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize(("size", "ratio"), [(7, 2), ((5, 3), -1)])
def test_pools_as_torchvision(name: str, size: Any, ratio: int) -> None:
    strides, names = POOLED[name]
    features, boxes = pyramid(*strides), boxes_of(60)
    settings: dict[str, Any] = {"canonical_scale": 56, "canonical_level": 4}
    pool = Pool(MultiScaleRoIAlign(names, size, ratio, **settings), features, CANVAS)
    expected = MultiScaleRoIAlign(names, size, ratio, **settings)(features, boxes, [CANVAS] * 2)
    torch.testing.assert_close(pool(features, rois_of(boxes)), expected, rtol=0, atol=0)
    assert expected.flatten(1).any(1).all(), "every roi was pooled"


@pytest.mark.parametrize(
    ("strides", "shown"),
    [
        ((8, 4), "8, 4"),
        ((16, 4), "16, 4"),
        ((16, 8, 4), "16, 8, 4"),
        ((8, 16, 4), "8, 16, 4"),
        ((4, 16), "4, 16"),
        ((4, 8, 32), "4, 8, 32"),
        ((4, 16, 8), "4, 16, 8"),
        ((32, 32, 64), "32, 32, 64"),
    ],
)
def test_other_strides_are_refused(strides: tuple[int, ...], shown: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"pools from maps of the strides {shown}\n") as caught:
        Pool(MultiScaleRoIAlign(["0", "1", "2"], 7, 2), pyramid(*strides), CANVAS)
    assert "the finest first" in str(caught.value.remedy)


def test_a_pooler_of_maps_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="from the maps p2, p3, the backbone gives 0, 1\n") as caught:
        Pool(MultiScaleRoIAlign(["p2", "p3"], 7, 2), pyramid(4, 8), CANVAS)
    assert "featmap_names" in str(caught.value.remedy)


@torch.no_grad()
def test_heads_are_their_layers_behind_the_pool() -> None:
    features, boxes = pyramid(4, 8), boxes_of(20)
    torch.manual_seed(2)
    pooler = MultiScaleRoIAlign(["0", "1"], 6, 2)
    pooled = pooler(features, boxes, [CANVAS] * 2)
    pool, rois = Pool(pooler, features, CANVAS), rois_of(boxes)
    box = TwoMLPHead(3 * 36, 8), FastRCNNPredictor(8, CLASSES)
    logits, deltas = box[1](box[0](pooled))
    found = BoxHead(pool, *box)(features, rois)
    torch.testing.assert_close(found, (logits, deltas), rtol=0, atol=0)
    keypoint = KeypointRCNNHeads(3, (4,)), KeypointRCNNPredictor(4, 5)
    heatmaps = keypoint[1](keypoint[0](pooled))
    torch.testing.assert_close(KeypointHead(pool, *keypoint)(features, rois), heatmaps, rtol=0, atol=0)
    mask = MaskRCNNHeads(3, (4,), 1), MaskRCNNPredictor(4, 4, CLASSES)
    labels = torch.arange(20) % CLASSES
    expected = mask[1](mask[0](pooled))[torch.arange(20), labels]
    torch.testing.assert_close(MaskHead(pool, *mask)(features, rois, labels)[0], expected, rtol=0, atol=TOLERANCE)
