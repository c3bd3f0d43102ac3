"""What a user of PyTorch could run instead: the model itself, and torchvision's own ONNX export of it."""

import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemask.benchmark.contestants import Contestant, Lap, Picture, Turn
from edgemask.errors import UnsupportedModel
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    import torch
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.image_list import ImageList

# Highest opset with a RoiAlign as torchvision means it; 18 gives the same graph.
LEGACY_OPSET = 17
_FURTHER = {"boxes": (), "masks": ("masks",), "keypoints": ("keypoints", "keypoints_scores")}  # outputs by task
_ERRORS_ONLY = 3  # of ONNX Runtime's log levels: it warns of the shape of every single pasted mask


class EagerContestant(Contestant):
    """The PyTorch model in eager mode, under `torch.inference_mode`: torchvision's own transform, RPN and heads.

    Masks stay probabilities in their boxes, as a model file of ours gives them. The canvas is the one that the model
    makes by itself.

    Args:
        model: the model.
        spec: thresholds, limits and image sizes to run it with.
        load: milliseconds that loading it took.
    """

    name = "eager"
    device = "torch:cpu"

    def __init__(self, model: "GeneralizedRCNN", spec: ModelSpec, load: float) -> None:
        from edgemask.reference import ReferenceDetector

        contestant, lap = self, Lap()

        class TimedReference(ReferenceDetector):
            """Notes when the backbone starts, and leaves the canvas to torchvision."""

            def resize(self, pixels: Picture) -> "ImageList":
                images, _ = self.model.transform([_image_tensor(pixels)])
                contestant.canvas = images.tensors.shape[2], images.tensors.shape[3]
                lap.began = time.perf_counter()
                return images

        def note_end(*_: object) -> None:
            lap.ended = time.perf_counter()

        self.load = load
        self._lap = lap
        self._reference = TimedReference(model, spec)
        self._reference.model.roi_heads.register_forward_hook(note_end)

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """See `Contestant.turn`."""
        return self._lap.time(self._reference.predict, pixels, paste=paste)

    def close(self) -> None:
        """See `Contestant.close`."""
        del self._reference


class TorchvisionOnnxContestant(Contestant):
    """What torchvision and torch's older exporter make of the model, on ONNX Runtime's CPU provider.

    Resize and mask paste are part of its graph; masks come as float32 [N, 1, H, W] of the whole image. Nobody exports
    it without the paste, yet this tells what the paste alone costs.

    Args:
        model: the model.
        spec: thresholds, limits and image sizes to export it with.
        pixels: uint8 [H, W, 3] RGB image of the size that it will be run with; the exporter traces it.
        paste: leave torchvision's paste in the graph.

    Attributes:
        export: milliseconds that the export took.

    Raises:
        UnsupportedModel: the older exporter cannot export it.
    """

    device = "cpu"

    def __init__(self, model: "GeneralizedRCNN", spec: ModelSpec, pixels: Picture, *, paste: bool = True) -> None:
        import onnxruntime

        from edgemask.runtimes.runtime import thread_count

        self.name = "torchvision-onnx" if paste else "torchvision-onnx-unpasted"
        self.pastes_itself = paste
        started = time.perf_counter()
        data = export_legacy(model, spec, pixels, paste=paste)
        exported = time.perf_counter()
        self.export = 1000 * (exported - started)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
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
    image = _image_tensor(pixels)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "torchvision.onnx"
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


def _image_tensor(pixels: Picture) -> "torch.Tensor":
    """What torchvision's models take: float32 [3, H, W] in 0-1."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
