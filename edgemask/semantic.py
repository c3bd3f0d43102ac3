"""SemanticMap: the class of every pixel of one image, frozen and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import Placement
from edgemask.checks import Described, refuse
from edgemask.detections import name_of
from edgemask.masks import bitmap_to_rle

BACKGROUND = 0
LABEL_LIMIT = 255  # what uint8 holds: 256 classes with the background

# A softmax with an approximate division may end a little above 1.
_SCORE_ROUNDING = 1e-5
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class SemanticMap:
    """The class of every pixel of one image.

    The arrays are held as read-only views: nothing is copied or cast.

    Args:
        labels: uint8 [H, W], pixels of the ORIGINAL image; 0 is the background, 1 ... C-1 the classes.
        scores: float32 [H, W] in 0-1, the probability of the label that was chosen.

    Raises:
        UsageError: an array of another type, shape or content, as `expected ..., got ...`.
    """

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _read_only("labels", self.labels, np.dtype(np.uint8)))
        object.__setattr__(self, "scores", _read_only("scores", self.scores, np.dtype(np.float32)))
        if self.labels.shape != self.scores.shape:
            refuse("scores", f"{list(self.labels.shape)} as labels", Described(str(list(self.scores.shape))))
        # min and max pass NaN on, which fails every comparison.
        low, high = self.scores.min(), self.scores.max()
        if not (low >= 0 and high <= 1 + _SCORE_ROUNDING):
            refuse("scores", "0 to 1", low.item() if not low >= 0 else high.item())

    def __repr__(self) -> str:
        height, width = self.image_size
        shares = [f"{label}: {share:.1%}" for label, share in self.present.items()]
        if len(shares) > _NAMES_SHOWN:
            shares[_NAMES_SHOWN:] = [f"{len(shares) - _NAMES_SHOWN} more"]
        return f"<SemanticMap: {', '.join(shares)} of {height} x {width} (H x W)>"

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the original image, pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def present(self) -> dict[int, float]:
        """Share of the image's pixels by label, background included, of the labels that occur; they add up to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=1)
        return {int(label): int(counts[label]) / self.labels.size for label in np.flatnonzero(counts)}

    @classmethod
    def from_canvas(cls, labels: NDArray[np.uint8], scores: NDArray[np.float32], placement: Placement) -> Self:
        """Brings a map from the canvas to the original image.

        Each pixel of the original takes label and score of the canvas pixel in which its centre lies; a centre on the
        border of two takes the later one. That is torch's `interpolate(mode="nearest-exact")` computed in whole
        numbers, where torch's float32 may fall short of such a border.

        Args:
            labels: uint8 [Hc, Wc], pixels of the canvas.
            scores: float32 [Hc, Wc].
            placement: where the image lies on the canvas.

        Raises:
            UsageError: arrays of another type, or of another size than the placement's canvas.
        """
        for name, value in (("labels", labels), ("scores", scores)):
            if value.shape != placement.canvas:
                refuse(name, f"{list(placement.canvas)} as the canvas", Described(str(list(value.shape))))
        rows, columns = (
            nearest_axis(length, new_length)
            for length, new_length in zip(placement.size, placement.original_size, strict=True)
        )
        return cls(labels.take(rows, 0).take(columns, 1), scores.take(rows, 0).take(columns, 1))

    def bitmap(self, label: int) -> NDArray[np.bool_]:
        """Returns bool [H, W]: the pixels of one label; none where it does not occur.

        Raises:
            UsageError: no label at all.
        """
        if not 0 <= label <= LABEL_LIMIT:
            refuse("label", f"0 to {LABEL_LIMIT}", label)
        bitmap: NDArray[np.bool_] = self.labels == label
        return bitmap

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns COCO stuff results, one per label that occurs but the background, ready for `json.dump`.

        Args:
            image_id: of the annotation file.
            category_ids: C - 1 ids by label, as in ModelSpec; None: the labels.

        Returns:
            `image_id`, `category_id`, `segmentation` (compressed run lengths of all pixels of the label) and `score`
            (the mean over these pixels).

        Raises:
            UsageError: a label without a category id.
            DependencyMissing: faster_coco_eval is not installed.
        """
        found = [label for label in self.present if label != BACKGROUND]
        if category_ids is not None and len(category_ids) < max(found, default=0):
            refuse("category_ids", f"at least {max(found)}, one per label", Described(str(len(category_ids))))
        records = []
        for label in found:
            bitmap = self.bitmap(label)
            records.append(
                {
                    "image_id": image_id,
                    "category_id": label if category_ids is None else int(category_ids[label - 1]),
                    "segmentation": bitmap_to_rle(bitmap),
                    "score": float(self.scores[bitmap].mean(dtype=np.float64)),
                }
            )
        return records


def nearest_axis(length: int, new_length: int) -> NDArray[np.intp]:
    """Returns the source index of each position 0 ... new_length - 1 of an axis: the cell in which its centre lies."""
    return (2 * np.arange(new_length) + 1) * length // (2 * new_length)


def map_label_name(label: int, class_names: Sequence[str] | None) -> str:
    """Returns `background` for label 0, otherwise the class name as `detections.name_of` does."""
    return "background" if label == BACKGROUND else name_of(label, class_names)


def _read_only(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    expected = f"{dtype} [H, W], not empty"
    if not isinstance(value, np.ndarray):
        refuse(name, expected, Described(type(value).__name__))
    if value.dtype != dtype or value.ndim != 2 or not value.size:
        refuse(name, expected, Described(f"{value.dtype} {list(value.shape)}"))
    view = value.view()
    view.flags.writeable = False
    return view
