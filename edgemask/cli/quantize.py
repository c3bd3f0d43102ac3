"""`edgemask quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson, check_folder
from edgemask.errors import UsageError
from edgemask.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgemask.quantization import QuantizationReport, Recipe

EXAMPLE = """\b
Example: edgemask quantize model.onnx -o int8.onnx --calibration train/
Example: edgemask quantize model.onnx -o int8.onnx --calibration train/ \\
             --images val/ --annotations val.json --max-drop 0.01"""


def quantize(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="An FP32 file written by edgemask export.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file to write.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images such as the model will see; 100 or more.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="How; --list shows them.", autocompletion=completion.recipes)
    ] = "default",
    target: Annotated[
        Literal["portable", "tensorrt"], typer.Option(help="tensorrt: symmetric activations.")
    ] = "portable",
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="D",
            help="Meant for; may be repeated.  [default: cpu and openvino:CPU]",
            autocompletion=completion.devices,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images to validate on: the accuracy is kept, or exit 1.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their COCO-format annotations: AP is kept.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="X", help="Share of each AP that may be lost; 0.01 keeps 99 %.  [default: 0.01]"),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="Whose AP is kept, as for validate.  [default: MODEL.onnx]",
            autocompletion=completion.builders,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Of the reference, if it is a builder.")
    ] = None,
    calibration_limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Calibrate on N images at most, drawn from DIR.")
    ] = 300,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Validate on N images only.")] = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave out what is missing or unreadable in --images.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0, help="Then take the best so far.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the recipes, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model file in INT8, as fast as its accuracy allows.

    One file for ONNX Runtime and OpenVINO. Layers that are slower in INT8 on the devices stay in FP32; with --images
    and --annotations, so does what costs more accuracy than --max-drop allows.
    """
    if list_recipes:
        with working("quantize", "validate"):
            from edgemask.quantization import RECIPES
        answer({"recipes": RECIPES}, as_json=as_json, show=lambda console: _list(console, RECIPES))
        return
    if model is None or output is None or calibration is None:
        missing = {"MODEL.onnx": model, "--output FILE": output, "--calibration DIR": calibration}
        names = ", ".join(name for name, value in missing.items() if value is None)
        raise UsageError(f"there is no {names}", "edgemask quantize MODEL.onnx -o FILE --calibration DIR")
    check_folder(output)
    journal = output.with_name(f"{output.name}.partial")
    with working("quantize", "validate"):
        from edgemask.quantization import quantize as quantize_model

        report = quantize_model(
            model,
            output,
            calibration,
            recipe=recipe,
            target=target,
            calibration_limit=calibration_limit,
            device=device,
            images=images,
            annotations=annotations,
            reference=reference,
            weights=weights,
            max_drop=max_drop,
            limit=limit,
            skip_bad_images=skip_bad_images,
            time_limit=time_limit,
            journal=journal,
            resume=resume,
        )
    following = ["edgemask", "validate", output, "--reference", reference or model, "--images", images or "DIR"]
    following += [] if annotations is None else ["--annotations", annotations]
    answer(
        report,
        as_json=as_json,
        show=lambda console: _show(console, report),
        following=[following] if report.passed else [],
        passed=report.passed,
    )


def _list(console: "Console", recipes: "Sequence[Recipe]") -> None:
    every, last = recipes[0].stages, recipes[0].keep  # of all but those that say otherwise
    rows = [
        {
            "recipe": recipe.name,
            "ranges": recipe.method + (f" {recipe.percentile:g}" if recipe.method == "percentile" else ""),
            "weights": f"{recipe.weight_bits} bits, {'per channel' if recipe.per_channel else 'per tensor'}",
            "what for": recipe.about,
        }
        for recipe in recipes
    ]
    console.print(table("Recipes", rows))
    console.print()
    facts(
        console,
        stages=", ".join(every),
        stay_in_FP32=", ".join(last),
    )


def _show(console: "Console", report: "QuantizationReport") -> None:
    from edgemask.quantization.search import DONE

    found, calibration = report.search, report.calibration
    share = found.bytes / found.fp32_bytes
    facts(
        console,
        file=report.path if report.passed else f"{report.path} was not written",
        size=f"{found.bytes / 1e6:.1f} MB, {share:.3f} of {found.fp32_bytes / 1e6:.1f} MB",
        recipe=report.recipe.name,
        calibrated=f"on {calibration.images} images with {calibration.objects} objects",
        ended=None if found.stopped == DONE else f"at {found.stopped}; --resume goes on",
        time=f"{report.seconds:.0f} s",
    )
    console.print()
    for title, rows in (
        ("Stages", _stage_rows(report)),
        ("Time of the graph, in turns with FP32", _time_rows(report)),
        ("Accuracy", _accuracy_rows(report)),
        ("What was tried", _trial_rows(report)),
    ):
        if rows:
            console.print(table(title, rows))
            console.print()
    for group in report.search.groups:
        if group.reason:
            console.print(f"- {group.name} in FP32: {group.reason}", soft_wrap=True)
    for warning in report.warnings:
        console.print(f"- {warning}", soft_wrap=True)
    for failure in report.failures:
        console.print(f"not reached: {failure}", soft_wrap=True)


def _stage_rows(report: "QuantizationReport") -> "list[dict[str, object]]":
    """A row for each group of layers: what it saves, and what it loses where that was measured."""
    clipped = {stage.stage: stage.clipped for stage in report.stages}
    rows: list[dict[str, object]] = []
    for group in report.search.groups:
        row: dict[str, object] = {"layers of": group.name, "INT8": f"{group.quantized} of {group.layers}"}
        row["saves MB"] = round(group.bytes_saved / 1e6, 2) if group.latency else None
        for compared in group.latency:
            own, other = compared.milliseconds
            row[f"saves ms, {compared.device}"] = round(other - own, 2)
        row["clipped"] = f"{100 * clipped[group.name.split(',')[0]]:.2g} %"
        if group.alone is not None:
            row["loses alone"] = f"{100 * group.alone.lost:.2f} %"
        rows.append(row)
    return rows


def _time_rows(report: "QuantizationReport") -> "list[dict[str, object]]":
    return [
        {
            "device": compared.device,
            "FP32 ms": round(compared.milliseconds[0], 1),
            "INT8 ms": round(compared.milliseconds[1], 1),
            "faster": f"{1 / compared.ratio:.2f}x",
        }
        for compared in report.search.latency
    ]


def _accuracy_rows(report: "QuantizationReport") -> "list[dict[str, object]]":
    accuracy = report.search.accuracy
    return [
        {
            "device": kept.device,
            "of": kept.what,
            "reference": f"{kept.reference:.4f}",
            "INT8": f"{kept.own:.4f}",
            "lost": f"{100 * kept.lost:.2f} %",
            "allowed": f"{100 * kept.allowed:.2f} %",
        }
        for kept in (accuracy.kept if accuracy is not None else ())
    ]


def _trial_rows(report: "QuantizationReport") -> "list[dict[str, object]]":
    if len(report.search.trials) < 2:
        return []
    return [
        {
            "INT8": trial.about,
            "layers": len(trial.layers),
            "MB": round(trial.bytes / 1e6, 2),
            "lost": f"{100 * trial.accuracy.lost:.2f} %",
            "enough": trial.accuracy.passed,
        }
        for trial in report.search.trials
    ]
