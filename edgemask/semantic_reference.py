"""The PyTorch reference of semantic models, and where an exported one first differs from it.

All PyTorch code here is torchvision's own; every stage is fed with what the exported graph itself fed to that stage.
"""

import copy
from collections.abc import Iterator, Mapping
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
from edgemask.divergence import RESIZE_TOLERANCE, StageCheck, as_tensors, compare_values, until_broken
from edgemask.images import load_image
from edgemask.models import Model
from edgemask.reference import ReferenceDetector
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

LABEL_TOLERANCE = 1e-3  # share of pixels labelled otherwise on the same logits: those on the border of two classes


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
        labels, scores = surest(self.model(images.tensors)["out"])
        rows, columns = (int(side) for side in images.tensors.shape[-2:])
        placement = Placement(
            (pixels.shape[0], pixels.shape[1]), images.image_sizes[0], (rows, columns), resized_beyond_reference=False
        )
        return SemanticMap.from_canvas(labels[0].cpu().numpy(), scores[0].cpu().numpy(), placement)

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


@torch.inference_mode()
def compare_semantic_stages(
    reference: SemanticReference, pixels: NDArray[np.uint8], outputs: Mapping[str, NDArray[np.generic]]
) -> tuple[StageCheck, ...]:
    """Compares the stages of an exported model with PyTorch on one image.

    Args:
        reference: the PyTorch model, on the same canvas.
        pixels: uint8 [H, W, 3] RGB.
        outputs: what the graph with taps gave for that image, by name.

    Returns:
        One check per stage tensor, then `labels` (error: pixels labelled otherwise, as a share of the image's) and
        `scores`. They end with a tensor of another shape or with one that is not finite, with which no later stage can
        be fed.
    """
    return until_broken(_checks(reference.model, reference.resize(pixels), as_tensors(outputs)))


def _checks(model: _SimpleSegmentationModel, images: ImageList, taps: Mapping[str, Tensor]) -> Iterator[StageCheck]:
    yield compare_values("stage/resize", images.tensors, taps, RESIZE_TOLERANCE)
    canvas = taps["stage/resize"]
    yield compare_values("backbone.0", model.backbone(canvas)["out"], taps)
    yield compare_values("head", model.classifier(taps["backbone.0"]), taps)
    logits = F.interpolate(taps["head"], size=canvas.shape[-2:], mode="bilinear", align_corners=False)
    labels, scores = surest(logits)
    height, width = images.image_sizes[0]
    inside = torch.zeros(canvas.shape[-2:], dtype=torch.bool)
    inside[:height, :width] = True
    yield _labels(labels * inside, taps, inside)
    yield compare_values("scores", scores * inside, taps)


def _labels(expected: Tensor, taps: Mapping[str, Tensor], inside: Tensor) -> StageCheck:
    own = taps.get("labels")
    if own is None or expected.shape != own.shape:
        return StageCheck("labels", float("inf"), LABEL_TOLERANCE)
    return StageCheck("labels", ((expected != own).sum() / inside.sum()).item(), LABEL_TOLERANCE)
