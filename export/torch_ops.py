"""The two custom ops as torch ops: torchvision's kernels in eager, one opaque node each in a traced program.

Importing this module defines `torch.ops.edgemask.multi_scale_roi_align` and `torch.ops.edgemask.batched_nms`,
which follow the definitions of `edgemask.ops` without gradients. torchvision's own forms cannot be traced:
they loop over data.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align

from edgemask.errors import UsageError
from edgemask.ops import check_batched_nms, check_multi_scale_roi_align, level_thresholds


@torch.library.custom_op("edgemask::multi_scale_roi_align", mutates_args=())
def multi_scale_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    coordinate_transformation_mode: str,
) -> Tensor:
    """Compute `edgemask.ops.multi_scale_roi_align` on any device.

    Args:
        features: one float32 [B, C, Hi, Wi] map for each level, finest first.
        rois: float32 [R, 5] batch index and (x1, y1, x2, y2) in canvas pixels.
        output_height: rows of the result.
        output_width: columns of the result.
        sampling_ratio: samples per bin and axis; 0 is adaptive (torchvision writes -1).
        spatial_scales: feature pixels per canvas pixel of each level.
        canonical_scale: side in pixels of the square roi of `canonical_level`.
        canonical_level: that level; scale 2 ** -k is level k.
        coordinate_transformation_mode: `output_half_pixel` (torchvision's `aligned=False`) or `half_pixel`.

    Returns:
        float32 [R, C, output_height, output_width].

    Raises:
        UsageError: an attribute outside the definitions, or a batch index outside the batch.
    """
    check_multi_scale_roi_align(
        len(features),
        (output_height, output_width),
        sampling_ratio,
        spatial_scales,
        canonical_scale,
        canonical_level,
        coordinate_transformation_mode,
    )
    # torchvision's CPU kernel reads outside the map instead of refusing.
    if len(rois) and not bool(((rois[:, 0] >= 0) & (rois[:, 0] < features[0].shape[0])).all()):
        raise UsageError(
            f"rois name images outside a batch of {features[0].shape[0]}",
            "give batch indices in column 0 of the rois",
        )
    thresholds = torch.from_numpy(level_thresholds(spatial_scales, canonical_scale, canonical_level)).to(rois.device)
    area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    levels = (area[:, None] >= thresholds).sum(dim=1)
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], output_height, output_width))
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        index = torch.where(levels == level)[0]
        pooled[index] = roi_align(
            feature,
            rois[index],
            output_size=(output_height, output_width),
            spatial_scale=scale,
            sampling_ratio=sampling_ratio,
            aligned=coordinate_transformation_mode == "half_pixel",
        )
    return pooled


@multi_scale_roi_align.register_fake
def _multi_scale_roi_align_shape(
    features: Sequence[Tensor],
    rois: Tensor,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    coordinate_transformation_mode: str,
) -> Tensor:
    check_multi_scale_roi_align(
        len(features),
        (output_height, output_width),
        sampling_ratio,
        spatial_scales,
        canonical_scale,
        canonical_level,
        coordinate_transformation_mode,
    )
    return features[0].new_empty((rois.shape[0], features[0].shape[1], output_height, output_width))


@torch.library.custom_op("edgemask::batched_nms", mutates_args=())
def batched_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """Compute `edgemask.ops.batched_nms` on any device; on GPUs equal scores may come in another order.

    Args:
        boxes: float32 [B, N, 4] (x1, y1, x2, y2), corners in any order.
        scores: float32 [B, C, N].
        iou_threshold: 0 to 1; a box is dropped where its IoU with a kept one is strictly above it.
        score_threshold: scores must be strictly above it.
        max_per_class: boxes kept for each image and class.

    Returns:
        int64 [M, 3]: batch, class and box index by batch, class, descending score, ascending index.

    Raises:
        UsageError: an attribute outside the definitions.
    """
    check_batched_nms(iou_threshold, score_threshold, max_per_class)
    corners = torch.cat(
        [torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])], dim=-1
    )
    selected = [boxes.new_empty((0, 3), dtype=torch.int64)]
    for image in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            candidates = torch.where(scores[image, label] > score_threshold)[0]
            kept = candidates[nms(corners[image, candidates], scores[image, label, candidates], iou_threshold)]
            kept = kept[:max_per_class]
            head = kept.new_tensor([image, label]).expand(len(kept), 2)
            selected.append(torch.cat([head, kept[:, None]], dim=1))
    return torch.cat(selected)


@batched_nms.register_fake
def _batched_nms_shape(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    check_batched_nms(iou_threshold, score_threshold, max_per_class)
    # How many boxes survive depends on the data: a size that the tracer may not read.
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)
