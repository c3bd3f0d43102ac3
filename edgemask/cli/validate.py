"""`edgemask validate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, note, working
from edgemask.cli.engines import Address, Engine, Workers, cluster_of
from edgemask.cli.options import AsJson, ModelFile, check_folder
from edgemask.errors import UsageError
from edgemask.files import creating
from edgemask.report import print_validation, to_html, to_json, to_junit, to_markdown

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.validation import Limit, Validation

EXAMPLE = """\b
Example: edgemask validate model.onnx --reference model.safetensors \\
             --images val/ --device cpu --device openvino
Example: edgemask validate int8.onnx --reference model.safetensors \\
             --images val/ --annotations val.json --gate gate.toml"""
_PICTURES = 24  # in the gallery of the page
_FORMS = {"report.html": to_html, "report.json": to_json, "report.md": to_markdown, "junit.xml": to_junit}
_JOURNAL = "partial"  # folder under that of the report


def validate(
    model: ModelFile,
    reference: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="Checkpoint, builder, package.module:function, other.onnx, or stored run.npz.",
            autocompletion=completion.builders,
        ),
    ],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to compare on.")],
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their COCO-format annotations: compares AP on them.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Of the reference, if it is a builder.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="D",
            help="As for predict; may be given several times.  [default: auto]",
            autocompletion=completion.devices,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, .json, .md and junit.xml to DIR.")
    ] = None,
    save_run: Annotated[
        Path | None, typer.Option(metavar="RUN.npz", help="Keep what the reference found: REF for other machines.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Take N images only.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", min=0, help="Draw these N, not the first ones.")] = None,
    skip_bad_images: Annotated[
        bool,
        typer.Option("--skip-bad-images", help="Leave out what is missing or unreadable."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption; needs --report.")] = False,
    gate: Annotated[
        Path | None,
        typer.Option(metavar="GATE.toml", help="What is asked, in place of the precision's."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="X", help="AP of each task at most X lower: 0.01 is one point."),
    ] = None,
    min_matched: Annotated[
        float | None,
        typer.Option(metavar="X", help="Share of detections matched, 0-1."),
    ] = None,
    min_mask_iou: Annotated[float | None, typer.Option(metavar="X", help="Mean IoU of matched masks, 0-1.")] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(metavar="X", help="Median time over the reference's.")
    ] = None,
    max_size: Annotated[float | None, typer.Option(metavar="MB", help="Size of the model file.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="report.json of before, for [max_regression]."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a model file does what its reference does."""
    check_folder(save_run)
    cluster = cluster_of(engine, address, workers)
    if resume and report is None:
        raise UsageError("--resume needs the folder of the interrupted run", "give its --report DIR")
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        if baseline is not None and baseline.resolve() == (report / "report.json").resolve():
            raise UsageError(f"the report would replace its own baseline {baseline}", "give another --report DIR")
        for name in _FORMS:  # an outcome of before must not be taken for this one's
            (report / name).unlink(missing_ok=True)
    with working("validate", "all"):
        from edgemask.validation import validate as validate_model

        if report is not None:
            import jinja2  # noqa: F401  needed at the end only, and better missed at once
        record = validate_model(
            model,
            reference,
            images,
            annotations=annotations,
            device=device or "auto",
            weights=weights,
            limit=limit,
            seed=seed,
            skip_bad_images=skip_bad_images,
            gate=gate,
            limits=_limits(max_drop, min_matched, min_mask_iou, max_latency_ratio, max_size),
            baseline=baseline,
            save_run=save_run,
            journal=None if report is None else report / _JOURNAL,
            resume=resume,
            pictures=0 if report is None else _PICTURES,
            cluster=cluster,
        )
        written = {} if report is None else _write(record, report)
    answer(
        record,
        as_json=as_json,
        show=lambda console: _show(console, record, written | ({"run": save_run} if save_run else {})),
        following=[["edgemask", "predict", model, images, "-o", "DIR"]] if record.passed else [],
        passed=record.passed,
    )


def _limits(
    max_drop: float | None,
    min_matched: float | None,
    min_mask_iou: float | None,
    max_latency_ratio: float | None,
    max_size: float | None,
) -> list["Limit"]:
    from edgemask.validation import Limit
    from edgemask.validation.limits import Kind

    given: list[tuple[str, str, Kind, float | None]] = [
        ("--max-drop", "ap", "max_drop", max_drop),
        ("--min-matched", "matched_share", "least", min_matched),
        ("--min-mask-iou", "mask_iou", "least", min_mask_iou),
        ("--max-latency-ratio", "latency_ratio", "most", max_latency_ratio),
        ("--max-size", "file_size_mb", "most", max_size),
    ]
    return [Limit(key, kind, value, origin=flag) for flag, key, kind, value in given if value is not None]


def _write(record: "Validation", folder: Path) -> dict[str, Path]:
    """Writes every form of the report; gives their paths."""
    for name, form in _FORMS.items():
        with creating(folder / name) as temporary:
            temporary.write_text(form(record).rstrip("\n") + "\n", encoding="utf-8")
    note(f"wrote {', '.join(_FORMS)} to {folder}")
    return {"report": folder / "report.html"}


def _show(console: "Console", record: "Validation", written: dict[str, Path]) -> None:
    print_validation(record, console)
    facts(console, **written)
