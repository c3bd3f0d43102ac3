"""The two sides of a comparison: what finds something on an image."""

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import DependencyMissing, ModelFileError, UsageError
from edgemask.processors import let_threads_rest
from edgemask.runs import RunEntry, StoredRun, file_digest
from edgemask.spec import ModelSpec
from edgemask.validation.images import UsableImage, has_own_names
from edgemask.validation.reports import ModelFacts

if TYPE_CHECKING:
    from edgemask.models import Model
    from edgemask.reference import ReferenceDetector
    from edgemask.runtimes import RuntimeOptions
    from edgemask.semantic_reference import SemanticReference

StrPath = str | os.PathLike[str]
Picture = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Stages = Mapping[str, NDArray[Any]]
# A PyTorch model takes them from the file; of another file they may differ on purpose.
_NOTED = ("canvas", "min_size", "max_size", "fixed_size", "image_mean", "image_std", "max_proposals")


class Side(ABC):
    """What finds something on an image.

    Attributes:
        facts: what it is.
        spec: its canvas, tasks and thresholds.
        notes: what a reader of the report should know about it.
        alone: whether no other image is looked at while it is timed.
    """

    facts: ModelFacts
    spec: ModelSpec
    notes: tuple[str, ...] = ()
    alone: bool = True

    @abstractmethod
    def look(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> RunEntry:
        """What it finds on an image, and how long it took."""

    def propose(self, image: UsableImage, pixels: Picture) -> Boxes | None:
        """Boxes [N, 4] xyxy in pixels of the image for a model that takes its proposals; None where it has none."""
        return None

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """The tensors at the borders of its stages; None where they are not known."""
        return None


class LiveSide(Side):
    """A detector that runs here.

    Attributes:
        timed: whether somebody looks at the seconds.
    """

    detector: Any
    timed = True

    def look(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> RunEntry:
        """See `Side.look`."""
        if self.timed:
            let_threads_rest()
        started = time.perf_counter()
        if "semantic" in self.spec.tasks:
            found = self.detector.segment(pixels)
        else:
            found = self.detector.predict(pixels, proposals=proposals)
        return RunEntry(found, time.perf_counter() - started, proposals, None)


class FileSide(LiveSide):
    """An ONNX file on a device."""

    def __init__(
        self,
        path: StrPath,
        device: str,
        stack: contextlib.ExitStack,
        options: "RuntimeOptions | None" = None,
    ) -> None:
        """Opens the file; the stack closes it."""
        from edgemask.runtimes import Detector, read_model

        self.file = read_model(os.fspath(path))
        self.detector: Detector = stack.enter_context(Detector(self.file, device, options=options))
        self.spec = self.detector.spec
        self.facts = ModelFacts(
            name=os.fspath(path),
            kind="onnx",
            device=self.detector.device,
            sha256=file_digest(path),
            bytes=os.path.getsize(path),
            precision=self.spec.precision,
        )

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """See `Side.stages`."""
        from edgemask.runtimes.stage_runs import stages_of_file

        try:
            return stages_of_file(self.file, self.detector.device, pixels, proposals=proposals)
        except ModelFileError:  # the graph names no stage
            return None


class ModelSide(LiveSide):
    """A PyTorch model, on the canvas and with the thresholds of the file that it is compared with."""

    def __init__(self, detector: "ReferenceDetector | SemanticReference", name: str, own: ModelSpec) -> None:
        """Takes an open reference, how the user named it, and the spec that the model itself would get."""
        self.detector = detector
        self.spec = detector.spec
        self.facts = ModelFacts(
            name=name, kind="pytorch", device=detector.device, sha256=own.source_sha256, bytes=None, precision="fp32"
        )

    def propose(self, image: UsableImage, pixels: Picture) -> Boxes | None:
        """See `Side.propose`."""
        return cast("Boxes", self.detector.propose(pixels))

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """See `Side.stages`."""
        from edgemask.reference_stages import record_stages

        return record_stages(self.detector, pixels, proposals=proposals)


class RunSide(Side):
    """A run that was stored, perhaps on another machine."""

    def __init__(self, run: StoredRun, path: StrPath) -> None:
        """Takes an open run and its path."""
        self.run = run
        self.spec = run.facts.spec
        self.facts = ModelFacts(
            name=os.fspath(path),
            kind="run",
            device=run.facts.device,
            sha256=run.facts.sha256,
            bytes=None,
            precision=self.spec.precision,
        )
        self.notes = (f"the reference is a stored run of {run.facts.name} on {run.facts.device}, {run.facts.date}",)

    def look(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> RunEntry:
        """See `Side.look`."""
        return self.run.get(image.name, image.digest)

    def propose(self, image: UsableImage, pixels: Picture) -> Boxes | None:
        """See `Side.propose`."""
        return self.run.get(image.name, image.digest).proposals

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """See `Side.stages`."""
        return self.run.get(image.name, image.digest).stages


def open_reference(
    reference: "StrPath | Model",
    spec: ModelSpec,
    *,
    device: str,
    weights: StrPath | None,
    stack: contextlib.ExitStack,
    options: "RuntimeOptions | None" = None,
) -> Side:
    """Opens what a model is compared with.

    Args:
        reference: as `validate` takes it.
        spec: of the model: a PyTorch reference runs on its canvas and with its thresholds.
        device: for an ONNX file.
        weights: for a builder.
        stack: closes what is opened.
        options: how to open an ONNX file.

    Raises:
        UsageError: a reference that cannot be meant, or that has other classes.
        ModelFileError: a file that is not sound.
        DependencyMissing: PyTorch is needed and not installed.
    """
    suffix = os.path.splitext(os.fspath(reference))[1] if isinstance(reference, str | os.PathLike) else ""
    if suffix == ".onnx":
        side: Side = FileSide(cast("StrPath", reference), device, stack, options)
    elif suffix == ".npz":
        run = stack.enter_context(StoredRun.open(cast("StrPath", reference)))
        side = RunSide(run, cast("StrPath", reference))
    else:
        return _open_pytorch(reference, spec, weights)
    _check_same_job(spec, side.spec)
    for field in ("class_names", "category_ids", "score_threshold", "nms_threshold", "max_detections"):
        _check_same(field, spec, side.spec)  # results that mean something else, or leave out other ones
    side.notes = (*side.notes, *_notes(spec, side.spec, side.facts))
    return side


def _open_pytorch(reference: "StrPath | Model", spec: ModelSpec, weights: StrPath | None) -> Side:
    try:
        from edgemask.checkpoints import load_model
        from edgemask.description import spec_of
        from edgemask.models import Model
        from edgemask.semantic_reference import reference_for
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"a PyTorch reference needs the package {error.name}, which is not installed",
            "pip install 'edgemask[export]', or give another ONNX file or a stored run as the reference",
        ) from error
    if isinstance(reference, str | os.PathLike):
        name, weights = os.fspath(reference), None if weights is None else os.fspath(weights)
        model, own = load_model(name, weights=weights, num_classes=len(spec.class_names) + 1)
    elif isinstance(reference, Model):
        name, model, own = f"the {type(reference).__name__} given", reference, spec_of(reference)
    else:
        raise UsageError(
            f"reference: expected a path, a name or a torchvision model, got {type(reference).__name__}",
            "give a checkpoint, another ONNX file, a stored run, or the PyTorch model itself",
        )
    _check_same_job(spec, own)
    if has_own_names(spec) and has_own_names(own):
        _check_same("class_names", spec, own)
    side = ModelSide(reference_for(model, spec), name, own)
    side.notes = tuple(_notes(spec, own, side.facts))
    return side


def _check_same_job(spec: ModelSpec, own: ModelSpec) -> None:
    """Refuses a reference for other tasks or with another number of classes."""
    if ("semantic" in own.tasks) != ("semantic" in spec.tasks):
        raise UsageError(
            f"reference: expected one for {' and '.join(spec.tasks)}, got one for {' and '.join(own.tasks)}",
            "give the reference that the model was made from",
        )
    if len(own.class_names) != len(spec.class_names):
        raise UsageError(
            f"reference: expected the model's number of classes, {len(spec.class_names)}, got {len(own.class_names)}",
            "give the reference that the model was made from",
        )


def _check_same(field: str, spec: ModelSpec, own: ModelSpec) -> None:
    wanted, got = getattr(spec, field), getattr(own, field)
    if isinstance(wanted, tuple) and wanted != got:
        label = next(number for number, pair in enumerate(zip(wanted, got, strict=True), start=1) if pair[0] != pair[1])
        field, wanted, got = f"{field} of label {label}", wanted[label - 1], got[label - 1]
    if wanted != got:
        raise UsageError(
            f"reference: expected the model's {field}, {wanted!r}, got {got!r}",
            "give the reference that the model was made from, or export one of them again",
        )


def _notes(spec: ModelSpec, own: ModelSpec, facts: ModelFacts) -> Iterator[str]:
    """What differs between the model's spec and the reference's own, without being a fault."""
    if None not in (spec.source_sha256, own.source_sha256) and spec.source_sha256 != own.source_sha256:
        yield "the reference has other weights than those that the model was exported from"
    if facts.kind != "pytorch":
        for field in _NOTED:
            one, other = getattr(own, field), getattr(spec, field)
            if one != other:
                yield f"the reference has {field} {one}, the model {other}"
    if facts.precision not in (None, "fp32"):
        yield f"the reference has {facts.precision} itself: what it has lost against PyTorch is not seen here"
