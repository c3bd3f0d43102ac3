"""The runtime API: a model opened on a device, images in, detections out."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.canvas import Placement, boxes_to_original, place_on_canvas
from edgemask.checks import Described, refuse
from edgemask.detections import Detections
from edgemask.errors import EdgemaskError, ForkedProcessError, UsageError
from edgemask.images import load_image
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.modelfile import ModelFile, read_model
from edgemask.runtimes.runtime import Array, Runtime
from edgemask.spec import ModelSpec

Source = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
AnySource = TypeVar("AnySource", bound=Source)


class Detector:
    """A model opened on a device. Use `edgemask.load`; it is a context manager and may serve several threads.

    Attributes:
        spec: what the model file says about itself.
        device: the device in use, such as `cpu`, `cuda:0` or `openvino:CPU`.
        refusals: for `auto`, one line for each device that was tried before this one and could not be used.
    """

    def __init__(self, model: ModelFile, device: str = "auto") -> None:
        """Opens a model that `read_model` gave; see `edgemask.load`."""
        self.spec = model.spec
        runtime, self.refusals = open_runtime(model, device)
        self._runtime: Runtime | None = runtime
        self.device = runtime.device
        self._process = os.getpid()

    @overload
    def predict(self, source: Source) -> Detections: ...

    @overload
    def predict(self, source: list[AnySource] | tuple[AnySource, ...]) -> list[Detections]: ...

    def predict(self, source: Any) -> Detections | list[Detections]:
        """Detects objects.

        Args:
            source: an image as a path (EXIF orientation is applied), a Pillow image, or a uint8 [H, W, 3] RGB array;
                or a list or tuple of these, which is cut into batches that the spec allows.

        Returns:
            The detections of the image, in pixels of the original; for a list or tuple, a list of them.

        Raises:
            ImageError: no usable image.
            UsageError: an array of another dtype or shape, something that is no image, or a closed detector.
            OutOfMemory: too large for the device.
            ForkedProcessError: this process was forked after the model was opened.
        """
        if isinstance(source, list | tuple):
            return self._predict_all(source)
        return self._predict_all([source])[0]

    def run(self, images: NDArray[np.float32], image_sizes: NDArray[np.int64]) -> dict[str, Array]:
        """Runs the graph itself, without resize and without scaling boxes back.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.

        Returns:
            The graph's outputs by name.

        Raises:
            UsageError: an array of another dtype or shape, a size beyond the canvas, or a closed detector.
            OutOfMemory: too large for the device.
            ForkedProcessError: this process was forked after the model was opened.
        """
        if os.getpid() != self._process:
            raise ForkedProcessError(
                f"this detector belongs to process {self._process}, not to its forked child {os.getpid()}",
                "open the model in the child, or start the child with the method spawn",
            )
        if self._runtime is None:
            raise UsageError("this detector was closed", "open the model again with edgemask.load")
        _check_inputs(images, image_sizes, self.spec)
        return self._runtime.run(images, image_sizes)

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def __enter__(self) -> Self:
        """Gives the detector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees the model."""
        self.close()

    def _predict_all(self, sources: Sequence[Source]) -> list[Detections]:
        batch = self.spec.batch or 1
        found: list[Detections] = []
        placed: list[tuple[NDArray[np.float32], Placement]] = []
        for source in sources:
            image, placement = place_on_canvas(load_image(source), self.spec)
            # On a dynamic canvas, images of different sizes fit no common batch.
            if len(placed) == batch or (placed and placed[0][1].canvas != placement.canvas):
                found += self._predict_batch(placed, batch)
                placed = []
            placed.append((image, placement))
        return found + (self._predict_batch(placed, batch) if placed else [])

    def _predict_batch(self, placed: list[tuple[NDArray[np.float32], Placement]], batch: int) -> list[Detections]:
        """Runs images of one canvas; the graph takes whole batches, so the last image stands in for missing ones."""
        filled = placed + placed[-1:] * (batch - len(placed))
        images = np.stack([image for image, _ in filled])
        sizes = np.array([placement.size for _, placement in filled], np.int64)
        outputs = self.run(images, sizes)
        return [self._detections(outputs, index, placement) for index, (_, placement) in enumerate(placed)]

    def _detections(self, outputs: dict[str, Any], index: int, placement: Placement) -> Detections:
        rows = outputs["batch_index"] == index
        values = {name: outputs[name][rows] for name in ("boxes", "scores", "labels", "masks") if name in outputs}
        broken = [name for name, value in values.items() if not np.isfinite(value).all()]
        if broken:
            raise EdgemaskError(
                f"the model gave {', '.join(broken)} that are not numbers on {self.device}",
                "run `edgemask validate` to see where they come from",
            )
        return Detections(
            boxes=boxes_to_original(values["boxes"], placement),
            scores=values["scores"],
            labels=values["labels"],
            masks=values.get("masks"),
            image_size=placement.original_size,
        )


def _check_inputs(images: NDArray[np.float32], image_sizes: NDArray[np.int64], spec: ModelSpec) -> None:
    """Refuses what does not fit the graph: OpenVINO would run it, whatever its type and number of channels."""
    _check_array("images", images, np.float32, 4)
    _check_array("image_sizes", image_sizes, np.int64, 2)
    stride = spec.size_divisible
    canvas = spec.canvas or tuple(-(-side // stride) * stride for side in images.shape[2:])
    for name, shape, expected in (
        ("images", images.shape, (spec.batch or len(images), 3, *canvas)),
        ("image_sizes", image_sizes.shape, (len(images), 2)),
    ):
        if shape != expected:
            refuse(name, str(list(expected)), Described(str(list(shape))))
    if (image_sizes < 1).any() or (image_sizes > canvas).any():
        refuse("image_sizes", f"heights and widths within the canvas {canvas}", image_sizes.tolist())


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], rank: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != rank or not array.size:
        got = f"{getattr(array, 'dtype', type(array).__name__)} {list(np.shape(array))}"
        refuse(name, f"{np.dtype(dtype)} of {rank} dimensions, not empty", Described(got))


def load(path: str | Path, *, device: str = "auto") -> Detector:
    """Opens a model file. See `edgemask.load`."""
    return Detector(read_model(path), device)
