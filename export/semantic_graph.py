"""The module that is exported of a semantic model: the road of the data from canvas to a class per pixel."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.errors import UnsupportedModel, UsageError
from edgemask.export.graph_module import EXAMPLE_CANVAS
from edgemask.export.stages import Resize
from edgemask.export.support import STRIDE, check_canvas, check_numbers
from edgemask.semantic import BACKGROUND, LABEL_LIMIT
from edgemask.spec import ModelSpec


class SemanticGraph(nn.Module):
    """Everything from canvas to the class of each pixel, for export; the auxiliary classifier is left out.

    Args:
        model: the trained model, in evaluation mode; it is not changed, its sub-modules are shared.
        spec: says canvas, mean and standard deviation.

    Raises:
        UnsupportedModel: a backbone without the map `out`, or scores for another number of classes than the spec's.
    """

    def __init__(self, model: _SimpleSegmentationModel, spec: ModelSpec) -> None:
        super().__init__()
        self.stage = Resize(spec.image_mean, spec.image_std)
        self.backbone, self.head = model.backbone, model.classifier
        self.classes = Classes()
        self.example_canvas = spec.canvas or EXAMPLE_CANVAS
        self._check_classes(1 + len(spec.class_names))

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Runs the road of the data.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.

        Returns:
            The graph's outputs: `labels` uint8 [B, H, W] and `scores` float32 [B, H, W], both 0 outside each image's
            true size; and the tensors at the borders of the stages, by name.
        """
        canvas = self.stage(images, image_sizes)
        features = self.backbone(canvas)["out"]
        logits = self.head(features)
        labels, scores = self.classes(logits, images, image_sizes)
        taps = {"stage/resize": canvas, "backbone.0": features, "head": logits}
        return {"labels": labels, "scores": scores}, taps

    @torch.no_grad()
    def _check_classes(self, expected: int) -> None:
        if expected > 1 + LABEL_LIMIT:
            raise UnsupportedModel(f"{expected} classes with the background", f"the most is {1 + LABEL_LIMIT}")
        features = self.backbone(next(self.backbone.parameters()).new_zeros((1, 3, *self.example_canvas)))
        if not isinstance(features, Mapping) or "out" not in features:
            raise UnsupportedModel(
                "its backbone gives no map named 'out'", "give torchvision's IntermediateLayerGetter as backbone"
            )
        logits = self.head(features["out"])
        if logits.ndim != 4 or logits.shape[1] != expected:
            raise UnsupportedModel(
                f"its classifier gives {list(logits.shape)}, for {expected} classes with the background",
                "give a class name for each label from 1 on",
            )


class Classes(nn.Module):
    """Class logits [B, C, h, w] -> the surest class of each canvas pixel and its probability."""

    def forward(self, logits: Tensor, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Gives labels uint8 [B, H, W], ties to the lower one, and scores float32 [B, H, W]; 0 outside `image_sizes`.

        The largest probability of a softmax is `1 / sum(exp(x - max x))`. Measured for [1, 21, 1088, 1088] on one
        thread of ONNX Runtime, the whole step takes 0.22 s so, and 2.5 s with its Softmax over classes.
        """
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        labels = logits.argmax(1)
        scores = (logits - logits.amax(1, keepdim=True)).exp().sum(1).reciprocal()
        rows = torch.arange(images.shape[2], device=images.device).view(1, -1, 1)
        columns = torch.arange(images.shape[3], device=images.device).view(1, 1, -1)
        inside = (rows < image_sizes[:, 0].view(-1, 1, 1)) & (columns < image_sizes[:, 1].view(-1, 1, 1))
        return torch.where(inside, labels, BACKGROUND).to(torch.uint8), torch.where(inside, scores, 0.0)


def check_semantic(model: nn.Module, canvas: tuple[int, int] | None, limits: Iterable[str] = ()) -> None:
    """Refuses a model that the graph would not carry faithfully.

    Args:
        model: any module but an R-CNN.
        canvas: (H, W) asked for, None for a dynamic one.
        limits: what was asked for that only R-CNNs have.

    Raises:
        UnsupportedModel: names the part and the reason.
        UsageError: a canvas that is no multiple of 32, or a limit.
    """
    if not isinstance(model, _SimpleSegmentationModel):
        raise UnsupportedModel(
            f"a {type(model).__name__} is neither an R-CNN nor a semantic model of torchvision",
            "export an instance of torchvision's FasterRCNN, MaskRCNN, KeypointRCNN, FCN or DeepLabV3",
        )
    if limits := sorted(limits):
        raise UsageError(f"a semantic model has no {' and no '.join(limits)}", "leave it out")
    if model.training:
        raise UnsupportedModel("the model is in training mode", "call model.eval() first")
    if type(model).forward is not _SimpleSegmentationModel.forward or "forward" in vars(model):
        raise UnsupportedModel(
            f"the model, a {type(model).__name__}, has its own forward()",
            "the graph restates torchvision's _SimpleSegmentationModel.forward() and would lose yours",
        )
    used = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("aux_classifier.")}
    check_numbers(used)
    if canvas is not None:
        check_canvas(canvas, STRIDE)
