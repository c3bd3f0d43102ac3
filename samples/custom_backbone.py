"""A Mask R-CNN around your own backbone: defined, exported for one canvas, verified, run.

    python samples/custom_backbone.py [MODEL.onnx]

Whatever PyTorch's exporter understands may stand in the backbone; nothing is registered, nothing is rewritten.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import Conv2dNormActivation

import edgemask
from edgemask.export import export_onnx
from edgemask.scenes import draw_scene


class Backbone(nn.Module):
    """One map, without a feature pyramid."""

    out_channels = 32  # torchvision asks for it

    def __init__(self) -> None:
        super().__init__()
        layer = partial(Conv2dNormActivation, stride=2, norm_layer=partial(nn.GroupNorm, 4), activation_layer=nn.SiLU)
        self.layers = nn.Sequential(*(layer(*channels) for channels in ((3, 16), (16, 32), (32, 32), (32, 32))))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W], normalised, to maps [B, 32, H / 16, W / 16]."""
        return self.layers(images)


def make() -> MaskRCNN:
    """Untrained; `edgemask export samples.custom_backbone:make --weights FILE` exports it with trained weights."""
    torch.manual_seed(0)
    parts = {
        "rpn_anchor_generator": AnchorGenerator(((32, 64, 128),), ((0.5, 1.0, 2.0),)),
        "box_roi_pool": MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        "mask_roi_pool": MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2),
    }
    return MaskRCNN(Backbone(), 3, min_size=256, max_size=320, box_detections_per_img=10, **parts).eval()


def main(output: str = "out/custom.onnx") -> None:
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    # Verified, as every export. An untrained model may fail at that: where scores are ties, any rounding decides.
    report = export_onnx(make(), output, shape=(256, 320), class_names=["bolt", "nut"])
    print(f"{report.path}: {report.nodes} operators, verified")
    with edgemask.load(output) as detector:
        print(f"{detector.predict(draw_scene(0, seed=1).image)} by {detector.device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
