"""A validation as one HTML page that needs nothing else: no network, no other file."""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgemask.checks import printable
from edgemask.detections import name_of
from edgemask.errors import DependencyMissing
from edgemask.evaluation import COCO_METRICS
from edgemask.parity import KINDS, figures
from edgemask.report.charts import HEIGHT, WIDTH, chart, log_meter, meter, used
from edgemask.report.rows import (
    asked_of,
    difference,
    failing_first,
    labels_of,
    points,
    side_of,
    truth_of,
)

if TYPE_CHECKING:
    from edgemask.divergence import StageCheck
    from edgemask.evaluation import ClassComparison, TaskComparison
    from edgemask.parity import Mismatch
    from edgemask.validation.limits import Limit
    from edgemask.validation.reports import GalleryEntry, Validation, ValidationReport

_ASKED = {
    "least": "at least {}",
    "most": "at most {}",
    "max_drop": "at most {} below the reference's",
    "max_difference": "at most {} from the reference's",
    "max_regression": "at most {} worse than in the baseline",
}


def to_html(validation: "Validation") -> str:
    """Returns a page that shows everything in the record, one tab per device; encode it as UTF-8.

    The page holds its style, its script and its pictures, and its content security policy forbids everything else.
    Without JavaScript it shows the same, one part below the other. Text from outside is escaped, and control
    characters in it are shown as escapes.

    Raises:
        DependencyMissing: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        problem = "the HTML report needs the package jinja2, which is not installed"
        raise DependencyMissing(problem, "pip install 'edgemask[validate]'") from error
    script = _part("page.js")
    pages = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    pages.filters.update(_filters())
    pages.tests["finite"] = math.isfinite
    template = re.sub(r"(?m)^ +", "", _part("page.html.jinja"))  # its indentation would be a third of the page
    page = pages.from_string(template).render(
        validation=validation,
        reports=tuple(zip(labels_of(validation.reports), validation.reports, strict=True)),
        kinds=KINDS,
        metrics=COCO_METRICS,
        size=(WIDTH, HEIGHT),
        policy=_policy(script),
        style=Markup(_part("page.css")),  # noqa: S704  a file of ours, not to be escaped
        script=Markup(script),  # noqa: S704  a file of ours, not to be escaped
    )
    return page.strip() + "\n"


def _part(name: str) -> str:
    return resources.files("edgemask.report").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _filters() -> dict[str, Any]:
    return {
        "asked_of": asked_of,
        "chart": chart,
        "day_and_time": lambda date: date.replace("T", " ").replace("+00:00", " UTC"),
        "difference": difference,
        "failing_first": failing_first,
        "figure": lambda value, unit="": figures(value, None, unit)[0],
        "gallery": _gallery,
        "limit_words": _limit_words,
        "log_meter": log_meter,
        "meter": meter,
        "picture": lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
        "points": points,
        "reach": _reach,
        "side_of": side_of,
        "stage_share": _stage_share,
        "truth_of": truth_of,
        "used": used,
        "worst_classes": _worst_classes,
    }


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mismatch with the name of its class and that name's place in the list to choose from."""

    mismatch: "Mismatch"
    name: str
    place: int

    @property
    def sides(self) -> tuple[str, ...]:
        """Where the detection is; on the other side its box is broken."""
        return {"lost": ("reference",), "ghost": ("model",)}.get(self.mismatch.kind, ("reference", "model"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """An image of the gallery, and the places of its classes in the list to choose from."""

    entry: "GalleryEntry"
    places: tuple[int, ...]
    marks: tuple[_Mark, ...]


@dataclass(frozen=True, slots=True)
class _Gallery:
    """The gallery, with the classes and the kinds of mismatch to choose from: on how many images each one is."""

    entries: tuple[_Entry, ...]
    classes: tuple[tuple[str, int], ...]
    kinds: dict[str, int]


def _gallery(report: "ValidationReport") -> _Gallery:
    names = list(dict.fromkeys(name for entry in report.gallery for name in _names(entry, report.class_names)))
    entries = tuple(_entry(entry, report.class_names, names) for entry in report.gallery)
    found = [{mismatch.kind for mismatch in entry.mismatches} for entry in report.gallery]
    kinds = {kind: sum(kind in some for some in found) for kind in KINDS}
    return _Gallery(
        entries,
        tuple((name, sum(place in entry.places for entry in entries)) for place, name in enumerate(names)),
        {kind: count for kind, count in kinds.items() if count},
    )


def _names(entry: "GalleryEntry", class_names: Sequence[str]) -> Iterator[str]:
    yield from entry.classes
    yield from (name_of(mismatch.label, class_names) for mismatch in entry.mismatches)


def _entry(entry: "GalleryEntry", class_names: Sequence[str], names: Sequence[str]) -> _Entry:
    places = tuple(sorted({names.index(name) for name in _names(entry, class_names)}))
    marks = ((mismatch, name_of(mismatch.label, class_names)) for mismatch in entry.mismatches)
    return _Entry(entry, places, tuple(_Mark(mismatch, name, names.index(name)) for mismatch, name in marks))


def _limit_words(limit: "Limit") -> str:
    value = f"{100 * limit.value:.6g} %" if limit.relative else f"{limit.value:.6g}"
    sure = ", fails only where 97.5 % sure" if limit.certain else ""
    return _ASKED[limit.kind].format(value) + sure


def _stage_share(check: "StageCheck") -> float:
    """The error as a share of what is allowed; infinite where it is no number."""
    if not check.error >= 0:
        return math.inf
    return check.error / check.tolerance if check.tolerance else (math.inf if check.error else 0.0)


def _reach(compared: "TaskComparison") -> float:
    """The largest difference on the axis of the intervals."""
    ends = [abs(end) for interval in compared.intervals.values() for end in (interval.low, interval.high)]
    ends += [abs(getattr(compared.candidate, name) - getattr(compared.reference, name)) for name in COCO_METRICS]
    return max((end for end in ends if math.isfinite(end) and end > 0), default=1.0)


def _worst_classes(compared: "TaskComparison") -> list["ClassComparison"]:
    """The classes that lost most first, those without objects last."""
    steps = {one.category_id: one.candidate - one.reference for one in compared.classes}

    def order(one: "ClassComparison") -> tuple[bool, float]:
        step = steps[one.category_id]
        return math.isnan(step), 0.0 if math.isnan(step) else step

    return sorted(compared.classes, key=order)
