"""A model opened by every worker of a cluster: for folders of images that are too many for one machine."""

import contextlib
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from edgemask.cluster.connection import Cluster, Connection
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.images import load_image

if TYPE_CHECKING:
    from edgemask.detections import Detections
    from edgemask.runtimes import Detector, RuntimeOptions
    from edgemask.runtimes.inputs import Boxes
    from edgemask.semantic import SemanticMap


class ClusterDetector:
    """A model opened by every worker of a cluster: the stream of `edgemask.runtimes.Detector`, for many images.

    Attributes:
        spec: what the model file says about itself.
        device: as asked for, until the first result says which it is; the same in all workers.
        refusals: devices that were tried before that one, with the reasons.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cluster: Cluster,
        device: str = "auto",
        options: "RuntimeOptions | None" = None,
        pictures: bool = True,
    ) -> None:
        """Reads the model file here, and joins the cluster; its workers open the file when they are needed.

        Args:
            path: an ONNX file written by edgemask, that all nodes have.
            cluster: where it runs.
            device: as for `edgemask.load`, without a number: Ray gives every worker a GPU of its own.
            options: how the workers open it; `threads` is 1 unless it is said.
            pictures: whether images are read here again, for what is drawn; without it the stream's are empty.

        Raises:
            UsageError: no such device, or a numbered one.
            ModelFileError: no sound model file.
            DependencyMissing: Ray is not installed.
            DeviceUnavailable: no cluster answers at the address.
        """
        from edgemask.runtimes import RuntimeOptions, read_model
        from edgemask.runtimes.devices import device_named

        if device != "auto" and device_named(device).name.partition(":")[2].isdecimal():
            raise UsageError(
                f"{device} is one GPU of one machine, and Ray gives each worker a GPU of its own",
                f"leave out the number: --device {device.partition(':')[0]}",
            )
        model = read_model(path)
        self.spec, self.device, self.refusals = model.spec, device, tuple[str, ...]()
        self._path, self._digest, self._pictures = str(path), model.digest, pictures
        self._options = options or RuntimeOptions()
        self._asked = device
        self._connection = Connection(cluster)

    def stream(
        self, sources: Iterable[str | os.PathLike[str]], *, proposals: "Iterable[Boxes] | None" = None
    ) -> "Generator[tuple[NDArray[np.uint8], Detections | SemanticMap], None, None]":
        """As `Detector.stream`, of image files.

        Args:
            sources: paths of images that all nodes have; all are taken at once.
            proposals: as for `Detector.stream`.

        Yields:
            For each image, in order: its pixels as uint8 [H, W, 3] RGB, or [0, 0, 3] without `pictures`, and what was
            found.

        Raises:
            EdgemaskError: in the place of its image, as in one process; or where workers open different devices.
        """
        from edgemask.runtimes.inputs import refuse_proposals

        if (proposals is None) != (self.spec.proposals == "rpn"):
            refuse_proposals(self.spec)
        paths = [os.fspath(source) for source in sources]
        boxes: list[Boxes | None] = [None] * len(paths) if proposals is None else list(proposals)
        threads = self._options.threads or 1
        kind = self._asked.partition(":")[0]
        on_gpu = kind in ("cuda", "tensorrt") or (kind == "auto" and self._connection.has_gpus())
        results = self._connection.spread(
            list(zip(paths, boxes, strict=True)),
            _Opening(self._path, self._digest, self._asked, replace(self._options, threads=threads)),
            _found,
            threads=threads,
            on_gpu=on_gpu,
        )
        with contextlib.closing(results):
            for number, (path, (device, refusals, found)) in enumerate(zip(paths, results, strict=True)):
                if number and device != self.device:
                    raise DeviceUnavailable(
                        f"some workers run the model on {self.device}, others on {device}",
                        "name one with --device, so that all results are of one kind",
                    )
                self.device, self.refusals = device, refusals
                yield load_image(path) if self._pictures else np.empty((0, 0, 3), np.uint8), found

    def close(self) -> None:
        """Leaves the cluster."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Gives the detector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster."""
        self.close()


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens a model file in a worker, if it is the driver's."""

    path: str
    digest: str
    device: str
    options: "RuntimeOptions"

    def __call__(self) -> "Detector":
        from edgemask.runtimes import Detector, read_model

        model = read_model(self.path)
        if model.digest != self.digest:
            raise ModelFileError(
                f"{self.path} is another file on a node of the cluster",
                "give all nodes the same files, as a share does",
            )
        return Detector(model, self.device, options=self.options)


def _found(detector: "Detector", job: "tuple[str, Boxes | None]") -> tuple[str, tuple[str, ...], Any]:
    """What a worker finds on an image, and where."""
    path, boxes = job
    found = detector.segment(path) if "semantic" in detector.spec.tasks else detector.predict(path, proposals=boxes)
    return detector.device, detector.refusals, found
