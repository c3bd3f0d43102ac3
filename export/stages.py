"""The stages of the exported graph: trained layers as they are, data-dependent steps restated around the custom ops.

torchvision's own forward loops over images and data and cannot be traced. Each stage is a module, so that the nodes of
the graph are named after it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import MultiScaleRoIAlign

import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask
from edgemask.ops import floor32

# Scores are at least 0. What must not take part gets this one, and what takes part lies above the line.
ABSENT, PRESENT = -1.0, -0.5


class Resize(nn.Module):
    """Images float32 [B, 3, H, W] in 0-255 -> normalised, with zeros outside each image's true size."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        deviation = torch.tensor(std, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * deviation)).float())
        self.register_buffer("shift", (-torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1) / deviation).float())

    def forward(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """Gives the backbone's input; `image_sizes` is int64 [B, 2] (H, W)."""
        rows = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
        columns = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
        inside = (rows < image_sizes[:, 0].view(-1, 1, 1, 1)) & (columns < image_sizes[:, 1].view(-1, 1, 1, 1))
        return torch.where(inside, images * self.scale + self.shift, 0.0)


class Anchors(nn.Module):
    """Anchors of every level as torchvision's `AnchorGenerator` lays them on a canvas."""

    def __init__(self, cells: Sequence[Tensor]) -> None:
        super().__init__()
        for level, cell in enumerate(cells):
            self.register_buffer(f"cell_{level}", cell.float())

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Gives float32 [Hi * Wi * A, 4] per level; strides are whole pixels of canvas per cell, as torchvision's."""
        levels = []
        for level, feature in enumerate(features):
            height, width = feature.shape[-2:]
            stride_y, stride_x = images.shape[-2] // height, images.shape[-1] // width
            y = (torch.arange(height, device=feature.device) * stride_y).float().view(-1, 1).expand(height, width)
            x = (torch.arange(width, device=feature.device) * stride_x).float().view(1, -1).expand(height, width)
            shifts = torch.stack([x, y, x, y], 2).view(height * width, 1, 4)
            levels.append((shifts + self.get_buffer(f"cell_{level}")).view(-1, 4))
        return levels


class FixedAnchors(nn.Module):
    """Anchors of a fixed canvas, as the model's own generator made them."""

    def __init__(self, anchors: Sequence[Tensor]) -> None:
        super().__init__()
        self.levels = len(anchors)
        for level, boxes in enumerate(anchors):
            self.register_buffer(f"level_{level}", boxes.float())

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Gives float32 [Hi * Wi * A, 4] per level."""
        return [self.get_buffer(f"level_{level}") for level in range(self.levels)]


class Candidates(nn.Module):
    """Best anchors of every level, moved by their deltas and clipped: torchvision's `filter_proposals` before NMS."""

    def __init__(self, coder: BoxCoder, top_n: int, min_size: float, score_threshold: float) -> None:
        super().__init__()
        self.coder, self.top_n, self.min_size, self.score_threshold = coder, top_n, min_size, score_threshold

    def forward(
        self, objectness: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gives scores [B, N], boxes [B, N, 4] in canvas pixels and the level [N] of each candidate."""
        all_scores, all_boxes, all_levels = [], [], []
        for level, (logits, delta, boxes) in enumerate(zip(objectness, deltas, anchors, strict=True)):
            batch, per_cell = logits.shape[:2]
            logits = logits.permute(0, 2, 3, 1).flatten(1)
            delta = delta.view(batch, per_cell, 4, *delta.shape[2:]).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
            top_logits, index = logits.topk(torch.sym_min(self.top_n, boxes.shape[0]), dim=1)
            delta = delta.gather(1, index[:, :, None].expand(-1, -1, 4))
            moved = self.coder.decode_single(delta.reshape(-1, 4), boxes[index].reshape(-1, 4))
            all_scores.append(top_logits.sigmoid())
            all_boxes.append(moved.view(batch, -1, 4))
            all_levels.append(torch.full_like(index[0], level))
        boxes = clip(torch.cat(all_boxes, 1), image_sizes[:, None])
        scores = torch.cat(all_scores, 1)
        valid = large_enough(boxes, self.min_size) & (scores >= self.score_threshold)
        return torch.where(valid, scores, ABSENT), boxes, torch.cat(all_levels)


class Rpn(nn.Module):
    """The trained proposal head, its anchors, and the candidates of all levels."""

    def __init__(self, head: nn.Module, anchors: nn.Module, candidates: Candidates) -> None:
        super().__init__()
        self.head, self.anchors, self.candidates = head, anchors, candidates

    def forward(
        self, images: Tensor, image_sizes: Tensor, features: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Gives objectness logits [B, A, Hi, Wi] and deltas [B, 4 A, Hi, Wi] by level, and what `Candidates` gives."""
        objectness, deltas = self.head(features)
        found = self.candidates(objectness, deltas, self.anchors(images, features), image_sizes)
        return objectness, deltas, found


class Proposals(nn.Module):
    """NMS within each level, then the best over all levels: rois [R, 5], by image, then by descending score."""

    def __init__(self, levels: int, nms_threshold: float, top_n: int) -> None:
        super().__init__()
        self.levels, self.nms_threshold, self.top_n = levels, floor32(nms_threshold), top_n

    def forward(self, scores: Tensor, boxes: Tensor, level: Tensor) -> Tensor:
        """Takes what `Candidates` gives."""
        own = level == torch.arange(self.levels, device=level.device)[:, None]
        by_level = torch.where(own, scores[:, None], ABSENT)
        kept = torch.ops.edgemask.batched_nms(boxes, by_level, self.nms_threshold, PRESENT, self.top_n)
        image, index = best_per_image(scores, kept[:, 0], kept[:, 2], self.top_n)
        return torch.cat([image[:, None].to(boxes.dtype), boxes[image, index]], 1)


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


class Detect(nn.Module):
    """From scored proposals to detections: torchvision's `postprocess_detections` for all images at once."""

    def __init__(self, coder: BoxCoder, score_threshold: float, nms_threshold: float, limit: int) -> None:
        super().__init__()
        self.coder, self.limit = coder, limit
        self.score_threshold, self.nms_threshold = max(score_threshold, PRESENT), floor32(nms_threshold)

    def forward(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gives the detections as rois [M, 5], their scores [M] and labels [M], and the NMS's own selection [K, 3]."""
        classes = logits.shape[1] - 1
        scores = logits.softmax(-1)[:, 1:]
        image = rois[:, 0].long()
        boxes = self.coder.decode_single(deltas[:, 4:], rois[:, 1:]).view(-1, classes, 4)
        boxes = clip(boxes, image_sizes[image][:, None])
        scores = torch.where(large_enough(boxes, 1e-2), scores, ABSENT)
        own = image == torch.arange(image_sizes.shape[0], device=image.device)[:, None]
        # The op shares boxes between the classes of an image; here they differ by class and are shared by images.
        by_image = torch.where(own, scores.t()[:, None], ABSENT)
        kept = torch.ops.edgemask.batched_nms(
            boxes.transpose(0, 1), by_image, self.nms_threshold, self.score_threshold, self.limit
        )
        flat = scores.reshape(1, -1).expand(image_sizes.shape[0], -1)
        image, index = best_per_image(flat, kept[:, 1], kept[:, 2] * classes + kept[:, 0], self.limit)
        found = torch.cat([image[:, None].to(boxes.dtype), boxes.reshape(-1, 4)[index]], 1)
        return found, scores.reshape(-1)[index], index % classes + 1, kept


class MaskHead(nn.Module):
    """Pools the detections; mask logits [M, C, S, S] of all classes, probabilities [M, S, S] of each one's own."""

    def __init__(self, pool: nn.Module, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.pool, self.head, self.predictor = pool, head, predictor

    def forward(self, features: Mapping[str, Tensor], rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Takes feature maps by name, rois [M, 5] and labels [M]."""
        suppose_some(rois)
        logits: Tensor = self.predictor(self.head(self.pool(features, rois)))
        return logits, logits[torch.arange(labels.shape[0], device=labels.device), labels].sigmoid()


class Pool(nn.Module):
    """A trained model's `MultiScaleRoIAlign` as the custom op, its scales fixed."""

    def __init__(self, pooler: MultiScaleRoIAlign, scales: Sequence[float]) -> None:
        super().__init__()
        self.names = list(pooler.featmap_names)
        self.size = pooler.output_size
        self.sampling_ratio = max(pooler.sampling_ratio, 0)
        self.scales = [float(scale) for scale in scales]
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


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [..., 4] cut at the borders of their images; `sizes` [..., 2] (H, W) must broadcast against them."""
    limits = sizes.flip(-1).to(boxes.dtype)
    corners = boxes.view(*boxes.shape[:-1], 2, 2).clamp(min=0)
    return torch.minimum(corners, limits.unsqueeze(-2)).flatten(-2)


def large_enough(boxes: Tensor, min_size: float) -> Tensor:
    """Whether both sides of boxes [..., 4] are at least `min_size` pixels."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= min_size).all(-1)


def best_per_image(scores: Tensor, image: Tensor, index: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The `limit` best of the chosen entries of each image, equal scores by lower index.

    Args:
        scores: [B, N].
        image: int64 [K], row of each chosen entry.
        index: int64 [K], column of each chosen entry.
        limit: how many of each image are kept at most.

    Returns:
        Row and column of the kept entries, by row, then by descending score.
    """
    chosen = torch.zeros_like(scores, dtype=torch.bool).index_put((image, index), image.new_ones((), dtype=torch.bool))
    candidates = torch.where(chosen, scores, ABSENT)
    # Padding makes `limit` a constant for TopK, however few candidates there are; it lies behind all of them.
    padding = candidates.new_full((candidates.shape[0], limit), ABSENT)
    top_scores, top_index = torch.cat([candidates, padding], 1).topk(limit, dim=1)
    row, rank = torch.nonzero(top_scores > PRESENT, as_tuple=True)
    return row, top_index[row, rank]
