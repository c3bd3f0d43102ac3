"""The stages up to the proposals: trained layers as they are, data-dependent steps restated around the custom ops.

torchvision's own forward loops over images and data and cannot be traced. Each stage is a module, so that the nodes of
the graph are named after it. `selection` has the two steps around NMS, `heads` what is behind the proposals.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

from edgemask.export.selection import ABSENT, clip, large_enough


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
        all_logits, all_deltas, all_anchors, all_levels = [], [], [], []
        for level, (logits, delta, boxes) in enumerate(zip(objectness, deltas, anchors, strict=True)):
            batch, per_cell = logits.shape[:2]
            logits = logits.permute(0, 2, 3, 1).flatten(1)
            delta = delta.view(batch, per_cell, 4, *delta.shape[2:]).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
            top_logits, index = logits.topk(torch.sym_min(self.top_n, boxes.shape[0]), dim=1)
            all_logits.append(top_logits)
            all_deltas.append(delta.gather(1, index[:, :, None].expand(-1, -1, 4)))
            all_anchors.append(nn.functional.embedding(index, boxes))  # rows by index, in one node
            all_levels.append(torch.full_like(index[0], level))
        # Of all levels at once: each node that does little costs a runtime more than what it does.
        delta, boxes = torch.cat(all_deltas, 1), torch.cat(all_anchors, 1)
        moved = self.coder.decode_single(delta.reshape(-1, 4), boxes.reshape(-1, 4)).view_as(boxes)
        boxes = clip(moved, image_sizes[:, None])
        scores = torch.cat(all_logits, 1).sigmoid()
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
