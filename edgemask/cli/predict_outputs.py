"""What `edgemask predict` makes of results: pictures, COCO results, lines."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.files import creating
from edgemask.semantic import BACKGROUND, SemanticMap, map_label_name

_CLASSES_SHOWN = 6  # in the line of an image


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """What came of one image; `image_id` is the one used in the COCO results, `picture` the annotated copy.

    `detections` of a semantic model are the classes that occur.
    """

    file: str
    image_id: int
    height: int
    width: int
    detections: int
    picture: str | None


@dataclass(frozen=True, slots=True)
class PredictedVideo:
    """What came of one video: `frames` were worked on, whose ids in the COCO results begin with `first_image_id`."""

    file: str
    first_image_id: int
    frames: int
    height: int
    width: int
    detections: int
    video: str | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of all images and videos.

    `seconds` is the time of the whole run but for opening the model, with reading, drawing and writing, which go on
    beside each other; `images_per_second` counts images and frames by it. `edgemask bench` measures latency.
    """

    model: str
    device: str
    refusals: tuple[str, ...]
    images: tuple[PredictedImage, ...]
    videos: tuple[PredictedVideo, ...]
    seconds: float
    images_per_second: float
    coco: str | None


class ResultsFile:
    """Writes COCO results one after the other: those of a long video would fill the memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._is_first = True

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Adds records."""
        for record in records:
            self._file.write(("[" if self._is_first else ", ") + json.dumps(record))
            self._is_first = False

    def finish(self) -> None:
        """Ends the list."""
        self._file.write("[]" if self._is_first else "]")


@contextlib.contextmanager
def results_file(path: Path | None) -> Iterator[ResultsFile | None]:
    """Opens a file of COCO results, which appears when the block ends well; None for no path.

    Raises:
        OutputError: it cannot be written.
    """
    if path is None:
        yield None
        return
    with creating(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        results = ResultsFile(file)
        yield results
        results.finish()


def count_of(found: Detections | SemanticMap) -> int:
    """Number of objects, or of classes in a map."""
    return len(found) if isinstance(found, Detections) else len(found.present.keys() - {BACKGROUND})


def drawn(
    pixels: NDArray[np.uint8], found: Detections | SemanticMap, class_names: Sequence[str], score: float
) -> NDArray[np.uint8]:
    """An annotated copy: of uint8 [H, W, 3] RGB, with the legend of a map below it."""
    if isinstance(found, SemanticMap):
        from edgemask.map_drawing import draw_map

        return draw_map(pixels, found, class_names)
    from edgemask.drawing import draw

    return draw(pixels, found, class_names, minimum_score=score)


def drawn_frame(
    pixels: NDArray[np.uint8], found: Detections | SemanticMap, class_names: Sequence[str], score: float
) -> NDArray[np.uint8]:
    """As `drawn`, of the frame's size: the legend of a map would change its height with what is seen."""
    return drawn(pixels, found, class_names, score)[: pixels.shape[0]]


def counts(found: Detections | SemanticMap, class_names: Sequence[str], score: float) -> str:
    """What was found, in words, the most frequent classes first."""
    if isinstance(found, SemanticMap):
        shares = sorted(found.present.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{share:.0%} {map_label_name(label, class_names)}" for label, share in shares[:_CLASSES_SHOWN]
        )
    shown = found.labels[found.scores >= score].tolist()
    most = Counter(class_names[label - 1] for label in shown).most_common(_CLASSES_SHOWN)
    listing = f" ({', '.join(f'{count} {name}' for name, count in most)})" if most else ""
    return f"{len(shown)} of {len(found)} from score {score:g} on{listing}"
