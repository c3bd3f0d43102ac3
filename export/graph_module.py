"""The module that is exported: the road of the data from canvas to detections, with the trained layers in it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork

from edgemask.export.heads import BoxHead, KeypointHead, MaskHead, Pool
from edgemask.export.selection import Detect, Proposals, zero_unless
from edgemask.export.stages import Anchors, Candidates, FixedAnchors, Resize, Rpn
from edgemask.spec import ModelSpec

EXAMPLE_CANVAS = (256, 320)  # traced in place of a dynamic canvas; different sides show where they were mixed up


class GraphModule(nn.Module):
    """Everything from canvas to detections, for export.

    Args:
        model: the trained model, in evaluation mode; it is not changed, its sub-modules are shared.
        spec: says canvas, tasks, where proposals come from, and whether outputs are flat or padded.

    Raises:
        UnsupportedModel: maps that its heads cannot be pooled from.
    """

    def __init__(self, model: GeneralizedRCNN, spec: ModelSpec) -> None:
        super().__init__()
        heads = model.roi_heads
        self.padded, self.limit = spec.outputs == "padded", spec.max_detections
        self.stage = Resize(model.transform.image_mean, model.transform.image_std)
        if isinstance(model.backbone, BackboneWithFPN):
            self.backbone, self.fpn = model.backbone.body, model.backbone.fpn
        else:
            self.backbone, self.fpn = model.backbone, None
        canvas = self.example_canvas = spec.canvas or EXAMPLE_CANVAS
        features = self._example_features()
        self.rpn: Rpn | None = None
        if spec.proposals == "rpn":
            self.rpn = _rpn(model.rpn, features, canvas)
            top_n = model.rpn.post_nms_top_n()
            self.proposals = Proposals(len(features), model.rpn.nms_thresh, top_n, padded=self.padded)
        self.box_head = BoxHead(Pool(heads.box_roi_pool, features, canvas), heads.box_head, heads.box_predictor)
        self.nms = Detect(heads.box_coder, heads.score_thresh, heads.nms_thresh, self.limit, padded=self.padded)
        self.mask_head = self.keypoint_head = None
        if heads.has_mask():
            pool = Pool(heads.mask_roi_pool, features, canvas)
            self.mask_head = MaskHead(pool, heads.mask_head, heads.mask_predictor)
        if heads.has_keypoint():
            pool = Pool(heads.keypoint_roi_pool, features, canvas)
            self.keypoint_head = KeypointHead(pool, heads.keypoint_head, heads.keypoint_predictor)

    def forward(
        self, images: Tensor, image_sizes: Tensor, proposals: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Runs the road of the data.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.
            proposals: float32 [R, 5] batch index and xyxy in canvas pixels, for a graph that takes them.

        Returns:
            The graph's outputs, and the tensors at the borders of the stages, by name.
        """
        canvas = self.stage(images, image_sizes)
        features, taps = self._features(canvas)
        taps["stage/resize"] = canvas
        if proposals is None:
            proposals, found = self._propose(images, image_sizes, features)
            taps |= found | {"proposals": proposals}
        taps["box_head"], taps["box_head.boxes"] = self.box_head(features, proposals)
        rois, scores, labels, present, taps["nms"] = self.nms(
            taps["box_head"], taps["box_head.boxes"], proposals, image_sizes
        )
        taps["nms.rois"] = rois  # what the branches take, so that they can be run on somebody else's detections
        outputs = {"boxes": rois[:, 1:], "scores": scores, "labels": labels}
        if self.mask_head is not None:
            taps["mask_head"], masks = self.mask_head(features, rois, labels)
            outputs["masks"] = zero_unless(present, masks)
        if self.keypoint_head is not None:
            outputs["keypoint_heatmaps"] = zero_unless(present, self.keypoint_head(features, rois))
        if present is None:
            return {"batch_index": rois[:, 0].long()} | outputs, taps
        taps["nms.labels"], taps["nms.present"] = labels, present
        by_image = {name: value.view(-1, self.limit, *value.shape[1:]) for name, value in outputs.items()}
        return {"num_detections": present.view(-1, self.limit).sum(1)} | by_image, taps

    def _propose(
        self, images: Tensor, image_sizes: Tensor, features: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Proposals as rois [R, 5], and the taps of the RPN."""
        assert self.rpn is not None
        objectness, deltas, (scores, boxes, level) = self.rpn(images, image_sizes, list(features.values()))
        taps = {f"rpn.scores.{index}": logits for index, logits in enumerate(objectness)}
        taps |= {f"rpn.boxes.{index}": delta for index, delta in enumerate(deltas)}
        return self.proposals(scores, boxes, level), taps | {"rpn.scores": scores, "rpn.boxes": boxes}

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


def _rpn(rpn: RegionProposalNetwork, features: Mapping[str, Tensor], canvas: tuple[int, int]) -> Rpn:
    candidates = Candidates(rpn.box_coder, rpn.pre_nms_top_n(), rpn.min_size, rpn.score_thresh)
    return Rpn(rpn.head, _anchors(rpn.anchor_generator, features, canvas), candidates)


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
