"""The PyTorch reference: torchvision's own forward pass, on the canvas that the exported file uses."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MethodType, SimpleNamespace

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes, resize_keypoints
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, nms, remove_small_boxes
from torchvision.ops.poolers import LevelMapper

from edgemask.canvas import Placement, boxes_to_canvas, placement_of
from edgemask.detections import Detections
from edgemask.images import load_image
from edgemask.spec import ModelSpec


class ReferenceDetector:
    """Runs a torchvision R-CNN eagerly and gives what the exported model must give.

    Normalisation, resize, proposals and heads are torchvision's code, on a copy of the model. Three things differ from
    calling the model: the image is padded to the canvas of the spec, and the scales of `MultiScaleRoIAlign` are set
    from that canvas, where torchvision infers them from its first image and keeps them. NMS is exactly per class: below
    1,000 boxes torchvision shifts the classes apart instead, which rounds coordinates and flips choices.

    Args:
        model: the model; it is copied, not changed.
        spec: says which canvas and which tasks.
    """

    device = "torch"

    def __init__(self, model: GeneralizedRCNN, spec: ModelSpec) -> None:
        self.spec = spec
        self.model = configured(model, spec)
        use_per_class_nms(self.model)

    @torch.inference_mode()
    def predict(
        self, source: str | Path | Image.Image | NDArray[np.uint8], *, proposals: NDArray[np.float32] | None = None
    ) -> Detections:
        """Detects on one image.

        Args:
            source: a path, a Pillow image, or a uint8 [H, W, 3] RGB array.
            proposals: float32 [N, 4] xyxy in pixels of the image, to be scored in place of the RPN's.

        Returns:
            Boxes and keypoints in pixels of the original image, masks as probabilities inside their boxes.

        Raises:
            ImageError: no usable image, or one whose resized side would be 0 pixels.
        """
        pixels = load_image(source)
        return self.run(pixels, proposals)[1]

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8], proposals: NDArray[np.float32] | None = None) -> tuple["Pass", Detections]:
        """Runs the model on one image as `predict` does; gives what lies on the canvas too.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            proposals: as for `predict`.
        """
        images = self.resize(pixels)
        features = self.pyramid(images.tensors)
        size, original = images.image_sizes[0], pixels.shape[:2]
        if proposals is None:
            rois, _ = self.model.rpn(images, features)
        else:
            placed = boxes_to_canvas(proposals, Placement(original, size, size, resized_beyond_reference=False))
            rois = [torch.from_numpy(placed).to(images.tensors.device)]
        (found,), _ = self.model.roi_heads(features, rois, images.image_sizes)
        return Pass(images, list(features.values()), rois[0], found), _detections(found, size, original)

    @torch.inference_mode()
    def propose(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The boxes of the model's own RPN as somebody else might give them: to be scored by a model that takes them.

        Args:
            pixels: uint8 [H, W, 3] RGB.

        Returns:
            float32 [N, 4] xyxy in pixels of the image, inside of it and with an area, the surest first.
        """
        images = self.resize(pixels)
        rois, _ = self.model.rpn(images, self.pyramid(images.tensors))
        height, width = pixels.shape[:2]
        boxes = resize_boxes(rois[0], list(images.image_sizes[0]), [height, width])
        boxes = clip_boxes_to_image(boxes, (height, width))
        found: NDArray[np.float32] = boxes[remove_small_boxes(boxes, 1e-2)].cpu().numpy()
        return found

    @torch.inference_mode()
    def resize(self, pixels: NDArray[np.uint8]) -> ImageList:
        """Normalises and resizes as torchvision does, then pads to the canvas: a batch of one."""
        height, width = placement_of((pixels.shape[0], pixels.shape[1]), self.spec).canvas
        device = next(self.model.parameters()).device
        image = torch.tensor(pixels, device=device).permute(2, 0, 1).float() / 255
        images, _ = self.model.transform([image])
        # A negative number cuts: what does not fit the canvas is no reference anyway, and flagged as such.
        margins = (0, width - images.tensors.shape[-1], 0, height - images.tensors.shape[-2])
        tensors = nn.functional.pad(images.tensors, margins)
        return ImageList(tensors, images.image_sizes)

    @torch.inference_mode()
    def pyramid(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name of a normalised batch [B, 3, H, W]; sets the pooling scales for its canvas."""
        features = self.model.backbone(images)
        if isinstance(features, torch.Tensor):
            features = {"0": features}
        set_pooling_scales(self.model, features, (int(images.shape[-2]), int(images.shape[-1])))
        return dict(features)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one run of the model left on the canvas.

    Attributes:
        images: the normalised image on its canvas, a batch of one.
        features: maps [1, C, Hi, Wi] of all levels.
        proposals: float32 [R, 4] xyxy in canvas pixels.
        found: what torchvision's heads gave for the image: `boxes`, `scores`, `labels`, `masks`, `keypoints`.
    """

    images: ImageList
    features: list[torch.Tensor]
    proposals: torch.Tensor
    found: dict[str, torch.Tensor]


def _detections(found: Mapping[str, torch.Tensor], size: tuple[int, int], original: tuple[int, int]) -> Detections:
    """What the heads found on an image of a size on the canvas, in pixels of the original."""
    arrays = {name: value.cpu().numpy() for name, value in found.items()}
    arrays["boxes"] = resize_boxes(found["boxes"], list(size), list(original)).cpu().numpy()
    if "keypoints" in found:
        arrays["keypoints"] = resize_keypoints(found["keypoints"], list(size), list(original)).cpu().numpy()
    return Detections(
        boxes=arrays["boxes"],
        scores=arrays["scores"],
        labels=arrays["labels"],
        masks=arrays["masks"][:, 0] if "masks" in arrays else None,
        keypoints=arrays.get("keypoints"),
        keypoint_scores=arrays.get("keypoints_scores"),
        image_size=original,
    )


def configured(model: GeneralizedRCNN, spec: ModelSpec) -> GeneralizedRCNN:
    """A copy of a model in evaluation mode, with the thresholds, limits and image sizes of a spec."""
    model = copy.deepcopy(model).eval()
    heads, transform = model.roi_heads, model.transform
    heads.score_thresh, heads.nms_thresh = spec.score_threshold, spec.nms_threshold
    heads.detections_per_img = spec.max_detections
    if spec.max_proposals is not None:
        model.rpn._post_nms_top_n = {"training": spec.max_proposals, "testing": spec.max_proposals}
    transform.min_size, transform.max_size = (spec.min_size,), spec.max_size
    transform.fixed_size = None if spec.fixed_size is None else (spec.fixed_size[1], spec.fixed_size[0])
    return model


def use_per_class_nms(model: GeneralizedRCNN) -> None:
    """Makes one model's proposal and detection steps, torchvision's own code, call `per_class_nms`.

    The functions get globals of their own: nothing is patched, other models and threads are not touched.
    """
    exact = SimpleNamespace(**{**vars(torchvision.ops.boxes), "batched_nms": per_class_nms})
    for part, method in ((model.rpn, "filter_proposals"), (model.roi_heads, "postprocess_detections")):
        own = getattr(type(part), method)
        rebound = FunctionType(own.__code__, {**own.__globals__, "box_ops": exact}, own.__name__, own.__defaults__)
        setattr(part, method, MethodType(rebound, part))


def per_class_nms(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Does what torchvision's `batched_nms` does, without shifted coordinates.

    Args:
        boxes: float32 [N, 4] xyxy.
        scores: float32 [N].
        classes: int64 [N]; boxes of different classes do not suppress each other.
        iou_threshold: a box is dropped where its IoU with a kept one is above it.

    Returns:
        int64 [K], the boxes kept, by descending score, equal ones by index.
    """
    kept = [torch.where(classes == label)[0] for label in torch.unique(classes)]
    kept = [index[nms(boxes[index], scores[index], iou_threshold)] for index in kept]
    chosen = torch.cat(kept).sort()[0] if kept else classes
    return chosen[scores[chosen].sort(descending=True, stable=True)[1]]


def set_pooling_scales(model: GeneralizedRCNN, features: Mapping[str, torch.Tensor], canvas: tuple[int, int]) -> None:
    """Sets the scales of every `MultiScaleRoIAlign` of the model's heads from a canvas (H, W).

    torchvision infers them from the un-padded size of the first image that it sees, so that an unlucky first image
    (12x256) spoils all later ones.
    """
    for pooler in model.roi_heads.modules():
        if isinstance(pooler, MultiScaleRoIAlign):
            pooler.scales = pooling_scales(pooler, features, canvas)
            first, last = (-round(math.log2(scale)) for scale in (pooler.scales[0], pooler.scales[-1]))
            pooler.map_levels = LevelMapper(first, last, pooler.canonical_scale, pooler.canonical_level)


def pooling_scales(
    pooler: MultiScaleRoIAlign, features: Mapping[str, torch.Tensor], canvas: tuple[int, int]
) -> list[float]:
    """Feature pixels per canvas pixel of the maps that a pooler takes: the nearest power of two, as torchvision has it.

    Args:
        pooler: says which maps it takes.
        features: maps [B, C, Hi, Wi] by name.
        canvas: (H, W) that the maps were made from.
    """
    taken = [feature for name, feature in features.items() if name in pooler.featmap_names]
    return [2.0 ** round(math.log2(feature.shape[-2] / canvas[0])) for feature in taken]
