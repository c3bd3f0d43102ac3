"""The runtime API: a model opened on a device, images in, detections out."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.canvas import Placement
from edgemask.checks import Described, refuse
from edgemask.detections import Detections
from edgemask.errors import ForkedProcessError, ModelFileError, UsageError
from edgemask.images import load_image
from edgemask.runtimes.assignment import has_heavy
from edgemask.runtimes.devices import open_runtime
from edgemask.runtimes.inputs import (
    Boxes,
    Placed,
    batches_of,
    checked_inputs,
    inputs_of_batch,
    inputs_with_whole,
    placed_of,
    refuse_proposals,
)
from edgemask.runtimes.modelfile import ModelFile, read_model
from edgemask.runtimes.options import RuntimeOptions
from edgemask.runtimes.placement import DevicePlacement, placement_of
from edgemask.runtimes.results import detections_of, map_of
from edgemask.runtimes.runtime import Array, Runtime
from edgemask.runtimes.stream import Steps, streamed
from edgemask.scenes import draw_scene
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

DYNAMIC_BATCH = 4  # images per run at most where the graph takes any number: memory grows with it
_DRAWN, _OBJECTS = 0, 8  # the scene on which `placement` runs a model

Source = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
AnySource = TypeVar("AnySource", bound=Source)
Result = TypeVar("Result")
ResultOf = Callable[[Mapping[str, Array], int, Placement, ModelSpec, str], Result]


class Detector:
    """A model opened on a device. Use `edgemask.load`; it is a context manager and may serve several threads.

    Attributes:
        spec: what the model file says about itself.
        device: the device in use, such as `cpu`, `cuda:0` or `openvino:CPU`.
        refusals: for `auto` and with a fallback, one line for each device that was tried before this one and could not
            be used.
    """

    def __init__(
        self,
        model: ModelFile,
        device: str = "auto",
        *,
        options: RuntimeOptions | None = None,
        fallback: bool = False,
    ) -> None:
        """Opens a model that `read_model` gave; see `edgemask.load`."""
        self.spec = model.spec
        self._options = options or RuntimeOptions()
        self._file = model.path.absolute(), model.digest
        self._runtime, self.refusals = open_runtime(model, device, self._options, fallback=fallback)
        self.device = self._runtime.device
        self._process, self._closed = os.getpid(), False

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

    def stream(
        self, sources: Iterable[Source], *, batch: int = 1, ahead: int = 2, proposals: Iterable[Boxes] | None = None
    ) -> Generator[tuple[NDArray[np.uint8], Detections | SemanticMap], None, None]:
        """Works on images while the next ones are read: for folders, videos and cameras.

        Reading, the graph and the results run in threads of their own. The generator ends them when it is closed, when
        nobody holds it any more, and with any error; a source that is waited for, or a run of the graph, is waited
        for then too.

        Args:
            sources: images as for `predict`; any iterable, an endless one too. It is iterated in another thread, at
                most `ahead` images and three runs beyond what was taken from here. Its iterator is closed in the end,
                if it can be, as a generator can.
            batch: images that are run together where they have one canvas. A run waits for so many. A model of a fixed
                batch takes more, up to its own number, where they have been read already.
            ahead: images that may be waiting, read or ready.
            proposals: as for `predict`, one array for each image.

        Yields:
            For each image, in order: its pixels as uint8 [H, W, 3] RGB, which are nobody else's, and what `predict`, or
            `segment`, gives for them.

        Raises:
            UsageError: as for `predict`; at once, or where it is the turn of the image that is at fault. So are errors
                of the iterable and all those that `predict` raises.
        """
        self._check()
        if (proposals is None) != (self.spec.proposals == "rpn"):
            refuse_proposals(self.spec)
        return streamed(
            sources,
            proposals,
            self._steps(),
            fixed_batch=self.spec.batch,
            batch=batch,
            ahead=ahead,
            runs=self._options.streams or 1,
        )

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
        return self._opened().run(checked_inputs(images, image_sizes, proposals, self.spec))

    def placement(self, image: Source | None = None) -> DevicePlacement:
        """Runs the model on an image and says where each part of it ran, in which arithmetic, and how long.

        The file is read and opened a second time for it, so that the memory of both is needed for a moment.

        Args:
            image: as for `predict`; None draws one. Of a model that takes its proposals, its whole is one.

        Returns:
            The record; `ok` is False where a convolution, a matrix product, RoiAlign, NMS or TopK ran elsewhere than on
                the device, or in another type than was asked for.

        Raises:
            ModelFileError: the file is gone, or was changed since it was opened.
            OutOfMemory: too little memory for both.
            ImageError, UsageError: no usable image, or a closed detector.
        """
        runtime, (path, digest) = self._opened(), self._file
        model = read_model(path)
        if model.digest != digest:
            raise ModelFileError(f"{path} was changed since it was opened", "open it again with edgemask.load")
        pixels = draw_scene(_DRAWN, objects=_OBJECTS).image if image is None else load_image(image)
        return placement_of(
            runtime.profile(model, inputs_with_whole(pixels, self.spec)),
            device=self.device,
            promised=runtime.promised,
            strays=runtime.strays,
            spec=self.spec,
            heavy=has_heavy(model.proto),
            precision=self._options.precision,
            image="a drawn scene" if image is None else str(image) if isinstance(image, str | Path) else "an image",
        )

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._free()

    def __enter__(self) -> Self:
        """Gives the detector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees the model."""
        self.close()

    def _free(self) -> None:
        self._runtime.close()

    def _opened(self) -> Runtime:
        self._check()
        return self._runtime

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise ForkedProcessError(
                f"this detector belongs to process {self._process}, not to its forked child {os.getpid()}",
                "open the model in the child, or start the child with the method spawn",
            )
        if self._closed:
            raise UsageError("this detector was closed", "open the model again with edgemask.load")

    def _run_all(
        self, sources: Sequence[Source], proposals: Sequence[Boxes] | None, result_of: ResultOf[Result]
    ) -> list[Result]:
        if (proposals is None) != (self.spec.proposals == "rpn"):
            refuse_proposals(self.spec)
        if proposals is not None and len(proposals) != len(sources):
            refuse("proposals", f"one array for each of {len(sources)} images", Described(str(len(proposals))))
        own = [()] * len(sources) if proposals is None else proposals
        placed = (placed_of(load_image(source), boxes, self.spec) for source, boxes in zip(sources, own, strict=True))
        found: list[Result] = []
        for batch in batches_of(placed, self.spec.batch or DYNAMIC_BATCH):
            outputs = self.run(*inputs_of_batch(batch, self.spec))
            found += [
                result_of(outputs, index, one.placement, self.spec, self.device) for index, one in enumerate(batch)
            ]
        return found

    def _steps(self) -> Steps[tuple[Source, Boxes], Any, Any, tuple[NDArray[np.uint8], Detections | SemanticMap]]:
        return Steps(
            prepare=self._loaded,
            run=lambda loaded: self.run(*inputs_of_batch([placed for _, placed in loaded], self.spec)),
            finish=self._finished,
            fit=lambda one, other: one[1].placement.canvas == other[1].placement.canvas,
            check=self._check,
        )

    def _loaded(self, pair: tuple[Source, Boxes]) -> tuple[NDArray[np.uint8], Placed]:
        source, boxes = pair
        pixels = load_image(source)
        # A camera may write its next image into the array of the last.
        if isinstance(source, np.ndarray) and np.may_share_memory(pixels, source):
            pixels = pixels.copy()
        return pixels, placed_of(pixels, boxes, self.spec)

    def _finished(
        self, outputs: Mapping[str, Array], index: int, loaded: tuple[NDArray[np.uint8], Placed]
    ) -> tuple[NDArray[np.uint8], Detections | SemanticMap]:
        pixels, placed = loaded
        result_of: ResultOf[Detections | SemanticMap] = map_of if "semantic" in self.spec.tasks else detections_of
        return pixels, result_of(outputs, index, placed.placement, self.spec, self.device)
