"""Whether images can stand for those that a model will see: what is on them, and what speaks against them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import printable
from edgemask.detections import Detections
from edgemask.errors import CalibrationError, ImageError
from edgemask.images import load_image
from edgemask.progress import progress
from edgemask.runs import file_digest
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

ENOUGH = 100  # images, from which on more of them move a range by little
# An object counts from here on, whatever threshold the model has: what is rather there than not. So counts of models
# that were exported with other thresholds compare.
SURE = 0.5
# COCO's, by the area of the box in pixels of the original image.
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": float("inf")}
# Correlation of neighbouring pixels in the direction in which it is greater. 239 photographs of COCO: 0.79 and more,
# 580 microscope images 0.92, 60 drawn scenes 0.76; uniform and Gaussian noise up to 0.04, as JPEG of quality 50 to 95
# up to 0.06, of quality 20 up to 0.42.
LEAST_CORRELATION = 0.5
NOISE_SHARE = 0.1  # of the images, at most
# A model that finds nothing on more than this share of images, where there are so many, is not shown its own.
BLIND_SHARE = 0.95
BLIND_FROM = 10
_SHOWN = 8


class Coverage:
    """Counts what a model finds on images, one after the other."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._classes = Counter[str]()
        self._sizes = Counter[str]()
        self._images = 0
        self._blind = 0

    @property
    def objects(self) -> int:
        """Objects that were counted."""
        return self._sizes.total()

    @property
    def by_class(self) -> dict[str, int]:
        """Objects of each class; pixels, of a semantic model."""
        return {name: self._classes[name] for name in self._spec.class_names}

    @property
    def by_size(self) -> dict[str, int]:
        """Objects of each size; empty for a semantic model."""
        return {} if "semantic" in self._spec.tasks else {name: self._sizes[name] for name in SIZES}

    def add(self, found: Detections | SemanticMap) -> None:
        """Counts what was found on an image."""
        self._images += 1
        names = self._spec.class_names
        if isinstance(found, SemanticMap):
            pixels = np.bincount(found.labels.ravel(), minlength=len(names) + 1)[1:]
            self._classes.update(dict(zip(names, pixels.tolist(), strict=False)))
            return
        self._blind += len(found) == 0
        sure = found[found.scores >= SURE]
        self._classes.update(names[label - 1] for label in sure.labels.tolist())
        areas = np.prod(sure.boxes[:, 2:].astype(np.float64) - sure.boxes[:, :2], 1)
        self._sizes.update(_size_of(area) for area in areas.tolist())

    def check(self) -> None:
        """Refuses images on which the model finds next to nothing.

        Raises:
            CalibrationError: there are `BLIND_FROM` images, and it finds nothing on `BLIND_SHARE` of them, at its own
                threshold.
        """
        if self._images >= BLIND_FROM and self._blind >= BLIND_SHARE * self._images:
            raise CalibrationError(
                f"the model finds nothing on {self._blind} of {self._images} images, so these are not what it is for",
                "give images like those that it was trained on",
            )

    def warnings(self) -> Iterator[str]:
        """Yields a sentence for each class and size that was never seen."""
        what = "pixel" if "semantic" in self._spec.tasks else "object"
        if unseen := [printable(name) for name, count in self.by_class.items() if count == 0]:
            more = f" and {len(unseen) - _SHOWN} more" if len(unseen) > _SHOWN else ""
            classes = "1 class" if len(unseen) == 1 else f"{len(unseen)} classes"
            yield f"no {what} of {classes} was found on the images: {', '.join(unseen[:_SHOWN])}{more}"
        if unseen := [name for name, count in self.by_size.items() if count == 0]:
            yield f"no {' and no '.join(unseen)} object was found on the images"


def look_at(images: Sequence[Path]) -> tuple[str, ...]:
    """Decodes every image once, so that what cannot be used is known before minutes of work and not after them.

    Args:
        images: paths.

    Returns:
        sha256 of the file of each.

    Raises:
        CalibrationError: there is none, some cannot be read, or more than a tenth are noise or of one colour.
    """
    if not images:
        raise CalibrationError("there are no images to calibrate with", "give a folder of images, 100 or more")
    digests, unreadable, noise = [], [], []
    for path in progress(images, "check images"):
        name = printable(path.name)
        try:
            if neighbour_correlation(load_image(path)) < LEAST_CORRELATION:
                noise.append(name)
            digests.append(file_digest(path))
        except ImageError as error:
            unreadable.append(error.problem)
    if unreadable:
        raise CalibrationError(
            f"{len(unreadable)} of {len(images)} images cannot be used: {_shortened(unreadable, '; ')}",
            "mend or remove them",
        )
    if len(noise) > NOISE_SHARE * len(images):
        raise CalibrationError(
            f"{len(noise)} of {len(images)} images are noise, or of one colour: {_shortened(noise, ', ')}; "
            "ranges taken from them fit no real image",
            "give images such as the model will see",
        )
    return tuple(digests)


def neighbour_correlation(image: NDArray[np.uint8]) -> float:
    """Returns how the brightness of pixels goes with that of their neighbours, -1 to 1.

    Args:
        image: uint8 [H, W, 3] RGB.

    Returns:
        The correlation of each pixel with the next one in its row or in its column, the greater of both; 0 where all
        are equal.
    """
    grey = image.mean(2, dtype=np.float32)
    return max(_correlation(grey[:, 1:], grey[:, :-1]), _correlation(grey[1:], grey[:-1]))


def image_warnings(digests: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for too few images, and for one image many times over."""
    if len(digests) < ENOUGH:
        images = "1 image is" if len(digests) == 1 else f"{len(digests)} images are"
        yield f"{images} few to take ranges from: give {ENOUGH} or more"
    if len(digests) > 1 and len(set(digests)) == 1:
        yield f"all {len(digests)} images are the same"


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    if one.size == 0:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt(np.square(one).sum(dtype=np.float64) * np.square(other).sum(dtype=np.float64)))
    return float((one * other).sum(dtype=np.float64)) / spread if spread else 0.0


def _size_of(area: float) -> str:
    return next(name for name, limit in SIZES.items() if area < limit)


def _shortened(entries: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(entries) - 5} more" if len(entries) > 5 else ""
    return separator.join(entries[:5]) + more
