"""Where a model first differs from its reference: stage by stage, each fed with the reference's own input.

So one early flip does not condemn everything behind it, and a broken stage accuses no other one. What the reference
gave at the borders of the stages is a record (`edgemask.stage_record`), of PyTorch or of another ONNX file: the device
on which a model is judged needs no PyTorch.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.stage_record import on_the_road

if TYPE_CHECKING:
    from edgemask.runtimes import ModelFile

Array = NDArray[Any]
_ROWS = 64  # compared with all others at a time: of 5,000 candidates, 10 MB


@dataclass(frozen=True, slots=True)
class StageCheck:
    """How one stage compares.

    Attributes:
        stage: name of the stage tensor; `nms` for boxes, scores and labels of the detections.
        error: largest difference, as a share of the reference's largest magnitude; of what is chosen, the share of rows
            that only one side has, or that lie out of order; of maps and bitmaps, the share of pixels that differ.
            Infinite for a tensor that is missing, of another shape, or not all numbers.
        tolerance: what is allowed; infinite where errors are only reported.
    """

    stage: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a finite number within the tolerance."""
        return math.isfinite(self.error) and self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class StageTolerance:
    """What is allowed of a stage that is given the reference's own input.

    Attributes:
        resize: of `stage/resize`, as a share of the largest magnitude.
        values: of other tensors, as a share of the reference's largest magnitude.
        same: how far apart two boxes or points may be and still be the same one, as a share of the longer side of the
            canvas or of the image; scores as they are.
        choices: share of boxes or points that are not the same.
        pixels: share of pixels labelled otherwise, or of those of the bitmaps that only one side has.
    """

    resize: float
    values: float
    same: float
    choices: float
    pixels: float


# FP32. Resize, measured: torch's own of 480x640 to 800x1066 differs from itself by 0.0075 grey levels, 5e-5 of the
# largest normalised value, between one thread (a fused multiply-add) and two. Values: ten times what summing in another
# order costs. Choices: two of a thousand may flip on a tie. Pixels: those on the border of two classes.
# FP16. Measured on three trained models whose weights and layers' results were rounded to FP16: values 1.1e-3 at most,
# which again gets ten times; resize 5e-4. Boxes are decoded in FP32 from deltas that may be rounded to 5e-4.
# INT8 stages differ by design: their errors are reported, and only what is missing or no number fails.
STAGE_TOLERANCES = {
    "fp32": StageTolerance(resize=1e-4, values=2e-5, same=2e-5, choices=2e-3, pixels=1e-3),
    "fp16": StageTolerance(resize=2e-3, values=1e-2, same=2e-3, choices=2e-2, pixels=1e-2),
    "int8": StageTolerance(resize=math.inf, values=math.inf, same=1e-2, choices=math.inf, pixels=math.inf),
}


def compare_stages(
    file: "ModelFile", device: str, pixels: NDArray[np.uint8], expected: Mapping[str, Array]
) -> tuple[StageCheck, ...]:
    """Runs the stages of a model file on what a reference gave before each, and compares what they give.

    Args:
        file: the candidate, as `read_model` gave it.
        device: where it runs.
        pixels: uint8 [H, W, 3] RGB.
        expected: the reference's record of this image, from `record_stages` or `stages_of_file`; on the same canvas.

    Returns:
        One check per stage of the record, in the order of the data's road.

    Raises:
        UsageError: no such device, or a record of another canvas or of more rows than the file has room for.
        DeviceUnavailable: the device cannot run the model here.
        OutOfMemory: too large for it.
    """
    from edgemask.runtimes.stage_runs import stages_given

    return compare_records(expected, stages_given(file, device, pixels, expected), file.spec.precision)


def compare_records(
    expected: Mapping[str, Array], own: Mapping[str, Array], precision: str = "fp32"
) -> tuple[StageCheck, ...]:
    """Compares what stages gave, as `compare_stages` says.

    Args:
        expected: the reference's record.
        own: what the candidate's stages gave, each on the reference's input.
        precision: chooses the row of `STAGE_TOLERANCES`.
    """
    tolerance = STAGE_TOLERANCES[precision]
    return tuple(_check(name, expected, own, tolerance) for name in _stages(expected, own))


def first_divergence(checks: Sequence[StageCheck]) -> StageCheck | None:
    """The first check that did not pass."""
    return next((check for check in checks if not check.passed), None)


def _stages(expected: Mapping[str, Array], own: Mapping[str, Array]) -> Iterator[str]:
    """The names under which the record holds a stage."""
    of_nms = ("labels", "scores") if "boxes" in expected else ()
    for name in on_the_road(expected):
        # A map that nothing is computed from is left out of a graph without RPN.
        unused = "proposals.boxes" in expected and name.startswith(("backbone.", "fpn.")) and name not in own
        if not unused and name not in ("image_sizes", "proposals.boxes", *of_nms):
            yield name


def _check(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], tolerance: StageTolerance) -> StageCheck:
    kind, error_of = _WAYS.get(name, ("values", _value_error))
    fits = all(part in own and _fits(expected[part], own[part]) for part in _PARTS.get(name, (name,)))
    error = error_of(name, expected, own, tolerance.same) if fits else math.inf
    return StageCheck("nms" if name == "boxes" else name, error, getattr(tolerance, kind))


def _fits(expected: Array, own: Array) -> bool:
    """Whether rows of the one can be compared with rows of the other, however many there are."""
    row = max(1, expected.ndim - 1)
    return expected.ndim == own.ndim and expected.shape[row:] == own.shape[row:] and bool(np.isfinite(own).all())


def _value_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    """Largest difference, as a share of the reference's largest magnitude."""
    wanted, found = expected[name], own[name]
    if wanted.shape != found.shape:
        return math.inf
    if not wanted.size:
        return 0.0
    with np.errstate(over="ignore"):
        difference = np.abs(wanted.astype(np.float32, copy=False) - found).max()
    return float(difference / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))


def _candidate_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    return _unshared(expected[name][0], own[name][0], same * _side(expected))


def _candidate_score_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    """Share of candidates, in the reference's order, that are scored or removed otherwise."""
    wanted, found = expected[name], own[name]
    return float((~(np.abs(wanted - found) <= same)).mean()) if wanted.size else 0.0


def _proposal_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    return _unshared(expected[name][:, 1:], own[name][:, 1:], same * _side(expected))


def _nms_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    wanted, found = (np.column_stack([of[part] for part in _PARTS[name]]) for of in (expected, own))
    return _detection_error(wanted, found, same, _side(expected))


def _brought_back_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    return _detection_error(expected[name], own[name], same, _reach(expected))


def _detection_error(expected: Array, own: Array, same: float, side: float) -> float:
    """Of rows of box, score and label: the share of those without their like, or out of order."""
    # A step of 1 is far apart: pixels, and label and score scaled to them.
    scale = np.array([1, 1, 1, 1, side, side])
    rises = (np.diff(own[:, 4]) > 0).mean() if len(own) > 1 else 0.0
    return max(_unshared(expected * scale, own * scale, same * side), float(rises))


def _point_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    """Share of points that lie elsewhere."""
    wanted, found = expected[name], own[name]
    if wanted.shape != found.shape:
        return math.inf
    if not wanted.size:
        return 0.0
    return float((~(np.abs(wanted - found).max(2) <= same * _reach(expected))).mean())


def _label_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    """Pixels labelled otherwise, as a share of the image's."""
    if expected[name].shape != own[name].shape:
        return math.inf
    inside = expected["image_sizes"].prod() if name == "labels" else expected[name].size
    return float((expected[name] != own[name]).sum() / inside)


def _bitmap_error(name: str, expected: Mapping[str, Array], own: Mapping[str, Array], same: float) -> float:
    """Pixels that only one side has, as a share of those that either has."""
    if expected[name].shape != own[name].shape:
        return math.inf
    apart = either = 0
    for wanted, found in zip(expected[name], own[name], strict=True):
        apart += int(np.bitwise_count(wanted ^ found).sum())
        either += int(np.bitwise_count(wanted | found).sum())
    return apart / max(either, 1)


def _side(expected: Mapping[str, Array]) -> float:
    """The longer side of the canvas, pixels."""
    return float(max(expected["stage/resize"].shape[-2:]))


def _reach(expected: Mapping[str, Array]) -> float:
    """The largest coordinate of a detection, pixels of the original."""
    return float(np.abs(expected["detections"][:, :4]).max(initial=1))


def _unshared(expected: Array, own: Array, same: float) -> float:
    """Share of rows of either side without a row of the other one that is the same."""
    if not len(expected) or not len(own):
        return float(len(expected) != len(own))
    return (_lonely(expected, own, same) + _lonely(own, expected, same)) / (len(expected) + len(own))


def _lonely(rows: Array, others: Array, same: float) -> int:
    # Nearly all have their like in the same place; the others are sought among all.
    common = min(len(rows), len(others))
    found = np.zeros(len(rows), np.bool_)
    found[:common] = (np.abs(rows[:common] - others[:common]) <= same).all(1)
    rest = rows[~found]
    return sum(
        int((~(np.abs(part[:, None] - others) <= same).all(2).any(1)).sum())
        for part in (rest[start : start + _ROWS] for start in range(0, len(rest), _ROWS))
    )


# What a stage consists of, where that is not the tensor of its name alone.
_PARTS = {"boxes": ("boxes", "scores", "labels")}
# How stages that do more than compute values are compared, and which field of the tolerance is theirs.
_WAYS: dict[str, tuple[str, Callable[[str, Mapping[str, Array], Mapping[str, Array], float], float]]] = {
    "stage/resize": ("resize", _value_error),
    "rpn.boxes": ("choices", _candidate_error),
    "rpn.scores": ("choices", _candidate_score_error),
    "proposals": ("choices", _proposal_error),
    "boxes": ("choices", _nms_error),
    "labels": ("pixels", _label_error),
    "map": ("pixels", _label_error),
    "detections": ("choices", _brought_back_error),
    "detections.keypoints": ("choices", _point_error),
    "paste": ("pixels", _bitmap_error),
}
