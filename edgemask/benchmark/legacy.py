"""torchvision's own ONNX export, as its documentation has it."""

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemask.benchmark.contestants import Contestant, Picture, Turn
from edgemask.benchmark.pytorch import Reference, image_tensor
from edgemask.errors import UnsupportedModel
from edgemask.files import scratch
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

# Highest opset with a RoiAlign as torchvision means it; 18 gives the same graph.
LEGACY_OPSET = 17
_FURTHER = {"boxes": (), "masks": ("masks",), "keypoints": ("keypoints", "keypoints_scores")}  # outputs by task
_ERRORS_ONLY = 3  # of ONNX Runtime's log levels: it warns of the shape of every single pasted mask


class TorchvisionOnnxContestant(Contestant):
    """What torchvision and torch's older exporter make of the model, on ONNX Runtime's CPU provider.

    Resize and mask paste are part of its graph; masks come as float32 [N, 1, H, W] of the whole image. Nobody exports
    it without the paste, yet this tells what the paste alone costs.

    Args:
        reference: the model.
        spec: thresholds, limits and image sizes to export it with.
        pixels: uint8 [H, W, 3] RGB image of the size that it will be run with; the exporter traces it.
        threads: of the session.
        paste: leave torchvision's paste in the graph.

    Attributes:
        export: milliseconds that the export took.

    Raises:
        UnsupportedModel: the older exporter cannot export it.
    """

    device = "cpu"
    precision = "fp32"
    batch = 1

    def __init__(
        self, reference: Reference, spec: ModelSpec, pixels: Picture, threads: int, *, paste: bool = True
    ) -> None:
        import onnxruntime

        self.name = "torchvision-onnx" if paste else "torchvision-onnx-unpasted"
        self.pastes_itself = paste
        self.sha256 = reference.sha256
        self.spec = spec
        started = time.perf_counter()
        data = export_legacy(reference.model, spec, pixels, paste=paste)
        exported = time.perf_counter()
        self.export = 1000 * (exported - started)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.load = 1000 * (time.perf_counter() - exported)

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """See `Contestant.turn`; `paste` changes nothing."""
        started = time.perf_counter()
        image = np.divide(np.ascontiguousarray(pixels.transpose(2, 0, 1)), np.float32(255), dtype=np.float32)
        began = time.perf_counter()
        scores = self._session.run(None, {"image": image})[2]
        ended = time.perf_counter()
        return Turn(
            1000 * (began - started), 1000 * (ended - began), 0.0, 0.0 if self.pastes_itself else None, len(scores)
        )

    def predict(self, images: Sequence[Picture]) -> None:
        """See `Contestant.predict`: one after the other, since its graph takes one."""
        for pixels in images:
            self.turn(pixels, paste=False)

    def close(self) -> None:
        """See `Contestant.close`."""
        self._session = None


def export_legacy(model: "GeneralizedRCNN", spec: ModelSpec, pixels: Picture, *, paste: bool = True) -> bytes:
    """Exports a whole torchvision model as torchvision documents it: `torch.onnx.export(..., dynamo=False)`.

    Args:
        model: the model; a copy is exported.
        spec: thresholds, limits and image sizes.
        pixels: uint8 [H, W, 3] RGB; the trace may hold for this size alone.
        paste: leave torchvision's postprocessing in: boxes in pixels of the image, masks pasted. Otherwise boxes are
            in canvas pixels and masks in their boxes.

    Returns:
        An ONNX file with the input `image` float32 [3, H, W] in 0-1 and the outputs boxes, labels, scores, and
            those of the further tasks.

    Raises:
        UnsupportedModel: the exporter gave up.
    """
    import torch

    from edgemask.reference import configured, set_pooling_scales

    model = configured(model, spec)
    if not paste:
        model.transform.postprocess = lambda found, *_: found
    image = image_tensor(pixels)
    with warnings.catch_warnings(), scratch() as folder, torch.no_grad():
        path = folder / "torchvision.onnx"
        # Tracing warns of each of torchvision's shape computations, and of being deprecated.
        warnings.simplefilter("ignore")
        canvas = model.transform([image])[0].tensors
        set_pooling_scales(model, model.backbone(canvas), (int(canvas.shape[-2]), int(canvas.shape[-1])))
        try:
            torch.onnx.export(
                model,
                ([image],),
                path,
                dynamo=False,
                opset_version=LEGACY_OPSET,
                input_names=["image"],
                output_names=["boxes", "labels", "scores", *(name for task in spec.tasks for name in _FURTHER[task])],
            )
        except Exception as error:
            raise UnsupportedModel(
                f"torch's older exporter cannot export this model: {str(error).strip().partition(chr(10))[0]}",
                "leave torchvision-onnx out of --against",
            ) from error
        return path.read_bytes()
