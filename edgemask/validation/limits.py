"""What is asked of a model: the row of its precision, a gate file, or single limits."""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from edgemask.checks import did_you_mean, number, printable
from edgemask.errors import UsageError
from edgemask.evaluation import COCO_METRICS, TASK_WORDS
from edgemask.parity import TASKS, SemanticTolerance, Tolerance

Kind = Literal["least", "most", "max_drop", "max_difference", "max_regression"]
COCO_KEYS = tuple(f"{TASK_WORDS[task]}_{metric}" for task in TASKS for metric in COCO_METRICS)
# More is better of these, less of those; `ap` and the other bare metrics stand for those of every task of the model.
HIGHER = ("matched_share", "box_iou", "box_iou_min", "mask_iou", "mask_iou_min", "oks", "oks_min", "pixel_agreement",
          "pixel_agreement_min", "object_agreement", "label_iou", "label_iou_min")  # fmt: skip
LOWER = ("score_difference", "keypoint_distance", "keypoint_distance_max", "keypoint_score_difference", "latency_ratio",
         "milliseconds", "file_size_mb")  # fmt: skip
_KEYS: Mapping[Kind, tuple[str, ...]] = {
    "least": (*HIGHER, *COCO_METRICS, *COCO_KEYS),
    "most": LOWER,
    "max_drop": (*COCO_METRICS, *COCO_KEYS),
    "max_regression": (*HIGHER, *LOWER, *COCO_METRICS, *COCO_KEYS),
}
# Three spoilt images of 20 are missing from 4 % of the resampled sets: an interval of 95 % then reaches to 0 though the
# drop is real. What is this many times the limit is taken for no chance.
GROSS = 4
_OPTIONS = {"max_drop": ("type", "certain"), "max_regression": ("type",)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that is asked.

    Attributes:
        key: which value, such as `matched_share`, `mask_ap50`; a bare `ap` stands for that of every task.
        kind: `least` and `most` of the model's own value; `max_drop`, how far a COCO metric may lie below the
            reference's; `max_difference`, how far from it on either side; `max_regression`, how much worse than in the
            baseline.
        value: the limit: shares, IoU and COCO metrics in 0-1, all others from 0 on.
        relative: of a drop or regression: as a share of the reference's or the baseline's value.
        certain: of a drop: only one that 97.5 % of the resampled sets of images show is one. They do not show damage on
            up to three images, since so many sets leave these out: a drop of more than `GROSS` times the limit counts
            in any case.
        origin: who asks, for the reader.

    Raises:
        UsageError: a limit that is no such number.
    """

    key: str
    kind: Kind
    value: float
    relative: bool = False
    certain: bool = False
    origin: str = ""

    def __post_init__(self) -> None:
        is_share = self.key not in LOWER and not self.relative
        number(0, 1 if is_share else 1e9)(f"{self.origin or 'limit'}: {self.kind} {self.key}", self.value)


def limits_of(
    tolerance: Tolerance | SemanticTolerance, tasks: Sequence[str], *, annotated: bool, origin: str
) -> tuple[Limit, ...]:
    """The limits of a precision's row, as far as they concern the tasks of a model.

    Args:
        tolerance: the row.
        tasks: of the model.
        annotated: whether COCO metrics come from annotations; the row asks nothing of AP against the reference.
        origin: name of the row.
    """
    if isinstance(tolerance, SemanticTolerance):
        return tuple(_own(key, value, origin) for key, value in tolerance.limits().items())
    unasked = {"mask_iou"} if "masks" not in tasks else set()
    unasked |= {"keypoint_distance", "oks"} if "keypoints" not in tasks else set()
    if annotated and tolerance.ap_decides:
        unasked |= tolerance.limits().keys()
    limits = [_own(key, value, origin) for key, value in tolerance.limits().items() if key not in unasked]
    if annotated and tolerance.ap_difference is not None:
        limits.append(Limit("ap", "max_difference", tolerance.ap_difference, origin=origin))
    if annotated and tolerance.ap_share is not None:
        limits.append(Limit("ap", "max_drop", 1 - tolerance.ap_share, relative=True, origin=origin))
    return tuple(limits)


def _own(key: str, value: float, origin: str) -> Limit:
    return Limit(key, "most" if key in LOWER else "least", value, origin=origin)


def read_gate(path: str | os.PathLike[str]) -> tuple[Limit, ...]:
    """Reads a gate file: TOML with the tables `least`, `most`, `max_drop` and `max_regression`.

    Each key of a table is a value that is measured, each number what is asked of it: `[least] matched_share = 0.99`.
    In `max_drop` and `max_regression`, `type` is `absolute` (the default) or `relative`; `certain = true` in `max_drop`
    lets a drop fail only where its whole 95 % interval lies beyond the limit.

    Raises:
        UsageError: no such file, not TOML, nothing asked, an unknown table or key (the closest one is named), a key in
            the wrong table, or a value that is no number.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the gate {path}: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the gate {path} is not TOML: {error}",
            "expected tables such as [least] and lines such as matched_share = 0.99",
        ) from error
    limits = tuple(limit for table, entries in document.items() for limit in _limits(Path(path).name, table, entries))
    if not limits:
        raise UsageError(f"the gate {path} asks nothing", "write a line such as matched_share = 0.99 under [least]")
    return limits


def _limits(name: str, table: str, entries: Any) -> Iterator[Limit]:
    if table not in _KEYS:
        _refuse(name, table, tuple(_KEYS), "table")
    if not isinstance(entries, Mapping):
        raise UsageError(f"{name}: {table} is {entries!r}", f"expected a table: [{table}] and lines below it")
    relative = _option(name, table, entries, "type", ("absolute", "relative"), "absolute") == "relative"
    certain = _option(name, table, entries, "certain", (False, True), False)
    for key, value in entries.items():
        if key in _OPTIONS.get(table, ()):
            continue
        if key not in _KEYS[cast("Kind", table)]:
            _refuse_key(name, table, key)
        yield Limit(key, cast("Kind", table), value, relative, bool(certain), name)


def _option(name: str, table: str, entries: Mapping[str, Any], key: str, options: tuple[Any, ...], default: Any) -> Any:
    if key not in _OPTIONS.get(table, ()) or key not in entries:
        return default
    if entries[key] not in options or type(entries[key]) is not type(default):
        words = " or ".join(str(option).lower() for option in options)
        raise UsageError(f"{name}: {table}.{key} is {entries[key]!r}", f"expected {words}")
    return entries[key]


def _refuse_key(name: str, table: str, key: str) -> None:
    homes = [other for other, keys in _KEYS.items() if key in keys]
    if homes:
        raise UsageError(f"{name}: {key} cannot stand under [{table}]", f"it belongs under [{'] or ['.join(homes)}]")
    _refuse(name, key, (*_KEYS[cast("Kind", table)], *_OPTIONS.get(table, ())), f"key of [{table}]")


def _refuse(name: str, got: str, known: tuple[str, ...], what: str) -> None:
    remedy = did_you_mean(got, known, f"known are {', '.join(known)}")
    raise UsageError(f"{name}: {printable(got)!r} is no {what}", remedy)


def merged(base: Sequence[Limit], more: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits of `base`, each replaced by one of `more` for the same value where there is one, then the others.

    A drop takes the place of a difference: both are asked of the same COCO metric.
    """
    asked = {(limit.key, _group(limit.kind)) for limit in more}
    return (*(limit for limit in base if (limit.key, _group(limit.kind)) not in asked), *more)


def _group(kind: Kind) -> str:
    return "max_drop" if kind == "max_difference" else kind
