"""`edgemask demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli.answers import answer, facts, note, table, working
from edgemask.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.demo import DemoReport

EXAMPLE = "Example: edgemask demo"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Gets everything written.")] = Path(
        "out/demo"
    ),
    images: Annotated[int, typer.Option(metavar="N", min=2, help="Number of fresh scenes.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Take the packaged sample model the whole way.

    Exports it, proves on fresh scenes that the file does on ONNX Runtime and OpenVINO what the model does in PyTorch,
    and draws the results side by side.
    """
    with working("demo", "all"):
        from edgemask.demo import run_demo

        report = run_demo(output, images=images, say=note)
    following = [
        ["edgemask", "inspect", report.model],
        ["edgemask", "predict", report.model, report.scenes, "-o", output / "predictions"],
        ["edgemask", "validate", report.model, "--reference", report.checkpoint, "--images", report.scenes],
        ["edgemask", "export", report.checkpoint, "-o", output / "fixed.onnx", "--shape", "320x320"],
    ]
    answer(
        report,
        as_json=as_json,
        show=lambda console: _show(console, report, output),
        following=following,
        passed=report.passed,
    )


def _show(console: "Console", report: "DemoReport", output: Path) -> None:
    listing = table(
        f"{report.images} fresh scenes, {report.detections} detections by PyTorch",
        "runtime", "matched", "lowest box IoU", "mean mask IoU", "score difference", "ms/image", "speed",
    )  # fmt: skip
    listing.add_row("PyTorch", "", "", "", "", f"{report.milliseconds:.1f}", "1.00x")
    for runtime in report.runtimes:
        parity = runtime.parity
        if parity is None or runtime.milliseconds is None:
            listing.add_row(runtime.name, "not usable here")
            continue
        listing.add_row(
            runtime.name,
            f"{100 * parity.matched_share:.2f} %",
            f"{parity.box_iou_min:.4f}",
            f"{parity.mask_iou_mean:.4f}",
            f"{parity.score_difference_max:.1e}",
            f"{runtime.milliseconds:.1f}",
            f"{report.milliseconds / runtime.milliseconds:.2f}x",
        )
    console.print(listing)
    for runtime in report.runtimes:
        if runtime.refusal is not None:
            console.print(f"{runtime.name}: {runtime.refusal}", soft_wrap=True)
        elif runtime.parity is not None and not runtime.parity.passed:
            console.print(f"{runtime.name} differs: {'; '.join(runtime.parity.failures)}", soft_wrap=True)
    console.print()
    facts(
        console,
        parity="equal on every runtime" if report.passed else "NOT equal",
        model=f"{report.model} ({report.bytes / 1e6:.1f} MB, {report.nodes} nodes)",
        pictures=f"{Path(report.pictures[0]).parent}/: PyTorch, ONNX Runtime and OpenVINO side by side",
        summary=output / "summary.json",
        time=f"{report.seconds:.0f} s",
    )
    console.print()
