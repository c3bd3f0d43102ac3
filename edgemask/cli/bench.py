"""`edgemask bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.checks import refuse
from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import DEVICES, AsJson, LibraryOptions, check_folder, read_size

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.benchmark import BenchReport, Conditions

EXAMPLE = """\b
Example: edgemask bench model.onnx --device cpu --device openvino
Example: edgemask bench model.onnx --device cpu --image a.jpg \\
             --reference model.safetensors --against eager,torchvision-onnx
Example: edgemask bench model.onnx int8.onnx --device cpu --plot plot.svg \\
             --accuracy r/report.json --accuracy r8/report.json"""
_PLOTS = (".svg", ".html")


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx...", help="Files written by edgemask export.")],
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="D", help=f"{DEVICES}; may be repeated.", autocompletion=completion.devices),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P", help="file, tf32, bf16 or fp16; may be repeated.", autocompletion=completion.precisions
        ),
    ] = None,
    options: LibraryOptions = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="The PyTorch model: a checkpoint or a builder's name.",
            autocompletion=completion.builders,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Weights, where the reference is a builder.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="eager, compile, eager-fp16 (on a GPU), torchvision-onnx, torchvision-onnx-unpasted; with commas.",
            autocompletion=completion.against,
        ),
    ] = None,
    reference_device: Annotated[
        str | None, typer.Option(metavar="D", help="cpu or cuda[:N] for PyTorch; left out, that of the first model.")
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The image; otherwise one is drawn.")] = None,
    image_size: Annotated[str | None, typer.Option(metavar="HxW", help="Size of the image to draw.")] = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timed rounds; p99 needs 100.")] = 10,
    warmup: Annotated[int, typer.Option(metavar="N", min=0, help="Rounds before that.")] = 2,
    batch: Annotated[
        list[int] | None, typer.Option(metavar="N", min=1, help="Images a call, too; may be repeated.")
    ] = None,
    streams: Annotated[int, typer.Option(metavar="N", min=1, help="Call one detector from so many threads, too.")] = 1,
    memory: Annotated[bool, typer.Option("--memory", help="Peak memory, each in a process of its own.")] = False,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="MLPerf's timing rules: single-stream or multi-stream.",
            autocompletion=completion.scenarios,
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Of the scenario, for each; the rules ask for 600.")
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(metavar="JSON", help="report.json of edgemask validate, for the plot; may be repeated."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Latency against accuracy, as .svg or .html.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="The figures as comma-separated values.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure model files, side by side.

    Models on devices, the PyTorch model itself and torchvision's own ONNX export take turns on one image, with the
    same number of threads. Ratios are to the first model on the first device: 1.6 took 1.6 times as long. Masks stay
    in their boxes; "pasted" has them as bitmaps of the image, as torchvision's export gives them. Who cannot be
    measured here is listed with the reason.
    """
    size = None if image_size is None else read_size("--image-size", image_size)
    names = "eager" if against is None and reference is not None else against or ""
    if plot is not None and plot.suffix.lower() not in _PLOTS:
        refuse("--plot", "a file that ends in .svg or .html", str(plot))
    for path in (plot, csv):
        check_folder(path)
    with working("bench", "cpu" if reference is None else "export"):
        from edgemask.benchmark import BenchPlan
        from edgemask.benchmark import bench as measure
        from edgemask.runtimes.options import parse_options

        report = measure(
            models,
            devices=device or ["auto"],
            precisions=precision or (),
            options=parse_options(options or ()),
            reference=reference,
            weights=weights,
            against=[name.strip() for name in names.split(",") if name.strip()],
            reference_device=reference_device,
            image=image,
            image_size=size,
            accuracy=accuracy or (),
            plan=BenchPlan(
                repeats=repeats,
                warmup=warmup,
                batches=tuple(batch or ()),
                streams=streams,
                memory=memory,
                scenario=scenario,
                duration=duration,
            ),
        )
        _write(report, plot, csv)
    answer(report, as_json=as_json, show=lambda console: _show(console, report))


def _write(report: "BenchReport", plot: Path | None, csv: Path | None) -> None:
    from edgemask.benchmark import plot_page, plot_svg, to_csv
    from edgemask.files import creating

    forms = [] if csv is None else [(csv, to_csv)]
    if plot is not None:
        forms.append((plot, plot_svg if plot.suffix.lower() == ".svg" else plot_page))
    for path, form in forms:
        with creating(path) as temporary:
            temporary.write_text(form(report), encoding="utf-8")


def _show(console: "Console", report: "BenchReport") -> None:
    from edgemask.benchmark.rows import tables
    from edgemask.report import table

    for title, rows in tables(report).items():
        console.print(table(title, rows))
        console.print()
    (height, width), plan = report.image_size, report.plan
    facts(
        console,
        image=f"{report.image}, {height} x {width} (H x W)",
        rounds=f"{plan.repeats}, after {plan.warmup} for warm-up",
        threads=f"{report.environment.threads} for each",
        processor=report.environment.processor,
        machine=f"{_machine(report.before)} before, {_machine(report.after)} after",
        versions=", ".join(f"{name} {version}" for name, version in report.environment.versions.items()),
        date=report.environment.date,
    )
    for note in report.notes:
        facts(console, note=note)


def _machine(conditions: "Conditions") -> str:
    known = {"load {:g}": conditions.load, "{:g} MHz": conditions.megahertz, "{:g} °C": conditions.celsius}
    return ", ".join(form.format(value) for form, value in known.items() if value is not None) or "not known"
