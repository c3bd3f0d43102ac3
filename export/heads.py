"""The stages behind the proposals: each pools its rois from the pyramid and runs a trained head over them."""

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask
from edgemask.errors import UnsupportedModel
from edgemask.reference import pooling_scales

# They do the same to every number, wherever it stands.
_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh),
    nn.Identity,
)


class BoxHead(nn.Module):
    """Pools the proposals and scores them: class logits [R, C] and box deltas [R, 4 C], background first."""

    def __init__(self, pool: nn.Module, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pool, self.head, self.predictor = pool, head, predictor

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Takes feature maps by name and rois [R, 5]."""
        suppose_some(rois)
        logits, deltas = self.predictor(self.head(self.pool(features, rois)))
        return logits, deltas


class MaskHead(nn.Module):
    """Pools the detections; mask logits [M, S, S] of each one's own class, and probabilities [M, S, S].

    A last layer of 1x1 convolution, as torchvision's predictor has it, is computed for that class alone. Measured for
    100 detections of 91 classes, 256 channels, on one thread: 47 -> 8 ms in ONNX Runtime, 89 -> 35 ms in OpenVINO; for
    20 of 6 classes, 64 channels, 1.0 -> 0.3 and 2.1 -> 1.5 ms.

    A transposed convolution before it whose windows do not overlap, torchvision's again, gives each input pixel a block
    of output pixels that nothing else adds to. It is computed as a 1x1 convolution with the pixels of the block as
    channels; only the logits are put in their places. That is a plain product, which libraries have fast, and in INT8.
    """

    def __init__(self, pool: nn.Module, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pool, self.head = pool, head
        self.predictor, self.last = _split(predictor)
        self.upsampling, self.block = (None, 1) if self.last is None else _unfolded(self.predictor)
        if self.upsampling is not None:
            self.predictor = nn.Identity()

    def forward(self, features: Mapping[str, Tensor], rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Takes feature maps by name, rois [M, 5] and labels [M]."""
        suppose_some(rois)
        maps = self.head(self.pool(features, rois))
        if self.last is None:
            logits = self.predictor(maps)[torch.arange(labels.shape[0], device=labels.device), labels]
        else:
            logits = self._of_own_class(self.last, maps, labels)
        return logits, logits.sigmoid()

    def _of_own_class(self, last: nn.Conv2d, maps: Tensor, labels: Tensor) -> Tensor:
        maps = self.predictor(maps) if self.upsampling is None else self.upsampling(maps)
        pixels, (height, width) = self.block * self.block, maps.shape[2:]
        weights = last.weight.index_select(0, labels).view(-1, 1, 1, last.in_channels)
        by_pixel = maps.view(-1, pixels, last.in_channels, height * width)
        logits = torch.matmul(weights, by_pixel).view(-1, pixels, height, width)
        logits = nn.functional.pixel_shuffle(logits, self.block).squeeze(1)
        if last.bias is not None:
            logits = logits + last.bias.index_select(0, labels).view(-1, 1, 1)
        return logits


def _split(predictor: nn.Module) -> tuple[nn.Module, nn.Conv2d | None]:
    """A sequence without its last layer, and that layer, if it is a plain 1x1 convolution of all channels."""
    if not isinstance(predictor, nn.Sequential) or type(predictor).forward is not nn.Sequential.forward:
        return predictor, None
    last = predictor[-1] if len(predictor) else None
    if type(last) is not nn.Conv2d or last.groups != 1 or last.kernel_size != (1, 1):
        return predictor, None
    if last.stride != (1, 1) or last.padding not in ((0, 0), "valid"):
        return predictor, None
    if any("forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks for layer in (predictor, last)):
        return predictor, None  # somebody's own code around the call, such as weight_norm's
    # Not `named_children`, which gives a layer that comes twice, such as one ReLU behind each convolution, once.
    return nn.Sequential(OrderedDict([*predictor._modules.items()][:-1])), last


def _unfolded(predictor: nn.Module) -> tuple[nn.Module | None, int]:
    """A transposed convolution without overlap and the activations behind it, as a 1x1 convolution; and its block.

    The block is square, and its side is given. Channels of the result are first by pixel of the block, row by row, then
    by channel.
    """
    layers = list(predictor._modules.items()) if isinstance(predictor, nn.Sequential) else []
    if not layers or not all(type(layer) in _POINTWISE for _, layer in layers[1:]):
        return None, 1
    name, first = layers[0]
    if type(first) is not nn.ConvTranspose2d or first.stride != first.kernel_size or first.groups != 1:
        return None, 1
    side = first.kernel_size[0]
    if first.kernel_size != (side, side):
        return None, 1
    if set(first.padding) | set(first.output_padding) != {0} or first.dilation != (1, 1):
        return None, 1
    if any("forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks for _, layer in layers):
        return None, 1
    weight, bias = first.weight.detach(), None if first.bias is None else first.bias.detach()
    unfolded = nn.Conv2d(first.in_channels, side * side * first.out_channels, 1, bias=bias is not None)
    unfolded.weight = nn.Parameter(weight.permute(2, 3, 1, 0).reshape(-1, first.in_channels, 1, 1).contiguous())
    if bias is not None:
        unfolded.bias = nn.Parameter(bias.repeat(side * side))
    return nn.Sequential(OrderedDict([(name, unfolded), *layers[1:]])).train(first.training), side


class KeypointHead(nn.Module):
    """Pools the detections; heatmaps [M, K, S, S] of logits, which `edgemask.keypoints` decodes."""

    def __init__(self, pool: nn.Module, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pool, self.head, self.predictor = pool, head, predictor

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Takes feature maps by name and rois [M, 5]."""
        suppose_some(rois)
        heatmaps: Tensor = self.predictor(self.head(self.pool(features, rois)))
        return heatmaps


class Pool(nn.Module):
    """A trained model's `MultiScaleRoIAlign` as the custom op, its scales fixed.

    Args:
        pooler: the model's own.
        features: example maps [B, C, Hi, Wi] by name.
        canvas: (H, W) that they were made from.

    Raises:
        UnsupportedModel: no map that the pooler takes, or maps whose strides torchvision's choice of a level does not
            fit.
    """

    def __init__(self, pooler: MultiScaleRoIAlign, features: Mapping[str, Tensor], canvas: tuple[int, int]) -> None:
        super().__init__()
        names = [name for name in features if name in pooler.featmap_names]
        if not names:
            raise UnsupportedModel(
                f"a head pools from the maps {', '.join(pooler.featmap_names)}, "
                f"the backbone gives {', '.join(features)}",
                "name the backbone's maps in the pooler's featmap_names",
            )
        scales = pooling_scales(pooler, features, canvas)
        # torchvision tells its levels apart by the first and the last scale alone. Of two maps of the same stride, as
        # its MobileNets have them, the second is never pooled from.
        used = round(math.log2(scales[0] / scales[-1])) + 1
        if used < 1 or scales[:used] != [scales[0] / 2**level for level in range(used)]:
            raise UnsupportedModel(
                f"a head pools from maps of the strides {', '.join(f'{1 / scale:g}' for scale in scales)}",
                "give maps whose strides double from one to the next, the finest first",
            )
        self.names, self.scales = names[:used], scales[:used]
        self.size = pooler.output_size
        self.sampling_ratio = max(pooler.sampling_ratio, 0)
        self.canonical_scale, self.canonical_level = float(pooler.canonical_scale), pooler.canonical_level

    def forward(self, features: Mapping[str, Tensor], rois: Tensor) -> Tensor:
        """Gives [R, C, h, w]."""
        pooled: Tensor = torch.ops.edgemask.multi_scale_roi_align(
            [feature for name, feature in features.items() if name in self.names],
            rois,
            *self.size,
            self.sampling_ratio,
            self.scales,
            self.canonical_scale,
            self.canonical_level,
            "output_half_pixel",
        )
        return pooled


def suppose_some(rois: Tensor) -> None:
    """Tells the tracer that there are rois: it would have to know before it traces a convolution over them.

    Only the tracer is told. The graph is the same for none, which the operators of ONNX allow.
    """
    if torch.compiler.is_exporting():
        torch._check(rois.shape[0] > 0)
