"""The worst images, as both sides see them."""

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.detections import Detections, name_of
from edgemask.drawing import draw
from edgemask.images import load_image
from edgemask.map_drawing import draw_map
from edgemask.parity import ImageParity
from edgemask.semantic import BACKGROUND, SemanticMap
from edgemask.validation.images import UsableImage
from edgemask.validation.reports import GalleryEntry

_SIDE = 960  # pixels; more is no use on a page with two pictures beside each other
_QUALITY = 80
_MINIMUM_SCORE = 0.3  # fainter detections hide the picture; those that differ are drawn whatever their score
_MOST_NAMED = 8  # more names hide a small picture


@dataclass(frozen=True, slots=True, order=True)
class _Kept:
    """An image with what was found on it; the least damaged sort first, of equals the later ones."""

    damage: float
    place: int
    image: UsableImage = field(compare=False)
    reference: Detections | SemanticMap = field(compare=False)
    candidate: Detections | SemanticMap = field(compare=False)
    parity: ImageParity | None = field(compare=False)


class Gallery:
    """Keeps what was found on the worst images, and draws them at the end: no picture is held in between.

    Args:
        size: how many images to keep; without so many that differ, the first ones.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[_Kept] = []
        self._seen = 0

    def add(
        self,
        image: UsableImage,
        reference: Detections | SemanticMap,
        candidate: Detections | SemanticMap,
        parity: ImageParity | None,
    ) -> None:
        """Takes the results for one image in; `parity` is None for label maps."""
        self._seen += 1
        damage = _unlike(reference, candidate) if parity is None else parity.damage
        heapq.heappush(self._kept, _Kept(damage, -self._seen, image, reference, candidate, parity))
        if len(self._kept) > self._size:
            heapq.heappop(self._kept)

    def worst(self) -> list[UsableImage]:
        """The images kept, the worst first."""
        return [kept.image for kept in sorted(self._kept, reverse=True)]

    def draw(self, class_names: Sequence[str], count: int) -> tuple[GalleryEntry, ...]:
        """Draws so many of the images kept, the worst first.

        Raises:
            DependencyMissing: supervision is not installed.
        """
        return tuple(_entry(kept, class_names) for kept in sorted(self._kept, reverse=True)[:count])


def _unlike(reference: Detections | SemanticMap, candidate: Detections | SemanticMap) -> float:
    if not isinstance(reference, SemanticMap) or not isinstance(candidate, SemanticMap):
        return 0.0
    return float(np.mean(reference.labels != candidate.labels))


def _entry(kept: _Kept, class_names: Sequence[str]) -> GalleryEntry:
    pixels = load_image(kept.image.path)
    if kept.parity is None:
        reason = f"{kept.damage:.2%} of the pixels differ" if kept.damage else ""
    else:
        reason = kept.parity.reason
    labels = sorted(_labels(kept.reference) | _labels(kept.candidate))
    return GalleryEntry(
        name=kept.image.name,
        size=kept.image.size,
        reason=reason,
        damage=kept.damage,
        classes=tuple(name_of(label, class_names) for label in labels),
        mismatches=() if kept.parity is None else kept.parity.mismatches,
        reference=_jpeg(_drawn(pixels, kept.reference, class_names)),
        candidate=_jpeg(_drawn(pixels, kept.candidate, class_names)),
    )


def _labels(found: Detections | SemanticMap) -> set[int]:
    labels = {int(label) for label in np.unique(found.labels)}
    return labels - {BACKGROUND} if isinstance(found, SemanticMap) else labels


def _drawn(pixels: NDArray[np.uint8], found: Detections | SemanticMap, class_names: Sequence[str]) -> NDArray[np.uint8]:
    if isinstance(found, SemanticMap):
        return draw_map(pixels, found, class_names)
    return draw(pixels, found, class_names, minimum_score=_MINIMUM_SCORE, most_named=_MOST_NAMED)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()
