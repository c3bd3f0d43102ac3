"""The images of a validation: chosen, looked at once before any work, and named where they cannot be used."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.canvas import eager_size
from edgemask.checks import printable
from edgemask.errors import DatasetError, ImageError, UsageError
from edgemask.images import IMAGE_SUFFIXES, load_image
from edgemask.progress import progress
from edgemask.runs import file_digest
from edgemask.spec import ModelSpec

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """An image to validate on: its file, its name in reports; its id and (H, W) in the annotations if it has them."""

    path: Path
    name: str
    identity: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class UsableImage:
    """An image that both sides can see.

    Attributes:
        path: of its file.
        name: in reports.
        identity: in the annotations; without them its place among the images, from 1 on.
        size: (H, W) in pixels.
        digest: sha256 of the file.
    """

    path: Path
    name: str
    identity: int
    size: tuple[int, int]
    digest: str


@dataclass(frozen=True, slots=True)
class CheckedImages:
    """What a look at every image gave.

    Attributes:
        usable: to be compared.
        too_large: names of those that the model's canvas is too small for.
        unreadable: name and reason of those that are no usable image.
    """

    usable: tuple[UsableImage, ...] = ()
    too_large: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


def choose_images(
    images: StrPath | Sequence[StrPath],
    document: dict[str, Any] | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> list[ChosenImage]:
    """Lists the images to validate on.

    Args:
        images: a folder, one image, or paths of images.
        document: what `read_truth` gave; the images of a folder are then those that it lists, in its order.
        limit: take only so many: the first ones, or with a seed ...
        seed: ... some of all, drawn with it.

    Raises:
        DatasetError: there is none, or one is not in the annotations.
        UsageError: a limit below 1, or a seed without a limit or below 0.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected 1 or more images, got {limit}", "leave it out to take all images")
    if seed is not None and (limit is None or seed < 0):
        raise UsageError(f"seed: got {seed}, which draws some of the images", "give 0 or more, and a limit")
    if not isinstance(images, str | os.PathLike):
        paths = [Path(path) for path in images]
        chosen = _named(paths) if document is None else _identified(paths, document)
    elif Path(images).is_file():
        return choose_images([images], document)
    elif document is None:
        chosen = _in_folder(Path(images))
    else:
        chosen = [ChosenImage(Path(images) / name, name, *facts) for name, facts in _listed(document)]
    if limit is not None and seed is not None and limit < len(chosen):
        drawn = np.random.default_rng(seed).choice(len(chosen), limit, replace=False)
        chosen = [chosen[index] for index in sorted(drawn)]
    chosen = chosen[:limit]
    if not chosen:
        raise DatasetError(
            f"there is no image in {printable(str(images))}",
            f"expected files that end in {', '.join(IMAGE_SUFFIXES)}; folders within it are not entered",
        )
    return chosen


def check_images(chosen: Sequence[ChosenImage], spec: ModelSpec, *, skip_bad: bool = False) -> CheckedImages:
    """Decodes every image once, so that a bad one is known before hours of work and not after them.

    Args:
        chosen: what `choose_images` gave.
        spec: of the model, whose canvas must hold them.
        skip_bad: leave out what is missing or unreadable.

    Raises:
        DatasetError: images are missing or unreadable, and not to be left out; or none is left.
    """
    usable, too_large, unreadable = [], [], []
    for number, image in enumerate(progress(chosen, "check images"), start=1):
        try:
            if printable(image.name) != image.name:
                raise ImageError("its name holds control characters")
            size = load_image(image.path).shape[:2]
            if image.size not in (None, size):
                raise ImageError(f"it has {size} pixels (H, W), the annotations say {image.size}")
            fitted = eager_size(size[0], size[1], spec)
            digest = file_digest(image.path)
        except ImageError as error:
            unreadable.append((image.name, error.problem))
            continue
        if spec.canvas is not None and (fitted[0] > spec.canvas[0] or fitted[1] > spec.canvas[1]):
            too_large.append(image.name)
        else:
            identity = number if image.identity is None else image.identity
            usable.append(UsableImage(image.path, image.name, identity, (size[0], size[1]), digest))
    if unreadable and not (skip_bad and usable):
        shown = "; ".join(f"{printable(name)}: {reason}" for name, reason in unreadable[:5])
        more = f"; and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise DatasetError(
            f"{len(unreadable)} of {len(chosen)} images cannot be used: {shown}{more}",
            "check the paths" if skip_bad else "mend or remove them, or leave them out with --skip-bad-images",
        )
    return CheckedImages(tuple(usable), tuple(too_large), tuple(unreadable))


def _named(paths: list[Path]) -> list[ChosenImage]:
    """Names each by its file alone, where that is enough: a stored run is read on other machines too."""
    counts = Counter(path.name for path in paths)
    return [ChosenImage(path, path.name if counts[path.name] == 1 else path.as_posix()) for path in paths]


def _in_folder(folder: Path) -> list[ChosenImage]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {printable(str(folder))}", "check the path")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [ChosenImage(path, path.name) for path in paths]


def _listed(document: dict[str, Any]) -> list[tuple[str, tuple[int, tuple[int, int] | None]]]:
    """File name of the annotated images, with id and (H, W), where it is said."""
    nameless = [entry["id"] for entry in document["images"] if not isinstance(entry.get("file_name"), str)]
    if nameless:
        raise DatasetError(f"image {nameless[0]} of the annotations has no file_name", "mend the annotation file")
    return [(entry["file_name"], (int(entry["id"]), _size(entry))) for entry in document["images"]]


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    return (entry["height"], entry["width"]) if {"height", "width"} <= entry.keys() else None


def _identified(paths: list[Path], document: dict[str, Any]) -> list[ChosenImage]:
    """Finds each path in the annotations: the one whose file_name the path ends with."""
    by_name = defaultdict(list)
    for name, facts in _listed(document):
        by_name[Path(name).name].append((Path(name).parts, facts))
    chosen = []
    for path in paths:
        fitting = [facts for parts, facts in by_name[path.name] if path.parts[-len(parts) :] == parts]
        if len(fitting) != 1:
            what = "is not in the annotations" if not fitting else "is in the annotations more than once"
            raise DatasetError(f"{printable(str(path))} {what}", "check the file_name entries, or leave the image out")
        chosen.append(ChosenImage(path, path.name, *fitting[0]))
    return chosen


def has_own_names(spec: ModelSpec) -> bool:
    """Whether the classes of a model have names of their own, not just `class_1` and so on."""
    return spec.class_names != tuple(f"class_{label}" for label in range(1, len(spec.class_names) + 1))


def check_categories(document: dict[str, Any], spec: ModelSpec) -> None:
    """Compares the categories of annotations with the model's; the model may have more.

    Names are compared where the model has some of its own, not just `class_1` and so on.

    Raises:
        DatasetError: a category that the model does not have, or has under another name.
    """
    known = dict(zip(spec.category_ids, spec.class_names, strict=True))
    is_named = has_own_names(spec)
    for entry in document["categories"]:
        identity, name = int(entry["id"]), entry.get("name")
        if identity not in known or (is_named and name is not None and name != known[identity]):
            ids = ", ".join(map(str, list(known)[:8])) + (" ..." if len(known) > 8 else "")
            has = f"{known[identity]!r}" if identity in known else f"no such id; its ids are {ids}"
            raise DatasetError(
                f"the annotations have the category {identity} {name!r}, the model has {has}",
                "give annotations of the model's classes, or export it with their category ids and names",
            )
