"""`edgemask validate`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson, ModelFile
from edgemask.files import creating
from edgemask.report import print_validation, table, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from edgemask.parity import Measure
    from edgemask.validation import ValidationReport

EXAMPLE = """\b
Example: edgemask validate model.onnx --reference model.safetensors \\
             --images val/ --device cpu --device openvino"""


@dataclass(frozen=True, slots=True)
class Validation:
    """The reports of all devices; `passed` if all of them did."""

    reports: tuple["ValidationReport", ...]
    passed: bool


def validate(
    model: ModelFile,
    reference: Annotated[
        str, typer.Option(metavar="REF", help="Checkpoint, builder, package.module:function, or other.onnx.")
    ],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to compare on.")],
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their COCO-format annotations: compares AP too.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Of the reference, if it is a builder.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(metavar="D", help="As for predict; may be given several times.  [default: auto]")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Take the first N images only.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write DIR/report.json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a model file does what its reference does."""
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    with working("validate", "all"):
        from edgemask.validation import validate as validate_model

        reports: dict[str, ValidationReport] = {}
        for name in dict.fromkeys(device or ["auto"]):
            one = validate_model(
                model, reference, images, annotations=annotations, weights=weights, device=name, limit=limit
            )
            reports[f"auto: {one.device}" if name == "auto" else one.device] = one
        record = Validation(tuple(reports.values()), all(one.passed for one in reports.values()))
        if report is not None:
            with creating(report / "report.json") as temporary:
                temporary.write_text(to_json(record) + "\n", encoding="utf-8")
    answer(
        record,
        as_json=as_json,
        show=lambda console: _show(console, reports, report),
        following=[["edgemask", "predict", model, images, "-o", "DIR"]] if record.passed else [],
        passed=record.passed,
    )


def _show(console: "Console", reports: "Mapping[str, ValidationReport]", folder: Path | None) -> None:
    for report in reports.values():
        print_validation(report, console)
        console.print()
    if len(reports) > 1:
        console.print(table("Side by side", _rows(reports)))
        console.print()
    if folder is not None:
        facts(console, report=folder / "report.json")


def _rows(reports: "Mapping[str, ValidationReport]") -> list[dict[str, object]]:
    """A row per measure with a column per device."""
    columns = {name: {measure.name: measure for measure in report.measures} for name, report in reports.items()}
    names = list(dict.fromkeys(name for measures in columns.values() for name in measures))
    rows: list[dict[str, object]] = [
        {"measure": name, **{column: _figure(measures.get(name)) for column, measures in columns.items()}}
        for name in names
    ]
    times = {column: f"{report.milliseconds:.1f}" for column, report in reports.items()}
    results = {column: "passed" if report.passed else "FAILED" for column, report in reports.items()}
    return [*rows, {"measure": "ms per image", **times}, {"measure": "result", **results}]


def _figure(measure: "Measure | None") -> str:
    return "-" if measure is None or math.isnan(measure.value) else measure.show(measure.value)
