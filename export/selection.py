"""The two choices of the graph, proposals and detections: NMS, then the best of each image.

What is chosen is handed on in rows of all images in turn: as many as were chosen, or `padded` to a fixed number for
each image, with rows of zeros behind the chosen ones, as a compiler wants it that must know every shape.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask
from edgemask.ops import floor32

# Scores are at least 0. What must not take part gets this one, and what takes part lies above the line.
ABSENT, PRESENT = -1.0, -0.5


class Proposals(nn.Module):
    """NMS within each level, then the best over all levels: rois [R, 5], by image, then by descending score."""

    def __init__(self, levels: int, nms_threshold: float, top_n: int, *, padded: bool) -> None:
        super().__init__()
        self.levels, self.nms_threshold, self.top_n, self.padded = levels, floor32(nms_threshold), top_n, padded

    def forward(self, scores: Tensor, boxes: Tensor, level: Tensor) -> Tensor:
        """Takes what `Candidates` gives."""
        own = level == torch.arange(self.levels, device=level.device)[:, None]
        by_level = torch.where(own, scores[:, None], ABSENT)
        kept = torch.ops.edgemask.batched_nms(boxes, by_level, self.nms_threshold, PRESENT, self.top_n)
        image, index, present = best_per_image(scores, kept[:, 0], kept[:, 2], self.top_n, padded=self.padded)
        return torch.cat([image[:, None].to(boxes.dtype), zero_unless(present, boxes[image, index])], 1)


class Detect(nn.Module):
    """From scored proposals to detections: torchvision's `postprocess_detections` for all images at once.

    A proposal without area, such as the rows of zeros behind the chosen ones, gives no detection.
    """

    def __init__(
        self, coder: BoxCoder, score_threshold: float, nms_threshold: float, limit: int, *, padded: bool
    ) -> None:
        super().__init__()
        self.coder, self.limit, self.padded = coder, limit, padded
        self.score_threshold, self.nms_threshold = max(score_threshold, PRESENT), floor32(nms_threshold)

    def forward(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Gives detections as rois [M, 5], scores [M], labels [M] and presence, and the NMS's own selection [K, 3]."""
        classes = logits.shape[1] - 1
        scores = logits.softmax(-1)[:, 1:]
        image = rois[:, 0].long()
        boxes = self.coder.decode_single(deltas[:, 4:], rois[:, 1:]).view(-1, classes, 4)
        boxes = clip(boxes, image_sizes.index_select(0, image)[:, None])
        scores = torch.where(large_enough(boxes, 1e-2), scores, ABSENT)
        own = image == torch.arange(image_sizes.shape[0], device=image.device)[:, None]
        # The op shares boxes between the classes of an image; here they differ by class and are shared by images.
        by_image = torch.where(own, scores.t()[:, None], ABSENT)
        kept = torch.ops.edgemask.batched_nms(
            boxes.transpose(0, 1), by_image, self.nms_threshold, self.score_threshold, self.limit
        )
        flat = scores.reshape(1, -1).expand(image_sizes.shape[0], -1)
        chosen = kept[:, 2] * classes + kept[:, 0]
        image, index, present = best_per_image(flat, kept[:, 1], chosen, self.limit, padded=self.padded)
        found = zero_unless(present, boxes.reshape(-1, 4).index_select(0, index))
        scores = zero_unless(present, scores.reshape(-1).index_select(0, index))
        labels = zero_unless(present, index % classes + 1)
        return torch.cat([image[:, None].to(boxes.dtype), found], 1), scores, labels, present, kept


def best_per_image(
    scores: Tensor, image: Tensor, index: Tensor, limit: int, *, padded: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The `limit` best of the chosen entries of each image, equal scores by lower index.

    Args:
        scores: [B, N].
        image: int64 [K], row of each chosen entry.
        index: int64 [K], column of each chosen entry.
        limit: how many of each image are kept at most.
        padded: give `limit` entries of each image, the chosen ones first.

    Returns:
        Row and column of the kept entries, [M] each, by row, then by descending score; where they are padded, which of
        them are present, else None.
    """
    chosen = torch.full_like(scores, ABSENT).index_put((image, index), scores[image, index])
    # Padding makes `limit` a constant for TopK, however few candidates there are; it lies behind all of them.
    padding = chosen.new_full((chosen.shape[0], limit), ABSENT)
    top_scores, top_index = torch.cat([chosen, padding], 1).topk(limit, dim=1)
    present = top_scores > PRESENT
    if padded:
        row = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(top_index)
        last = top_index.new_full((), scores.shape[1] - 1)
        return row.reshape(-1), torch.minimum(top_index, last).reshape(-1), present.reshape(-1)
    row, rank = torch.nonzero(present, as_tuple=True)
    return row, top_index[row, rank], None


def zero_unless(present: Tensor | None, values: Tensor) -> Tensor:
    """Values [M, ...] with zeros in the rows that are not present; None: all are."""
    if present is None:
        return values
    return torch.where(present.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes [..., 4] cut at the borders of their images; `sizes` [..., 2] (H, W) must broadcast against them."""
    limits = sizes.flip(-1).to(boxes.dtype)
    corners = boxes.view(*boxes.shape[:-1], 2, 2).clamp(min=0)
    return torch.minimum(corners, limits.unsqueeze(-2)).flatten(-2)


def large_enough(boxes: Tensor, min_size: float) -> Tensor:
    """Whether both sides of boxes [..., 4] are at least `min_size` pixels."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    # Not `all`, which becomes a ReduceMin, whose result has a wrong shape in ONNX Runtime where there are no boxes.
    return (width >= min_size) & (height >= min_size)
