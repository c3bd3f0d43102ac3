"""`edgemask export`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, note, working
from edgemask.cli.options import AsJson, check_folder, read_batch, read_classes, read_proposals, read_shape, read_size
from edgemask.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.export import ExportReport
    from edgemask.spec import ModelSpec

EXAMPLE = """\b
Example: edgemask export model.safetensors -o model.onnx
Example: edgemask export maskrcnn_resnet50_fpn --weights COCO_V1 \\
             --for-image 480x640 -o coco.onnx"""

# What a verification that held says, by precision.
_EQUAL = {"fp32": "equal to PyTorch", "fp16": "equal to PyTorch within the tolerances of FP16"}


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A checkpoint, a builder's name, or package.module:function.",
            autocompletion=completion.builders,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file to write.")],
    weights: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Weights: a file, or torchvision's, such as COCO_V1.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names, one a line, without the background.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Classes with the background; default: as the weights.")
    ] = None,
    shape: Annotated[str, typer.Option(metavar="HxW|dynamic", help="Network input, padding included.")] = "dynamic",
    for_image: Annotated[
        str | None, typer.Option(metavar="HxW", help="Instead of --shape: what images of this size need.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N|dynamic", help="Images per run.")] = "1",
    target: Annotated[
        Literal["portable", "openvino", "tensorrt"],
        typer.Option(help="openvino, tensorrt: files that these read without edgemask."),
    ] = "portable",
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16: half the size; boxes, pooling, NMS and what goes in and out stay in FP32."),
    ] = "fp32",
    proposals: Annotated[
        str, typer.Option(metavar="N|input", help="Boxes that reach the box head; input: the caller gives them.")
    ] = "rpn",
    max_detections: Annotated[int | None, typer.Option(metavar="N", min=1, help="Detections per image.")] = None,
    score_threshold: Annotated[
        float | None, typer.Option(metavar="S", min=0, max=1, help="Least score of a detection.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Run the file and compare with PyTorch.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write a trained R-CNN as one ONNX file, proven equal."""
    check_folder(output)
    batch_size = read_batch(batch)
    rois = read_proposals(proposals)
    class_names = read_classes(classes)
    canvas = read_shape(shape)
    if for_image is not None and canvas != "dynamic":
        raise UsageError(f"--shape {shape} and --for-image {for_image} contradict each other", "give one of them")
    image_size = None if for_image is None else read_size("--for-image", for_image)
    with working("export", "export"):
        import_from_here(model)
        from edgemask.checkpoints import load_model
        from edgemask.export import export_onnx

        loaded, spec = load_model(model, weights=weights, class_names=class_names, num_classes=num_classes)
        note(f"exporting {model}" + (" and verifying it" if verify else ""))
        report = export_onnx(
            loaded,
            output,
            shape=canvas if image_size is None else canvas_for(image_size, spec),
            batch=batch_size,
            spec=spec,
            target=target,
            precision=precision,
            proposals=rois,
            max_detections=max_detections,
            score_threshold=score_threshold,
            verify=verify,
        )
    following = ["edgemask", "validate", output, "--reference", model, "--images", "DIR"]
    if weights is not None:
        following += ["--weights", weights]
    answer(report, as_json=as_json, show=lambda console: _show(console, report), following=[following])


def canvas_for(image_size: tuple[int, int], spec: "ModelSpec") -> tuple[int, int]:
    """Height and width of the smallest canvas on which images of a size are resized as PyTorch resizes them."""
    from edgemask.canvas import eager_size

    height, width = eager_size(*image_size, spec)
    stride = spec.size_divisible
    return -(-height // stride) * stride, -(-width // stride) * stride


def import_from_here(model: str) -> None:
    """Lets `package.module:function` name a module of the working folder, as `python -m` would find it."""
    if ":" in model and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _show(console: "Console", report: "ExportReport") -> None:
    spec = report.spec
    verification = report.verification
    facts(
        console,
        file=report.path,
        size=f"{report.bytes / 1e6:.1f} MB, {report.nodes} nodes",
        canvas="dynamic" if spec.canvas is None else "{} x {} (H x W)".format(*spec.canvas),
        batch=spec.batch or "dynamic",
        precision=spec.precision,
        tasks=", ".join(spec.tasks),
        proposals="given by the caller" if spec.proposals == "input" else None,
        classes=f"{len(spec.class_names)}: {', '.join(spec.class_names[:5])}{' …' * (len(spec.class_names) > 5)}",
        verified="not asked for" if verification is None else _EQUAL[spec.precision],
        time=f"{report.seconds:.1f} s",
    )
