"""`edgemask train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson, check_folder
from edgemask.errors import UsageError
from edgemask.report import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from edgemask.evaluation import CocoMetrics
    from edgemask.training import TrainingReport

EXAMPLE = """\b
Example: edgemask train --images out/train/images -o model.safetensors \\
             --annotations out/train/annotations.json --epochs 20"""


def train(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Training images.")],
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="Their annotations, in COCO format.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The checkpoint to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE|NAME", help="To start from; torchvision's by name: COCO_V1, IMAGENET1K_V1."),
    ] = None,
    val_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Validation images.")] = None,
    val_annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their annotations: COCO metrics after each epoch.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Curve, and pictures of detections, after each epoch.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Processes that load images.")] = 1,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A builder's name.", autocompletion=completion.builders)
    ] = "maskrcnn_compact_fpn",
    arguments: Annotated[str, typer.Option(metavar="JSON", help="The builder's arguments.")] = "{}",
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the images.")] = 12,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images at once.")] = 8,
    accumulate: Annotated[int, typer.Option(metavar="N", help="Batches per step.")] = 1,
    learning_rate: Annotated[float, typer.Option(metavar="R", help="Its peak, of AdamW.")] = 1e-3,
    schedule: Annotated[str, typer.Option(metavar="NAME", help="How it falls: cosine or step.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(metavar="R", help="AdamW's.")] = 0.05,
    warmup_steps: Annotated[int, typer.Option(metavar="N", help="Steps until the peak of the rate.")] = 300,
    crop: Annotated[int | None, typer.Option(metavar="PIXELS", help="Side of random crops.")] = None,
    crop_share: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", help="Share of the image in a crop."),
    ] = (0.15, 0.7),
    scales: Annotated[
        list[int] | None, typer.Option(metavar="PIXELS", help="Shorter side of whole images; several: one at random.")
    ] = None,
    flips: Annotated[bool, typer.Option("--flips", help="Flip upside down too.")] = False,
    freeze_norm: Annotated[
        bool, typer.Option("--freeze-norm", help="Keep statistics of normalisation: for small batches.")
    ] = False,
    amp: Annotated[str | None, typer.Option(metavar="bf16|fp16", help="Compute in 16 bits where safe.")] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Lay weights out so, for tensor cores.")
    ] = False,
    quantize: Annotated[bool, typer.Option("--quantize", help="Fine-tune --weights for INT8.")] = False,
    average: Annotated[float, typer.Option(metavar="R", help="Decay of the moving average that is stored.")] = 0.998,
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16.")] = False,
    seed: Annotated[int, typer.Option(metavar="S", help="Of weights, order and crops.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a model on images with COCO-format annotations.

    The state is saved as OUTPUT.state every few minutes: after a kill, the same command goes on from there. Several
    processes train one model under torchrun: torchrun --nproc-per-node 2 -m edgemask train ...
    """
    check_folder(output)
    with working("train", "train"):
        from edgemask.training import TrainingPlan, processes
        from edgemask.training import train as train_model

        plan = TrainingPlan(
            model=model,
            arguments=read_arguments(arguments),
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            schedule=schedule,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            crop=crop,
            crop_share=crop_share,
            scales=tuple(scales or ()),
            flips=flips,
            freeze_norm=freeze_norm,
            amp=amp,
            channels_last=channels_last,
            quantize=quantize,
            average=average,
            half=half,
            seed=seed,
        )
        with processes() as team:
            report = train_model(
                images,
                annotations,
                output,
                plan,
                weights=weights,
                val_images=val_images,
                val_annotations=val_annotations,
                curve=curve,
                workers=workers,
            )
    if not team.first:  # one of several under torchrun, of which the first speaks
        return
    answer(
        report,
        as_json=as_json,
        show=lambda console: _show(console, report),
        following=[["edgemask", "export", output, "-o", output.with_suffix(".onnx")]],
    )


def read_arguments(text: str) -> dict[str, Any]:
    """Reads the value of `--arguments`.

    Raises:
        UsageError: no JSON object.
    """
    remedy = """for example --arguments '{"min_size": 512}'"""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--arguments is no JSON: {error}", remedy) from error
    if not isinstance(found, dict):
        raise UsageError(f"--arguments is {text}, no JSON object", remedy)
    return found


def _show(console: "Console", report: "TrainingReport") -> None:
    facts(
        console,
        checkpoint=report.checkpoint,
        parameters=f"{report.parameters / 1e6:.2f} million",
        steps=report.steps,
        time=f"{report.seconds / 60:.1f} min",
        loss=f"{report.loss:.4f}",
        begun_anew=", ".join(report.anew) or None,
        best=f"{report.best}, of epoch {report.best_epoch}" if report.best else None,
        trained_for=f"INT8, in {report.quantized_layers} layers" if report.quantized_layers else None,
    )
    if report.metrics is not None:
        console.print()
        console.print(table("COCO metrics, in points", coco_rows(report.metrics)))


def coco_rows(metrics: "Mapping[str, CocoMetrics]") -> list[dict[str, object]]:
    """A row of a table per task."""
    return [
        {
            "task": task,
            "AP": 100 * values.ap,
            "AP50": 100 * values.ap50,
            "AP75": 100 * values.ap75,
            "small": 100 * values.ap_small,
            "medium": 100 * values.ap_medium,
            "large": 100 * values.ap_large,
            "AR": 100 * values.ar,
        }
        for task, values in metrics.items()
    ]
