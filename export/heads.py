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
    """

    def __init__(self, pool: nn.Module, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pool, self.head = pool, head
        self.predictor, self.last = _split(predictor)

    def forward(self, features: Mapping[str, Tensor], rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Takes feature maps by name, rois [M, 5] and labels [M]."""
        suppose_some(rois)
        maps = self.predictor(self.head(self.pool(features, rois)))
        if self.last is None:
            logits = maps[torch.arange(labels.shape[0], device=labels.device), labels]
        else:
            weights = self.last.weight.index_select(0, labels).flatten(1).unsqueeze(1)
            logits = torch.matmul(weights, maps.flatten(2)).view(-1, *maps.shape[2:])
            if self.last.bias is not None:
                logits = logits + self.last.bias.index_select(0, labels).view(-1, 1, 1)
        return logits, logits.sigmoid()


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
