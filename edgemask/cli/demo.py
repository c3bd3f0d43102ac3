"""`edgemask demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli.answers import answer, facts, note, working
from edgemask.cli.options import AsJson
from edgemask.report import table

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.demo import DemoReport, RuntimeResult

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
    following: list[list[object]] = [
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
    title = f"{report.images} fresh scenes, {report.detections} detections by PyTorch"
    rows: list[dict[str, object]] = [{"runtime": "PyTorch", "ms/image": report.milliseconds, "speed": "1.00x"}]
    console.print(table(title, [*rows, *(_row(report, runtime) for runtime in report.runtimes)]))
    for runtime in report.runtimes:
        failures = runtime.parity.failures if runtime.parity is not None else ()
        for line in (f"FAILED: {failure}" for failure in failures):
            console.print(f"{runtime.name}: {line}", soft_wrap=True)
        if runtime.refusal is not None:
            console.print(f"{runtime.name}: {runtime.refusal}", soft_wrap=True)
    console.print()
    facts(
        console,
        parity="equal on every runtime" if report.passed else "NOT equal",
        figures="lowest box IoU, mean mask IoU, largest difference of scores; time with resize",
        model=f"{report.model} ({report.bytes / 1e6:.1f} MB, {report.nodes} nodes)",
        pictures=f"{Path(report.pictures[0]).parent}/: PyTorch, ONNX Runtime and OpenVINO side by side",
        summary=output / "summary.json",
        time=f"{report.seconds:.0f} s",
    )
    console.print()


def _row(report: "DemoReport", runtime: "RuntimeResult") -> dict[str, object]:
    parity = runtime.parity
    if parity is None or runtime.milliseconds is None:
        return {"runtime": runtime.name, "speed": "not usable here"}
    return {
        "runtime": runtime.name,
        "ms/image": runtime.milliseconds,
        "speed": f"{report.milliseconds / runtime.milliseconds:.2f}x",
        "matched %": 100 * parity.matched_share,
        "box IoU": parity.box_iou_min,
        "mask IoU": parity.mask_iou_mean,
        "score diff": parity.score_difference_max,
    }
