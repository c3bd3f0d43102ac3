"""The module that is exported: the road of the data from canvas to detections, with the trained layers in it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from edgemask.export.stages import (
    Anchors,
    BoxHead,
    Candidates,
    Detect,
    FixedAnchors,
    MaskHead,
    Pool,
    Proposals,
    Resize,
    Rpn,
)
from edgemask.reference import pooling_scales

OUTPUTS = ("batch_index", "boxes", "scores", "labels", "masks")
EXAMPLE_CANVAS = (256, 320)  # traced in place of a dynamic canvas; different sides show where they were mixed up


class GraphModule(nn.Module):
    """Everything from canvas to detections, for export.

    Args:
        model: the trained model, in evaluation mode; it is not changed, its sub-modules are shared.
        canvas: (H, W) of the network input, None where it changes from image to image.
    """

    def __init__(self, model: GeneralizedRCNN, canvas: tuple[int, int] | None) -> None:
        super().__init__()
        heads, rpn = model.roi_heads, model.rpn
        self.stage = Resize(model.transform.image_mean, model.transform.image_std)
        if isinstance(model.backbone, BackboneWithFPN):
            self.backbone, self.fpn = model.backbone.body, model.backbone.fpn
        else:
            self.backbone, self.fpn = model.backbone, None
        self.example_canvas = canvas or EXAMPLE_CANVAS
        features = self._example_features()
        candidates = Candidates(rpn.box_coder, rpn.pre_nms_top_n(), rpn.min_size, rpn.score_thresh)
        self.rpn = Rpn(rpn.head, _anchors(rpn.anchor_generator, features, self.example_canvas), candidates)
        self.proposals = Proposals(len(features), rpn.nms_thresh, rpn.post_nms_top_n())
        self.box_head = BoxHead(self._pool(heads.box_roi_pool, features), heads.box_head, heads.box_predictor)
        self.nms = Detect(heads.box_coder, heads.score_thresh, heads.nms_thresh, heads.detections_per_img)
        self.mask_head = MaskHead(self._pool(heads.mask_roi_pool, features), heads.mask_head, heads.mask_predictor)

    def forward(self, images: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        """Runs the road of the data.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.

        Returns:
            The graph's `OUTPUTS`, then the tensors at the borders of the stages, by name.
        """
        canvas = self.stage(images, image_sizes)
        features, taps = self._features(canvas)
        taps["stage/resize"] = canvas
        maps = list(features.values())
        objectness, deltas, (scores, boxes, level) = self.rpn(images, image_sizes, maps)
        taps |= {f"rpn.scores.{index}": logits for index, logits in enumerate(objectness)}
        taps |= {f"rpn.boxes.{index}": delta for index, delta in enumerate(deltas)}
        taps["rpn.scores"], taps["rpn.boxes"] = scores, boxes
        rois = taps["proposals"] = self.proposals(scores, boxes, level)
        logits, box_deltas = self.box_head(features, rois)
        taps["box_head"], taps["box_head.boxes"] = logits, box_deltas
        found, scores, labels, taps["nms"] = self.nms(logits, box_deltas, rois, image_sizes)
        taps["mask_head"], masks = self.mask_head(features, found, labels)
        return dict(zip(OUTPUTS, (found[:, 0].long(), found[:, 1:], scores, labels, masks), strict=True)) | taps

    def _features(self, canvas: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Feature maps by name for the heads, and the taps of backbone and FPN."""
        features = self.backbone(canvas)
        if isinstance(features, Tensor):
            features = {"0": features}
        taps = {f"backbone.{level}": feature for level, feature in enumerate(features.values())}
        if self.fpn is not None:
            features = self.fpn(features)
            taps |= {f"fpn.{level}": feature for level, feature in enumerate(features.values())}
        return features, taps

    @torch.no_grad()
    def _example_features(self) -> dict[str, Tensor]:
        parameter = next(self.backbone.parameters())
        return self._features(parameter.new_zeros((1, 3, *self.example_canvas)))[0]

    def _pool(self, pooler: MultiScaleRoIAlign, features: Mapping[str, Tensor]) -> Pool:
        return Pool(pooler, pooling_scales(pooler, features, self.example_canvas))


def _anchors(generator: AnchorGenerator, features: Mapping[str, Tensor], canvas: tuple[int, int]) -> nn.Module:
    """Anchors computed in the graph; those of somebody's own generator as constants of a fixed canvas."""
    if type(generator) is AnchorGenerator:
        return Anchors(generator.cell_anchors)
    maps = list(features.values())
    anchors = generator(ImageList(maps[0].new_zeros((1, 3, *canvas)), [canvas]), maps)[0]
    cells = [
        per_cell * feature.shape[-2] * feature.shape[-1]
        for per_cell, feature in zip(generator.num_anchors_per_location(), maps, strict=True)
    ]
    return FixedAnchors(anchors.split(cells))
