"""Both sides of a comparison on a cluster: its workers look at the images, all else is done here."""

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemask.cluster import Cluster, Connection
from edgemask.errors import EdgemaskError, ImageError, ModelFileError, UsageError
from edgemask.images import load_image
from edgemask.runs import RunEntry, file_digest
from edgemask.validation.images import UsableImage
from edgemask.validation.journals import JournaledSide
from edgemask.validation.sides import Boxes, FileSide, Picture, RunSide, Side, Stages, open_reference

if TYPE_CHECKING:
    from edgemask.models import Model

StrPath = str | os.PathLike[str]
_THREADS = 1  # of each worker: all of a cluster's processors are busy with images of their own
_CANDIDATE, _REFERENCE = "candidate", "reference"
_Job = tuple[UsableImage, tuple[str, ...]]
_Entries = dict[str, RunEntry | EdgemaskError]


class ClusterSide(Side):
    """A side whose images are looked at on a cluster; what was not expected there it does itself."""

    alone = False

    def __init__(self, side: Side, name: str, spreading: "Spreading") -> None:
        """Takes the side that is open here, and which of the two it is."""
        self.side, self.name, self._spreading = side, name, spreading
        self.facts, self.spec = side.facts, side.spec
        self.notes = (
            *side.notes,
            "images were looked at by workers of a cluster: their times are of several at a time",
        )

    def look(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> RunEntry:
        """See `Side.look`."""
        entry = self._spreading.take(self.name, image)
        return self.side.look(image, pixels, proposals) if entry is None else entry

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """See `Side.stages`."""
        return self.side.stages(image, pixels, proposals)


class Spreading:
    """A validation's cluster, and what its workers are asked for.

    Args:
        cluster: where.
        reference: as `validate` takes it; a model that exists in this process alone cannot travel.
        weights: for a builder.
        candidate: the model.
        stack: leaves the cluster.

    Raises:
        UsageError: a reference that cannot travel, or a model whose proposals the reference makes.
    """

    def __init__(
        self,
        cluster: Cluster,
        reference: "StrPath | Model",
        weights: StrPath | None,
        candidate: FileSide,
        stack: contextlib.ExitStack,
    ) -> None:
        if not isinstance(reference, str | os.PathLike):
            raise UsageError("a PyTorch model of this process cannot go to a cluster", "give its checkpoint's path")
        if candidate.spec.proposals == "input":
            raise UsageError(
                f"{candidate.facts.name} is given the reference's proposals, which are made here", "use --engine local"
            )
        self._reference, self._weights = os.fspath(reference), None if weights is None else os.fspath(weights)
        self._connection = stack.enter_context(Connection(cluster))
        self._rows: Generator[tuple[str, _Entries], None, None] | None = None
        self._name, self._entries = "", _Entries()

    def side(self, side: Side, name: str) -> Side:
        """A side that the cluster looks for; a stored run has looked already."""
        return side if isinstance(side, RunSide) else ClusterSide(side, name, self)

    def candidate(self, side: FileSide) -> Side:
        """As `side`, of the model."""
        return self.side(side, _CANDIDATE)

    def reference(self, side: Side) -> Side:
        """As `side`, of what it is compared with."""
        return self.side(side, _REFERENCE)

    def expect(self, images: Sequence[UsableImage], candidate: FileSide, sides: Sequence[Side]) -> None:
        """Sets the cluster to work on the images that follow, as far as the sides do not know them already.

        Args:
            images: in the order in which they will be looked at.
            candidate: the model, on the device that comes next.
            sides: the two that will be asked.
        """
        self.stop()
        jobs = [(image, names) for image in images if (names := tuple(_asked(image, sides)))]
        opening = _Opening(
            candidate.facts.name, candidate.facts.sha256, candidate.facts.device, self._reference, self._weights
        )
        kind = candidate.facts.device.partition(":")[0]
        self._rows = self._connection.spread(
            jobs, opening, _look, threads=_THREADS, on_gpu=kind in ("cuda", "tensorrt")
        )

    def take(self, name: str, image: UsableImage) -> RunEntry | None:
        """What a side has found on an image; None where the cluster was not asked for it.

        Raises:
            EdgemaskError: what the side raised.
        """
        if image.name != self._name and self._rows is not None:
            self._name, self._entries = next(self._rows, ("", {}))
        entry = self._entries.get(name) if image.name == self._name else None
        if isinstance(entry, EdgemaskError):
            raise entry
        return entry

    def stop(self) -> None:
        """Stops the workers."""
        if self._rows is not None:
            self._rows.close()
        self._rows, self._name, self._entries = None, "", {}


def _asked(image: UsableImage, sides: Sequence[Side]) -> Generator[str, None, None]:
    """Names of the sides that do not have an image in their journals."""
    for side in sides:
        own = side.side if isinstance(side, JournaledSide) else side
        kept = side.journal.get(image.name, image.digest) if isinstance(side, JournaledSide) else None
        if isinstance(own, ClusterSide) and kept is None:
            yield own.name


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens the sides in a worker, as the driver has them; each when it is asked for."""

    path: str
    sha256: str | None
    device: str
    reference: str
    weights: str | None

    def __call__(self) -> "_Sides":
        return _Sides(self)


class _Sides:
    """The sides of a worker."""

    def __init__(self, opening: _Opening) -> None:
        from edgemask.runtimes import RuntimeOptions

        self._stack, self._opening = contextlib.ExitStack(), opening
        self._options = RuntimeOptions(threads=_THREADS)
        candidate = FileSide(opening.path, opening.device, self._stack, self._options)
        if candidate.facts.sha256 != opening.sha256:
            raise ModelFileError(f"{opening.path} is another file on a node of the cluster", "give all nodes the same")
        self._sides: dict[str, Side] = {_CANDIDATE: candidate}

    def named(self, name: str) -> Side:
        """One of the two, opened."""
        if name not in self._sides:
            opening, spec = self._opening, self._sides[_CANDIDATE].spec
            self._sides[name] = open_reference(
                opening.reference,
                spec,
                device=opening.device,
                weights=opening.weights,
                stack=self._stack,
                options=self._options,
            )
        return self._sides[name]


def _look(sides: _Sides, job: _Job) -> tuple[str, _Entries]:
    """What a worker finds on an image."""
    image, names = job
    pixels = load_image(image.path)
    if file_digest(image.path) != image.digest:
        raise ImageError(f"{image.path} is another file on a node of the cluster", "give all nodes the same files")
    found = _Entries()
    for name in reversed(names):  # the reference first, as where both look in one process
        side = sides.named(name)
        try:
            found[name] = side.look(image, pixels, None)
        except EdgemaskError as error:
            found[name] = error
    return image.name, found
