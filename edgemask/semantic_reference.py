"""The PyTorch reference of semantic models: torchvision's own forward pass, on the canvas that the file uses."""

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.canvas import Placement, placement_of
from edgemask.images import load_image
from edgemask.models import Model
from edgemask.reference import ReferenceDetector
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec


class SemanticReference:
    """Runs a torchvision semantic model eagerly and gives what the exported model must give.

    Resize and normalisation are those of torchvision's `GeneralizedRCNNTransform` with the spec's settings, as for
    R-CNNs; the image is padded to the canvas of the spec, the model's own forward pass runs on it, and the result is
    cropped and brought to the original size as `SemanticMap.from_canvas` says. What does not fit a fixed canvas gets a
    larger one here.

    Args:
        model: the model; it is copied, not changed.
        spec: says how images are resized, and which canvas.
    """

    device = "torch"

    def __init__(self, model: _SimpleSegmentationModel, spec: ModelSpec) -> None:
        self.spec = spec
        self.model = copy.deepcopy(model).eval()
        self._transform = GeneralizedRCNNTransform(
            spec.min_size,
            spec.max_size,
            list(spec.image_mean),
            list(spec.image_std),
            spec.size_divisible,
            None if spec.fixed_size is None else (spec.fixed_size[1], spec.fixed_size[0]),
        ).eval()

    @torch.inference_mode()
    def segment(self, source: str | Path | Image.Image | NDArray[np.uint8]) -> SemanticMap:
        """Labels each pixel of one image.

        Args:
            source: a path, a Pillow image, or a uint8 [H, W, 3] RGB array.

        Returns:
            Labels and scores in pixels of the original image.

        Raises:
            ImageError: no usable image, or one whose resized side would be 0 pixels.
        """
        pixels = load_image(source)
        images = self.resize(pixels)
        return brought_back(*surest(self.model(images.tensors)["out"]), images, (pixels.shape[0], pixels.shape[1]))

    @torch.inference_mode()
    def resize(self, pixels: NDArray[np.uint8]) -> ImageList:
        """Normalises and resizes as torchvision does, then pads to the canvas: a batch of one."""
        height, width = placement_of((pixels.shape[0], pixels.shape[1]), self.spec).canvas
        device = next(self.model.parameters()).device
        image = torch.tensor(pixels, device=device).permute(2, 0, 1).float() / 255
        images, _ = self._transform([image])
        rows, columns = images.tensors.shape[-2:]
        tensors = F.pad(images.tensors, (0, max(0, width - columns), 0, max(0, height - rows)))
        return ImageList(tensors, images.image_sizes)


def reference_for(model: Model, spec: ModelSpec) -> ReferenceDetector | SemanticReference:
    """The reference of a model, of whatever kind it is."""
    if isinstance(model, GeneralizedRCNN):
        return ReferenceDetector(model, spec)
    return SemanticReference(model, spec)


def surest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels uint8 [B, H, W], ties to the lower one, and their probabilities [B, H, W] from logits [B, C, H, W]."""
    return logits.argmax(1).to(torch.uint8), logits.softmax(1).amax(1)


def brought_back(labels: Tensor, scores: Tensor, images: ImageList, original_size: tuple[int, int]) -> SemanticMap:
    """The map of an image of (H, W) from labels and scores [1, H, W] of its canvas."""
    rows, columns = (int(side) for side in images.tensors.shape[-2:])
    placement = Placement(original_size, images.image_sizes[0], (rows, columns), resized_beyond_reference=False)
    return SemanticMap.from_canvas(labels[0].cpu().numpy(), scores[0].cpu().numpy(), placement)
