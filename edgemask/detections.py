"""Detections: what a model found on one image, frozen and checked."""

import operator
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, refuse, several, whole
from edgemask.masks import import_supervision, masks_to_rle, paste_masks

if TYPE_CHECKING:
    import supervision

Index = SupportsIndex | slice | Sequence[int] | NDArray[np.bool_] | NDArray[np.integer[Any]]

_SIDE_LIMIT = 2**31 - 1
# A softmax with an approximate division may end a little above 1.
_SCORE_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The objects found on one image, the surest first.

    The arrays are held as read-only views: nothing is copied or cast.

    Args:
        boxes: float32 [N, 4] xyxy, pixels of the ORIGINAL image, finite.
        scores: float32 [N] in 0-1, descending.
        labels: int64 [N], 1 ... C-1.
        masks: float32 [N, M, M] probabilities inside the box, or None where the model gives none.
        keypoints: float32 [N, K, 3] of (x, y, 1), pixels of the original image, or None.
        keypoint_scores: float32 [N, K], given exactly when keypoints is.
        image_size: (H, W) of the original image, pixels.

    Raises:
        UsageError: an array of another type, shape or content, as `expected ..., got ...`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.float32] | None = None
    keypoints: NDArray[np.float32] | None = None
    keypoint_scores: NDArray[np.float32] | None = None
    _: KW_ONLY
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.scores) if isinstance(self.scores, np.ndarray) and self.scores.ndim else "N"
        shapes: dict[str, tuple[type[np.generic], tuple[int | str, ...]]] = {
            "scores": (np.float32, ("N",)),
            "boxes": (np.float32, (count, 4)),
            "labels": (np.int64, (count,)),
            "masks": (np.float32, (count, "M", "M")),
            "keypoints": (np.float32, (count, "K", 3)),
            "keypoint_scores": (np.float32, (count, "K")),
        }
        for name, (dtype, shape) in shapes.items():
            value = getattr(self, name)
            if value is not None or name in ("boxes", "scores", "labels"):
                object.__setattr__(self, name, _read_only(name, value, np.dtype(dtype), shape))
        size = several(whole(1, _SIDE_LIMIT), 2, 2)("image_size", self.image_size)
        object.__setattr__(self, "image_size", size)
        _check_content(self)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        given = [name for name in ("masks", "keypoints") if getattr(self, name) is not None]
        height, width = self.image_size
        return f"<Detections: {len(self)} {' with '.join(['boxes', *given])} on {height} x {width} (H x W)>"

    def __getitem__(self, index: Index) -> Self:
        """Returns some of the detections.

        Args:
            index: a number (one detection, still as Detections), a slice, a bool [N] array as in
                `d[d.scores > 0.9]`, or ascending indices.

        Raises:
            IndexError: beyond the end, or a bool array of another length.
            UsageError: an order in which a lower score would come first.
        """
        rows = _rows(index, len(self))
        return type(self)(
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            masks=None if self.masks is None else self.masks[rows],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
            keypoint_scores=None if self.keypoint_scores is None else self.keypoint_scores[rows],
            image_size=self.image_size,
        )

    @classmethod
    def empty(cls, image_size: tuple[int, int], mask_size: int | None = None, num_keypoints: int | None = None) -> Self:
        """Returns no detections on an image of (H, W), with masks and keypoints where sizes are given."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.int64),
            masks=None if mask_size is None else np.zeros((0, mask_size, mask_size), np.float32),
            keypoints=None if num_keypoints is None else np.zeros((0, num_keypoints, 3), np.float32),
            keypoint_scores=None if num_keypoints is None else np.zeros((0, num_keypoints), np.float32),
            image_size=image_size,
        )

    def bitmaps(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """Returns bool [N, H, W], the masks pasted into the image; `masks.paste_each` gives one at a time.

        Raises:
            UsageError: there are no masks.
        """
        return paste_masks(self._masks(), self.boxes, self.image_size, threshold)

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns COCO result records, one per detection, ready for `json.dump`.

        Args:
            image_id: of the annotation file.
            category_ids: C - 1 ids by label, as in ModelSpec; None: the labels.

        Returns:
            `image_id`, `category_id`, `bbox` (x, y, width, height), `score`; `segmentation` (compressed run
            lengths) where there are masks; `keypoints` (x, y, 1 in turn) where there are.

        Raises:
            UsageError: a label without a category id.
            DependencyMissing: there are masks and faster_coco_eval is not installed.
        """
        top = int(self.labels.max(initial=0))
        if category_ids is not None and len(category_ids) < top:
            refuse("category_ids", f"at least {top}, one per label", Described(str(len(category_ids))))
        records: list[dict[str, Any]] = []
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            left, top_edge, right, bottom = box
            records.append(
                {
                    "image_id": image_id,
                    "category_id": label if category_ids is None else int(category_ids[label - 1]),
                    "bbox": [left, top_edge, right - left, bottom - top_edge],
                    "score": score,
                }
            )
        if self.masks is not None:
            run_lengths = masks_to_rle(self.masks, self.boxes, self.image_size)
            for record, segmentation in zip(records, run_lengths, strict=True):
                record["segmentation"] = segmentation
        if self.keypoints is not None:
            for record, points in zip(records, self.keypoints, strict=True):
                record["keypoints"] = points.ravel().tolist()
        return records

    def to_supervision(self, class_names: Sequence[str] | None = None) -> "supervision.Detections":
        """Returns supervision's Detections: boxes, pasted masks, scores, and the labels as `class_id`.

        Keypoints have a class of their own there and are left out.

        Args:
            class_names: C - 1 names by label, put into `data["class_name"]`; None: `class_1` ...

        Raises:
            DependencyMissing: supervision is not installed.
        """
        names = [name_of(int(label), class_names) for label in self.labels]
        found: supervision.Detections = import_supervision().Detections(
            xyxy=self.boxes.copy(),
            mask=None if self.masks is None else self.bitmaps(),
            confidence=self.scores.copy(),
            class_id=self.labels.astype(np.intp),
            data={"class_name": np.array(names, dtype=np.str_)},
        )
        return found

    def _masks(self) -> NDArray[np.float32]:
        if self.masks is None:
            refuse("masks", "a model that gives masks", Described("detections without them"))
        return self.masks


def name_of(label: int, class_names: Sequence[str] | None) -> str:
    """Returns a label's class name, or `class_<label>` where there is none."""
    if class_names is None or not 1 <= label <= len(class_names):
        return f"class_{label}"
    return class_names[label - 1]


def _read_only(name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int | str, ...]) -> NDArray[Any]:
    expected = f"{dtype} [{', '.join(map(str, shape))}]"
    if not isinstance(value, np.ndarray):
        refuse(name, f"{expected} array", Described(type(value).__name__))
    fits = value.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits or (shape.count("M") == 2 and value.shape[1] != value.shape[2]):
        refuse(name, expected, Described(f"{value.dtype} {list(value.shape)}"))
    view = value.view()
    view.flags.writeable = False
    return view


def _check_content(found: Detections) -> None:
    finite = np.isfinite(found.boxes).all(axis=1)
    if not finite.all():
        refuse("boxes", "finite numbers", found.boxes[~finite][0].tolist())
    in_range = (found.scores >= 0) & (found.scores <= 1 + _SCORE_ROUNDING)
    if not in_range.all():
        refuse("scores", "0 to 1", found.scores[~in_range][0].item())
    rises = np.flatnonzero(np.diff(found.scores) > 0)
    if len(rises):
        got = Described(f"{found.scores[rises[0]]:.6g} before {found.scores[rises[0] + 1]:.6g}")
        refuse("scores", "descending order", got, "sort by -scores (stable), or give indices in ascending order")
    if len(found) and found.labels.min() < 1:
        refuse("labels", "1 or more; 0 is the background", int(found.labels.min()))
    if (found.keypoints is None) != (found.keypoint_scores is None):
        refuse("keypoint_scores", "an array exactly when keypoints is one", Described("one without the other"))
    if found.keypoints is not None and found.keypoint_scores is not None:
        points, scored = found.keypoints.shape[1], found.keypoint_scores.shape[1]
        if points != scored:
            refuse("keypoint_scores", f"{points} per detection, as keypoints", scored)


def _rows(index: Index, count: int) -> slice | NDArray[Any]:
    if isinstance(index, slice):
        return index
    if isinstance(index, np.ndarray | Sequence):
        rows = np.asarray(index)
        if rows.ndim == 1 and rows.size == 0:
            return np.zeros(0, np.intp)
        if rows.ndim != 1 or rows.dtype.kind not in "biu":
            refuse(
                "index",
                "a number, a slice, bool [N] or whole numbers",
                Described(f"{rows.dtype} {rows.shape}"),
            )
        return rows
    row = operator.index(index)
    if not -count <= row < count:
        raise IndexError(f"detection {row} of {count}")
    row %= count
    return slice(row, row + 1)
