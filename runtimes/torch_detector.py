"""The device `torch`: the PyTorch model itself, behind the interface of a detector."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.errors import DependencyMissing, DeviceUnavailable, UsageError
from edgemask.images import load_image
from edgemask.runtimes.detector import Detector, ResultOf, Source
from edgemask.runtimes.inputs import Boxes, refuse_proposals
from edgemask.runtimes.options import RuntimeOptions, check_options
from edgemask.runtimes.placement import DevicePlacement
from edgemask.runtimes.runtime import Array
from edgemask.runtimes.stream import Steps
from edgemask.semantic import SemanticMap

Pixels = NDArray[np.uint8]
Pair = tuple[Pixels, Detections | SemanticMap]
_EXPORT = "export it: edgemask export CHECKPOINT -o model.onnx"


class TorchDetector(Detector):
    """A checkpoint, run by PyTorch eagerly: what every exported file is held to. Slow, and exact by definition.

    Images are worked on one by one, on the canvas of the checkpoint's spec; nothing is compiled, kept or rounded.
    """

    def __init__(self, path: str | Path, device: str = "torch", *, options: RuntimeOptions | None = None) -> None:
        """Opens a checkpoint that edgemask wrote.

        Args:
            path: the checkpoint.
            device: `torch` or `torch:cpu`, `torch:cuda`, `torch:cuda:N`.
            options: `threads` is set for all of PyTorch in this process; the others have nothing to say here.

        Raises:
            ModelFileError: no sound checkpoint.
            UsageError: no such device, or an option that it does not have.
            DeviceUnavailable: PyTorch sees no such GPU.
            DependencyMissing: PyTorch is not installed.
        """
        try:
            import torch

            from edgemask.checkpoints import load_checkpoint
            from edgemask.semantic_reference import reference_for
        except ModuleNotFoundError as error:
            raise DependencyMissing(
                f"the device torch needs the package {error.name}, which is not installed",
                "pip install 'edgemask[export]'",
            ) from error
        options = self._options = options or RuntimeOptions()
        place = _place(path, device)
        check_options(options, device)
        if place != "cpu" and not (torch.cuda.is_available() and torch.device(place).index < torch.cuda.device_count()):
            raise DeviceUnavailable(f"PyTorch sees no GPU for {device}", "`edgemask doctor` says what is missing")
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        model, self.spec = load_checkpoint(path)
        if place != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # a reference rounds as little as it can
        self._reference: Any = reference_for(model.to(place), self.spec)
        self.device = f"torch:{place}"
        self.refusals = ()
        self._process, self._closed = os.getpid(), False

    def placement(self, image: Source | None = None) -> DevicePlacement:
        """Refused: PyTorch is asked for nothing of this.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"all of this model runs in PyTorch on {self.device.partition(':')[2]}", _EXPORT)

    def run(self, images: Any, image_sizes: Any, proposals: Any = None) -> dict[str, Array]:
        """Refused: there is no graph.

        Raises:
            UsageError: always.
        """
        raise UsageError("a PyTorch model has no graph to run", f"call predict() or segment(), or {_EXPORT}")

    def _free(self) -> None:
        self._reference = None

    def _look(self, pixels: Pixels) -> Detections | SemanticMap:
        look = self._reference.segment if "semantic" in self.spec.tasks else self._reference.predict
        found: Detections | SemanticMap = look(pixels)
        return found

    def _run_all(
        self, sources: Sequence[Source], proposals: Sequence[Boxes] | None, result_of: ResultOf[Any]
    ) -> list[Any]:
        if proposals is not None:
            refuse_proposals(self.spec)
        self._check()
        return [self._look(load_image(source)) for source in sources]

    def _steps(self) -> Steps[tuple[Source, Boxes], Any, Any, Pair]:
        return Steps(
            prepare=lambda pair: np.array(load_image(pair[0])),
            run=lambda loaded: [self._look(pixels) for pixels in loaded],
            finish=lambda found, index, pixels: (pixels, found[index]),
            fit=lambda one, other: True,
            check=self._check,
        )


def _place(path: str | Path, device: str) -> str:
    """The device in PyTorch's words.

    Raises:
        UsageError: a device that does not run a checkpoint.
    """
    found = re.fullmatch(r"torch(:cpu|:cuda(?::(\d{1,3}))?)?", device)
    if found is None:
        raise UsageError(
            f"{path} is a checkpoint, which runs on torch, torch:cuda or torch:cuda:N, not on {device!r}", _EXPORT
        )
    return f"cuda:{int(found[2] or 0)}" if "cuda" in device else "cpu"
