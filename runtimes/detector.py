"""The runtime API: a model opened on a device, images in, detections out."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.canvas import Placement, place_on_canvas
from edgemask.checks import Described, refuse
from edgemask.detections import Detections
from edgemask.errors import ForkedProcessError, UsageError
from edgemask.images import load_image
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import checked_inputs, refuse_proposals, rois_of
from edgemask.runtimes.modelfile import ModelFile, read_model
from edgemask.runtimes.results import detections_of, map_of
from edgemask.runtimes.runtime import Array, Runtime
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

DYNAMIC_BATCH = 4  # images per run at most where the graph takes any number: memory grows with it

Source = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Boxes = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | Sequence[Sequence[float]]
AnySource = TypeVar("AnySource", bound=Source)
Result = TypeVar("Result")
ResultOf = Callable[[Mapping[str, Array], int, Placement, ModelSpec, str], Result]


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
    def predict(self, source: Source, *, proposals: Boxes | None = None) -> Detections: ...

    @overload
    def predict(
        self, source: list[AnySource] | tuple[AnySource, ...], *, proposals: Sequence[Boxes] | None = None
    ) -> list[Detections]: ...

    def predict(self, source: Any, *, proposals: Any = None) -> Detections | list[Detections]:
        """Detects objects.

        Args:
            source: an image as a path (EXIF orientation is applied), a Pillow image, or a uint8 [H, W, 3] RGB array;
                or a list or tuple of these, which is cut into batches that the spec allows.
            proposals: for a model that was exported with `proposals="input"`: boxes [N, 4] xyxy in pixels of the
                image, inside of it; for a list or tuple of images, one such array for each.

        Returns:
            The detections of the image, in pixels of the original; for a list or tuple, a list of them.

        Raises:
            ImageError: no usable image.
            UsageError: an array of another dtype or shape, something that is no image, a box outside its image,
                proposals for a model that finds its own or none for one that does not, or a closed detector.
            OutOfMemory: too large for the device.
            ForkedProcessError: this process was forked after the model was opened.
        """
        if "semantic" in self.spec.tasks:
            raise UsageError("this model labels pixels and detects nothing", "call segment() in place of predict()")
        if isinstance(source, list | tuple):
            return self._run_all(source, proposals, detections_of)
        return self._run_all([source], None if proposals is None else [proposals], detections_of)[0]

    @overload
    def segment(self, source: Source) -> SemanticMap: ...

    @overload
    def segment(self, source: list[AnySource] | tuple[AnySource, ...]) -> list[SemanticMap]: ...

    def segment(self, source: Any) -> SemanticMap | list[SemanticMap]:
        """Labels every pixel, with a semantic model such as an FCN.

        Args:
            source: as for `predict`.

        Returns:
            The labels of the image's pixels; for a list or tuple, a list of them.

        Raises:
            UsageError: a model that detects objects, and as for `predict`, as are all other errors.
        """
        if "semantic" not in self.spec.tasks:
            raise UsageError("this model detects objects", "call predict() in place of segment()")
        if isinstance(source, list | tuple):
            return self._run_all(source, None, map_of)
        return self._run_all([source], None, map_of)[0]

    def run(
        self,
        images: NDArray[np.float32],
        image_sizes: NDArray[np.int64],
        proposals: NDArray[np.float32] | None = None,
    ) -> dict[str, Array]:
        """Runs the graph itself, without resize and without scaling boxes back.

        Args:
            images: float32 [B, 3, H, W] RGB in 0-255 on the canvas.
            image_sizes: int64 [B, 2], height and width of each image inside the canvas.
            proposals: float32 [R, 5] batch index and xyxy in canvas pixels, for a model that takes them.

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
        return self._runtime.run(checked_inputs(images, image_sizes, proposals, self.spec))

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

    def _run_all(
        self, sources: Sequence[Source], proposals: Sequence[Boxes] | None, result_of: ResultOf[Result]
    ) -> list[Result]:
        if (proposals is None) != (self.spec.proposals == "rpn"):
            refuse_proposals(self.spec)
        if proposals is not None and len(proposals) != len(sources):
            refuse("proposals", f"one array for each of {len(sources)} images", Described(str(len(proposals))))
        batch = self.spec.batch or DYNAMIC_BATCH
        found: list[Result] = []
        placed: list[_Placed] = []
        own = [()] * len(sources) if proposals is None else proposals
        for source, boxes in zip(sources, own, strict=True):
            image, placement = place_on_canvas(load_image(source), self.spec)
            # On a dynamic canvas, images of different sizes fit no common batch.
            if len(placed) == batch or (placed and placed[0].placement.canvas != placement.canvas):
                found += self._run_batch(placed, result_of)
                placed = []
            placed.append(_Placed(image, placement, boxes))
        return found + (self._run_batch(placed, result_of) if placed else [])

    def _run_batch(self, placed: "list[_Placed]", result_of: ResultOf[Result]) -> list[Result]:
        """Runs images of one canvas; where the graph takes whole batches, the last image stands in for missing ones."""
        batch = self.spec.batch or len(placed)
        filled = placed + placed[-1:] * (batch - len(placed))
        images = np.stack([one.image for one in filled])
        sizes = np.array([one.placement.size for one in filled], np.int64)
        rois = None
        if self.spec.proposals == "input":
            rois = rois_of([one.boxes for one in placed], [one.placement for one in placed], batch, self.spec)
        outputs = self.run(images, sizes, rois)
        return [result_of(outputs, index, one.placement, self.spec, self.device) for index, one in enumerate(placed)]


@dataclass(frozen=True, slots=True)
class _Placed:
    """An image on its canvas, and the boxes that the caller gave for it."""

    image: NDArray[np.float32]
    placement: Placement
    boxes: Boxes


def load(path: str | Path, *, device: str = "auto") -> Detector:
    """Opens a model file. See `edgemask.load`."""
    return Detector(read_model(path), device)
