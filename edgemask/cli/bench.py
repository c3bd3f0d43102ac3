"""`edgemask bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson, read_size

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.benchmark import BenchReport, ContestantResult

EXAMPLE = """\b
Example: edgemask bench model.onnx --device cpu --device openvino
Example: edgemask bench model.onnx --device cpu --image a.jpg \\
             --reference model.safetensors --against eager,torchvision-onnx"""


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx...", help="Files written by edgemask export.")],
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="D", help="auto, cpu, cuda[:N] or openvino[:CPU|GPU|NPU]; may be repeated."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="REF", help="The PyTorch model: a checkpoint or a builder's name.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Weights, where the reference is a builder.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="eager, torchvision-onnx, torchvision-onnx-unpasted; with commas between."),
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The image; otherwise one is drawn.")] = None,
    image_size: Annotated[str | None, typer.Option(metavar="HxW", help="Size of the image to draw.")] = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timed rounds.")] = 10,
    warmup: Annotated[int, typer.Option(metavar="N", min=0, help="Rounds before that.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Measure model files, side by side.

    Models on devices, the PyTorch model itself and torchvision's own ONNX export take turns on one image, with the
    same number of threads. Ratios are to the first model on the first device: 1.6 took 1.6 times as long. Masks stay
    in their boxes; "pasted" has them as bitmaps of the image, as torchvision's export gives them.
    """
    size = None if image_size is None else read_size("--image-size", image_size)
    names = "eager" if against is None and reference is not None else against or ""
    with working("bench", "cpu" if reference is None else "export"):
        from edgemask.benchmark import bench as measure

        report = measure(
            models,
            devices=device or ["auto"],
            reference=reference,
            weights=weights,
            against=[name.strip() for name in names.split(",") if name.strip()],
            image=image,
            image_size=size,
            repeats=repeats,
            warmup=warmup,
        )
    answer(report, as_json=as_json, show=lambda console: _show(console, report))


def _show(console: "Console", report: "BenchReport") -> None:
    from edgemask.report import table

    height, width = report.image_size
    contestants = [_named(result) for result in report.contestants]
    console.print(table("Medians in milliseconds", [name | _totals(result) for name, result in contestants]))
    console.print()
    console.print(table("Stages, medians in milliseconds", [name | _stages(result) for name, result in contestants]))
    console.print()
    facts(
        console,
        image=f"{report.image}, {height} x {width} (H x W)",
        rounds=f"{report.repeats}, after {report.warmup} for warm-up",
        threads=f"{report.environment.threads} for each",
        processor=report.environment.processor,
        versions=", ".join(f"{name} {version}" for name, version in report.environment.versions.items()),
        date=report.environment.date,
    )
    for note in report.notes:
        facts(console, note=note)


def _named(result: "ContestantResult") -> tuple[dict[str, object], "ContestantResult"]:
    return {"contestant": f"{Path(result.name).name} on {result.device}"}, result


def _totals(result: "ContestantResult") -> dict[str, object]:
    total, pasted = result.stages["total"], result.stages.get("pasted")
    row: dict[str, object] = {"total": total.median, "ratio": total.ratio}
    if pasted is not None:
        row |= {"pasted": pasted.median, "pasted ratio": pasted.ratio}
    return row | {"found": result.detections}


def _stages(result: "ContestantResult") -> dict[str, object]:
    names = {"preprocess": "before", "inference": "inference", "postprocess": "after"}
    medians: dict[str, object] = {shown: result.stages[stage].median for stage, shown in names.items()}
    return {"load": result.load} | medians | {"p90 of total": result.stages["total"].p90}
