"""BatchedNms selects what torchvision's suppression selects for each image and class, in the same order.

torchvision takes corners as they come, ONNX puts them in order first, and `edgemask.ops` defines the op as ONNX does:
the comparison gives torchvision the ordered corners. It never uses torchvision's `batched_nms`, whose offsets between
classes round the boxes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import op_forms
import pytest
import torch
from finding import Finding
from op_forms import Array, Case, Form
from torchvision.ops import nms

from edgemask.ops import floor32
from edgemask.runtimes.functions import inline_functions

# float32 rounds 0.3 and 0.6 up, 0.45, 0.7 and 0.9 down, and has the rest exactly.
IOU_THRESHOLDS = [0.3, 0.45, 0.5, 0.6, 0.7, 0.75, 0.9, 0.0, 1.0]
SCORE_THRESHOLD = 0.05  # which is one of the scores, too
NO_LIMIT = 2**31
MOST_BOXES, MOST_CLASSES, MOST_SCORES = 5_000, 90, 10_000
LARGEST_EVERY = 1_999  # so that each kind has its turn
FEW = len(IOU_THRESHOLDS) * len(op_forms.NMS_KINDS)  # each of one with each of the other

RUNTIMES = [
    pytest.param(op_forms.on_onnxruntime, "ONNX Runtime", id="onnxruntime"),
    pytest.param(op_forms.on_openvino, "OpenVINO", id="openvino", marks=pytest.mark.openvino),
]


def cases(count: int) -> Iterator[tuple[float, Case]]:
    """IoU thresholds and sets: every kind with every threshold, all orders of magnitude, and now and then the most."""
    random = np.random.default_rng(4)
    for number in range(count):
        threshold = IOU_THRESHOLDS[number // len(op_forms.NMS_KINDS) % len(IOU_THRESHOLDS)]
        kind = op_forms.NMS_KINDS[number % len(op_forms.NMS_KINDS)]
        sizes = (1, MOST_CLASSES, MOST_BOXES) if (number + 1) % LARGEST_EVERY == 0 else _sizes(random)
        yield threshold, op_forms.nms_case(random, kind, sizes)


def _sizes(random: np.random.Generator) -> tuple[int, int, int]:
    batch = int(random.integers(1, 4))
    classes = int(np.exp(random.uniform(0, np.log(MOST_CLASSES + 1))))
    boxes = int(np.exp(random.uniform(0, np.log(MOST_BOXES + 2)))) - 1
    return batch, classes, min(boxes, MOST_SCORES // (batch * classes))


def of_torchvision(case: Sequence[Array], iou_threshold: float) -> Array:
    boxes, scores = case
    ordered = np.concatenate(
        [np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])], axis=-1
    )
    rows = [np.empty((0, 3), np.int64)]
    for image, label in np.ndindex(*scores.shape[:2]):
        best_first = np.argsort(-scores[image, label], kind="stable")
        candidates = best_first[scores[image, label, best_first] > SCORE_THRESHOLD]
        arrays = ordered[image, candidates], scores[image, label, candidates]
        kept = candidates[nms(*(torch.from_numpy(array) for array in arrays), iou_threshold).numpy()]
        rows.append(np.stack([np.full_like(kept, image), np.full_like(kept, label), kept], axis=1))
    return np.concatenate(rows)


def same_sets(count: int, open_form: Callable[[float], Form]) -> int:
    """In how many sets a form, opened for each threshold, gives torchvision's rows in its order."""
    forms = {threshold: open_form(threshold) for threshold in IOU_THRESHOLDS}
    return sum(
        np.array_equal(of_torchvision(case, threshold), forms[threshold](case)) for threshold, case in cases(count)
    )


def attributes(iou_threshold: float) -> dict[str, float]:
    return {"iou_threshold": iou_threshold, "score_threshold": SCORE_THRESHOLD, "max_per_class": NO_LIMIT}


@pytest.mark.parametrize("count", [FEW, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_same_as_torchvision(runtime: Callable[..., Form], name: str, count: int, finding: Finding) -> None:
    same = same_sets(count, lambda threshold: runtime(op_forms.nms_model(attributes(floor32(threshold)))))
    assert same == count
    finding(f"{same:,} of {count:,} identical", where=name)


def nearest(threshold: float) -> Form:
    """0.3 and its like rounded as float32 does it: up."""
    return op_forms.on_onnxruntime(op_forms.nms_model(attributes(float(np.float32(threshold)))))


def next_below(threshold: float) -> Form:
    """Drops a box whose overlap is the threshold itself."""
    below = max(float(np.nextafter(np.float32(floor32(threshold)), np.float32(0))), 0.0)
    return op_forms.on_onnxruntime(op_forms.nms_model(attributes(below)))


def uncorrected(threshold: float) -> Form:
    return op_forms.on_openvino(op_forms.nms_model(attributes(floor32(threshold))), prepare=inline_functions)


def reversed_ties(threshold: float) -> Form:
    """The right boxes of each class, and those of equal scores by descending index."""
    form = op_forms.on_onnxruntime(op_forms.nms_model(attributes(floor32(threshold))))

    def run(case: Sequence[Array]) -> Array:
        rows = form(case)
        scores = case[1][rows[:, 0], rows[:, 1], rows[:, 2]]
        return rows[np.lexsort((-rows[:, 2], -scores, rows[:, 1], rows[:, 0]))]

    return run


@pytest.mark.parametrize(
    "broken", [nearest, next_below, reversed_ties, pytest.param(uncorrected, marks=pytest.mark.openvino)]
)
def test_another_selection_is_found_out(broken: Callable[[float], Form]) -> None:
    assert same_sets(FEW, broken) < FEW
