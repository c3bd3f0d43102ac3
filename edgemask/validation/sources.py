"""What a validation is made of: images with their annotations, and a reference."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import printable
from edgemask.detections import Detections
from edgemask.errors import DatasetError, DependencyMissing, UsageError
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    from edgemask.models import Model

StrPath = str | os.PathLike[str]
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class Predictor(Protocol):
    """What can be validated, or validated against."""

    @property
    def spec(self) -> ModelSpec:
        """What the model says about itself."""

    @property
    def device(self) -> str:
        """Where it runs."""

    def predict(self, source: NDArray[np.uint8], /, *, proposals: NDArray[np.float32] | None = None) -> Detections:
        """Detects on a uint8 [H, W, 3] RGB image, on boxes [N, 4] xyxy of it where the model takes them."""


class Segmenter(Protocol):
    """A semantic model that can be validated, or validated against."""

    @property
    def spec(self) -> ModelSpec:
        """What the model says about itself."""

    @property
    def device(self) -> str:
        """Where it runs."""

    def segment(self, source: NDArray[np.uint8], /) -> SemanticMap:
        """Labels the pixels of a uint8 [H, W, 3] RGB image."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An open reference.

    Attributes:
        detector: it runs on the canvas and with the thresholds of the candidate, unless it is an ONNX file.
        name: how the user named it.
        notes: what the user should know about it.
    """

    detector: Predictor | Segmenter
    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """An image to validate on: its file, its name in reports, and its id in the annotations if it has one."""

    path: Path
    name: str
    identity: int | None = None


def choose_images(
    images: StrPath | Sequence[StrPath], document: dict[str, Any] | None = None, limit: int | None = None
) -> list[ChosenImage]:
    """Lists the images to validate on.

    Args:
        images: a folder, one image, or paths of images.
        document: what `read_truth` gave; the images of a folder are then those that it lists, in its order.
        limit: take only the first so many.

    Raises:
        DatasetError: there is none, one is missing, or one is not in the annotations.
        UsageError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected 1 or more images, got {limit}", "leave it out to take all images")
    if not isinstance(images, str | os.PathLike):
        paths = [Path(path) for path in images]
        chosen = [ChosenImage(path, str(path)) for path in paths] if document is None else _identified(paths, document)
    elif Path(images).is_file():
        return choose_images([images], document)
    elif document is None:
        chosen = _in_folder(Path(images))
    else:
        chosen = [ChosenImage(Path(images) / name, name, identity) for name, identity in _listed(document)]
    chosen = chosen[:limit]
    if not chosen:
        raise DatasetError(
            f"there is no image in {printable(str(images))}", f"expected files that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    missing = [image.path for image in chosen if not image.path.is_file()]
    if missing:
        shown = ", ".join(printable(str(path)) for path in missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise DatasetError(f"{len(missing)} of {len(chosen)} images are missing: {shown}", "check the paths")
    return chosen


def _in_folder(folder: Path) -> list[ChosenImage]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {printable(str(folder))}", "check the path")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [ChosenImage(path, path.name) for path in paths]


def _listed(document: dict[str, Any]) -> list[tuple[str, int]]:
    """File names and ids of the annotated images."""
    nameless = [entry["id"] for entry in document["images"] if not isinstance(entry.get("file_name"), str)]
    if nameless:
        raise DatasetError(f"image {nameless[0]} of the annotations has no file_name", "mend the annotation file")
    return [(entry["file_name"], int(entry["id"])) for entry in document["images"]]


def _identified(paths: list[Path], document: dict[str, Any]) -> list[ChosenImage]:
    """Finds each path in the annotations: the one whose file_name the path ends with."""
    by_name = defaultdict(list)
    for name, identity in _listed(document):
        by_name[Path(name).name].append((Path(name).parts, identity))
    chosen = []
    for path in paths:
        fitting = [identity for parts, identity in by_name[path.name] if path.parts[-len(parts) :] == parts]
        if len(fitting) != 1:
            what = "is not in the annotations" if not fitting else "is in the annotations more than once"
            raise DatasetError(f"{printable(str(path))} {what}", "check the file_name entries, or leave the image out")
        chosen.append(ChosenImage(path, path.name, fitting[0]))
    return chosen


def check_categories(document: dict[str, Any], spec: ModelSpec) -> None:
    """Compares the categories of annotations with the model's; the model may have more.

    Names are compared where the model has some of its own, not just `class_1` and so on.

    Raises:
        DatasetError: a category that the model does not have, or has under another name.
    """
    known = dict(zip(spec.category_ids, spec.class_names, strict=True))
    is_named = spec.class_names != tuple(f"class_{label}" for label in range(1, len(spec.class_names) + 1))
    for entry in document["categories"]:
        identity, name = int(entry["id"]), entry.get("name")
        if identity not in known or (is_named and name is not None and name != known[identity]):
            has = repr(known[identity]) if identity in known else f"none with that id, but {_shown(list(known))}"
            raise DatasetError(
                f"the annotations have the category {identity} {name!r}, the model has {has}",
                "give annotations of the model's classes, or export it with their category ids and names",
            )


def _shown(identities: list[int]) -> str:
    return ", ".join(map(str, identities[:8])) + (" ..." if len(identities) > 8 else "")


def open_reference(
    reference: "StrPath | Model",
    spec: ModelSpec,
    *,
    device: str,
    weights: StrPath | None,
    stack: contextlib.ExitStack,
) -> Reference:
    """Opens what a model is compared with.

    Args:
        reference: as `validate` takes it.
        spec: of the model: a PyTorch reference runs on its canvas and with its thresholds.
        device: for an ONNX file.
        weights: for a builder.
        stack: closes what is opened.

    Raises:
        UsageError: a reference that cannot be meant, or that has other classes.
        ModelFileError: a file that is not sound.
        DependencyMissing: PyTorch is needed and not installed.
    """
    if isinstance(reference, str | os.PathLike) and os.fspath(reference).endswith(".onnx"):
        from edgemask.runtimes import load

        detector = stack.enter_context(load(os.fspath(reference), device=device))
        return Reference(detector, os.fspath(reference), _notes(spec, detector.spec, detector.spec.canvas))
    return _open_pytorch(reference, spec, weights)


def _open_pytorch(reference: "StrPath | Model", spec: ModelSpec, weights: StrPath | None) -> Reference:
    try:
        from edgemask.checkpoints import load_model
        from edgemask.description import spec_of
        from edgemask.models import Model
        from edgemask.semantic_reference import reference_for
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"a PyTorch reference needs the package {error.name}, which is not installed",
            "pip install 'edgemask[export]', or give another ONNX file as reference",
        ) from error
    if isinstance(reference, str | os.PathLike):
        name, weights = os.fspath(reference), None if weights is None else os.fspath(weights)
        model, own = load_model(name, weights=weights, num_classes=len(spec.class_names) + 1)
    elif isinstance(reference, Model):
        name, model, own = f"the {type(reference).__name__} given", reference, spec_of(reference)
    else:
        raise UsageError(
            f"reference: expected a path, a name or a torchvision model, got {type(reference).__name__}",
            "give a checkpoint, another ONNX file, or the PyTorch model itself",
        )
    notes = _notes(spec, own, spec.canvas)
    return Reference(reference_for(model, spec), name, notes)


def _notes(spec: ModelSpec, own: ModelSpec, canvas: tuple[int, int] | None) -> tuple[str, ...]:
    """What differs between the model's spec and the reference's own, without being a fault.

    Raises:
        UsageError: the tasks or the numbers of classes differ.
    """
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
    notes = []
    if None not in (spec.source_sha256, own.source_sha256) and spec.source_sha256 != own.source_sha256:
        notes.append("the reference has other weights than those that the model was exported from")
    if canvas != spec.canvas:
        notes.append(f"the reference has the canvas {canvas or 'dynamic'}, the model {spec.canvas or 'dynamic'}")
    return tuple(notes)
