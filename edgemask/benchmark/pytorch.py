"""What a user of PyTorch could run instead: the model itself, as it is, compiled, or in half precision."""

import contextlib
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from edgemask.benchmark.contestants import Contestant, Lap, Picture, Turn
from edgemask.detections import Detections
from edgemask.errors import DeviceUnavailable, UnsupportedModel
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    import torch
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

# What torch.compile makes one graph of each. What lies between them depends on the data: proposals and NMS.
COMPILED_PARTS = (
    "backbone",
    "rpn.head",
    "roi_heads.box_head",
    "roi_heads.box_predictor",
    "roi_heads.mask_head",
    "roi_heads.mask_predictor",
    "roi_heads.keypoint_head",
    "roi_heads.keypoint_predictor",
)


class Reference:
    """The PyTorch model that contestants are made of, loaded when it is first asked for.

    Args:
        source: as `edgemask.checkpoints.load_model` takes it.
        weights: where the source is a builder.
        class_names: of the first model file.

    Attributes:
        load: milliseconds that loading it took.
    """

    load = 0.0

    def __init__(self, source: str, weights: str | None, class_names: Sequence[str]) -> None:
        self.source = source
        self.weights = weights
        self.class_names = tuple(class_names)

    @cached_property
    def model(self) -> "GeneralizedRCNN":
        """The model.

        Raises:
            UsageError: nothing of that name.
            ModelFileError: a file that does not fit.
        """
        from edgemask.checkpoints import load_model

        started = time.perf_counter()
        model, _ = load_model(self.source, weights=self.weights, class_names=self.class_names)
        self.load = 1000 * (time.perf_counter() - started)
        return model

    @cached_property
    def sha256(self) -> str:
        """Of its weights."""
        from edgemask.description import weights_digest

        return weights_digest(self.model)


class EagerContestant(Contestant):
    """The PyTorch model in eager mode, under `torch.inference_mode`: torchvision's own transform, RPN, heads and NMS.

    Masks stay probabilities in their boxes, as a model file of ours gives them. The canvas is the one that the model
    makes by itself. On a GPU the device is waited for at both ends of each stage; arithmetic is what PyTorch takes by
    default, which is TF32 in convolutions.

    Args:
        reference: the model.
        spec: thresholds, limits and image sizes to run it with.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceUnavailable: PyTorch cannot use the device here.
    """

    name = "eager"
    precision = "fp32"
    any_size = True

    def __init__(self, reference: Reference, spec: ModelSpec, device: str) -> None:
        from edgemask.reference import configured

        check_device(device)
        model = reference.model
        started = time.perf_counter()
        self._model = configured(model, spec).to(device)
        self._target = device
        self._synchronise()
        self.load = reference.load + 1000 * (time.perf_counter() - started)
        self.device = f"torch:{device}"
        self.sha256 = reference.sha256
        self.spec = spec
        self._lap = Lap()

    def turn(self, pixels: Picture, *, paste: bool) -> Turn:
        """See `Contestant.turn`."""
        return self._lap.time(lambda image: self._detect([image])[0], pixels, paste=paste)

    def predict(self, images: Sequence[Picture]) -> None:
        """See `Contestant.predict`."""
        self._detect(images)

    def close(self) -> None:
        """See `Contestant.close`."""
        del self._model

    def _detect(self, images: Sequence[Picture]) -> list[Detections]:
        import torch

        model = self._model
        with torch.inference_mode():
            batch, _ = model.transform([image_tensor(pixels, self._target) for pixels in images])
            self._synchronise()
            self._lap.began = time.perf_counter()
            with self._arithmetic():
                features = model.backbone(batch.tensors)
                features = {"0": features} if isinstance(features, torch.Tensor) else features
                self._scale(features, tuple(batch.tensors.shape))
                rois, _ = model.rpn(batch, features)
                found, _ = model.roi_heads(features, rois, batch.image_sizes)
            self._synchronise()
            self._lap.ended = time.perf_counter()
            # torchvision's own way back to the image would paste the masks.
            masks = [one.pop("masks", None) for one in found]
            found = model.transform.postprocess(found, batch.image_sizes, [pixels.shape[:2] for pixels in images])
            return [_detections(*one) for one in zip(found, masks, images, strict=True)]

    def _scale(self, features: "dict[str, torch.Tensor]", shape: tuple[int, ...]) -> None:
        """Sets the pooling scales when the canvas changes: torchvision infers them once, from any first image."""
        from edgemask.reference import set_pooling_scales

        if self.canvas != (shape[2], shape[3]):
            self.canvas = shape[2], shape[3]
            set_pooling_scales(self._model, features, self.canvas)
        self.at_a_time = shape[0]

    def _arithmetic(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _synchronise(self) -> None:
        """Waits for the GPU, which PyTorch does not by itself."""
        if self._target != "cpu":
            import torch

            torch.cuda.synchronize(self._target)


class HalfContestant(EagerContestant):
    """The same under `torch.autocast` with float16: what a user turns on for speed on a GPU.

    Raises:
        DeviceUnavailable: not on a GPU.
    """

    name = "eager-fp16"
    precision = "fp16"

    def __init__(self, reference: Reference, spec: ModelSpec, device: str) -> None:
        if device == "cpu":
            raise DeviceUnavailable(f"{self.name} is measured on a GPU alone", "add --reference-device cuda")
        super().__init__(reference, spec, device)

    def _arithmetic(self) -> contextlib.AbstractContextManager[None]:
        import torch

        return torch.autocast("cuda", torch.float16)


class CompiledContestant(EagerContestant):
    """The same with backbone, RPN head and heads under `torch.compile`, its default backend and options.

    The whole model would break into such pieces by itself, wherever sizes depend on the data. A piece compiles when it
    is first run, and once more when its number of rois changes: the first run and the warm-up hold that.

    Raises:
        UnsupportedModel: from the first run: it does not compile here.
    """

    name = "compile"

    def __init__(self, reference: Reference, spec: ModelSpec, device: str) -> None:
        import torch

        super().__init__(reference, spec, device)
        for path in COMPILED_PARTS:
            owner, _, part = path.rpartition(".")
            holder = self._model.get_submodule(owner)
            if getattr(holder, part, None) is not None:
                setattr(holder, part, torch.compile(getattr(holder, part)))

    def _detect(self, images: Sequence[Picture]) -> list[Detections]:
        try:
            return super()._detect(images)
        except Exception as error:  # a compiler can fail in any way
            words = " ".join(str(error).split()) or type(error).__name__
            raise UnsupportedModel(
                f"torch.compile failed: {words[:300]}", "leave compile out of --against, or install a C++ compiler"
            ) from error


def check_device(device: str) -> None:
    """Refuses a device that PyTorch cannot use.

    Raises:
        DeviceUnavailable: there is no such GPU, or this PyTorch has no CUDA.
    """
    import torch

    if device == "cpu":
        return
    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise DeviceUnavailable(f"PyTorch cannot use {device} here", "edgemask doctor says why")


def image_tensor(pixels: Picture, device: str = "cpu") -> "torch.Tensor":
    """What torchvision's models take: float32 [3, H, W] in 0-1."""
    import torch

    return torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() / 255


def _detections(found: "dict[str, torch.Tensor]", masks: "torch.Tensor | None", pixels: Picture) -> Detections:
    arrays = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    numbers = {name: value.cpu().numpy() for name, value in arrays.items()}
    return Detections(
        boxes=numbers["boxes"],
        scores=numbers["scores"],
        labels=numbers["labels"],
        masks=None if masks is None else masks[:, 0].float().cpu().numpy(),
        keypoints=numbers.get("keypoints"),
        keypoint_scores=numbers.get("keypoints_scores"),
        image_size=(pixels.shape[0], pixels.shape[1]),
    )
