"""How near a model's heavy layers come to the limit of the machine: arithmetic by stage, and the time that it took.

    python scripts/share_of_limit.py model.onnx --reference model.safetensors --image PHOTO [--repeats 9] [--json]

The limit is the fastest product of two float32 matrices that PyTorch does here with as many threads. Arithmetic is
counted by PyTorch on the reference, a multiplication and an addition as two; times are those that the runtimes' own
profiles give to convolutions and matrix products of a stage, and to everything else in it. Medians over the repeats.
It is a yardstick, not the processor's peak: a share above 100 % is a kernel that is better than that product, or needs
less arithmetic. INT8 has another limit, and is refused.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from edgemask import load
from edgemask.checkpoints import load_checkpoint
from edgemask.environment import environment
from edgemask.errors import EdgemaskError, UsageError
from edgemask.images import load_image
from edgemask.processors import thread_count
from edgemask.reference import ReferenceDetector
from edgemask.report import table, to_json
from edgemask.runtimes.inputs import inputs_with_whole
from edgemask.runtimes.modelfile import read_model
from edgemask.runtimes.profiles import NodeRun

DEVICES = ("cpu", "openvino:CPU")
SIDES = (512, 1024, 2048, 3072)  # of the matrices: those that caches hold, and 38 MB each
PRODUCTS = ("Conv", "ConvTranspose", "Gemm")  # of `NodeRun.heavy`: what the arithmetic is counted of
# The modules of our stages, by the names under which PyTorch counts them.
STAGES = {
    "backbone": ("BackboneWithFPN.body",),
    "fpn": ("BackboneWithFPN.fpn",),
    "rpn": ("RegionProposalNetwork",),
    "box_head": ("RoIHeads.box_head", "RoIHeads.box_predictor"),
    "mask_head": ("RoIHeads.mask_head", "RoIHeads.mask_predictor"),
    "keypoint_head": ("RoIHeads.keypoint_head", "RoIHeads.keypoint_predictor"),
}
WHOLE = "Global"
OTHERS = "others"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a model and prints the table; gives the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="an FP32 file")
    parser.add_argument("--reference", type=Path, required=True, metavar="CKPT", help="the checkpoint it is made of")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="profiles of each device  [default: 9]")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats: expected a whole number of at least 1")
    try:
        record = measured(options.model, options.reference, options.image, options.repeats)
    except EdgemaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(to_json(record)) if options.json else show(record)
    return 0


def measured(model: Path, reference: Path, image: Path, repeats: int) -> dict[str, Any]:
    """The limit, the arithmetic of each stage, and the times of each device.

    Raises:
        UsageError: a model in INT8.
        EdgemaskError: a file that cannot be used.
    """
    if read_model(model).spec.precision == "int8":
        raise UsageError(f"{model} is INT8, the limit here is that of float32", "give the FP32 file")
    threads = thread_count()
    torch.set_num_threads(threads)
    work = arithmetic(reference, image)
    limit = peak(repeats)
    rows = [row for device in DEVICES for row in rows_of(device, profiles(model, device, image, repeats), work, limit)]
    return {"environment": environment(threads), "gflops_limit": limit, "image": image.name, "stages": rows}


def arithmetic(reference: Path, image: Path) -> dict[str, float]:
    """GFLOP of each stage, of the reference on an image."""
    model, spec = load_checkpoint(reference)
    detector = ReferenceDetector(model, spec)
    with FlopCounterMode(display=False) as counter:  # type: ignore[no-untyped-call]
        detector.predict(image)
    counts = {name: sum(kinds.values()) / 1e9 for name, kinds in counter.get_flop_counts().items()}
    found = {stage: sum(counts.get(module, 0.0) for module in modules) for stage, modules in STAGES.items()}
    found[OTHERS] = counts[WHOLE] - sum(found.values())
    return {stage: count for stage, count in found.items() if count > 1e-6}


def peak(repeats: int) -> float:
    """GFLOP/s of the fastest of some products of two float32 matrices, of several sizes."""
    found = []
    for side in SIDES:
        one, other = torch.rand(2, side, side)
        for _ in range(repeats):
            start = time.perf_counter()
            torch.mm(one, other)
            found.append(2e-9 * side**3 / (time.perf_counter() - start))
    return max(found)


def profiles(model: Path, device: str, image: Path, repeats: int) -> list[tuple[NodeRun, ...]]:
    """What each node did, in each of the runs."""
    file, pixels = read_model(model), load_image(image)
    with load(model, device=device) as detector:
        runtime, inputs = detector._opened(), inputs_with_whole(pixels, detector.spec)
        return [runtime.profile(file, inputs) for _ in range(repeats)]


def rows_of(
    device: str, runs: Sequence[Sequence[NodeRun]], work: Mapping[str, float], limit: float
) -> list[dict[str, Any]]:
    """A row for each stage and one for all of them; what a stage has besides products stands beside."""
    stages = [*(stage for stage in work if stage != OTHERS), OTHERS]
    products, rest = ({stage: [0.0] * len(runs) for stage in [*stages, "all"]} for _ in range(2))
    for number, nodes in enumerate(runs):
        for node in nodes:
            own = stage_of(node.name)
            part = products if node.heavy in PRODUCTS else rest
            for stage in (own if own in work else OTHERS, "all"):
                part[stage][number] += node.microseconds / 1000
    rows = []
    for stage in [*stages, "all"]:
        count = sum(work.values()) if stage == "all" else work.get(stage, 0.0)
        milliseconds = statistics.median(products[stage])
        rows.append(
            {
                "device": device,
                "stage": stage,
                "gflop": count,
                "milliseconds": milliseconds,
                "share_of_limit": count / milliseconds * 1000 / limit if milliseconds and count else None,
                "milliseconds_besides": statistics.median(rest[stage]),
            }
        )
    return rows


def stage_of(name: str) -> str:
    """The stage in a node's name, as the runtimes alter it: `fused box_head/fc6/Gemm`, `fpn.3_nchwc`."""
    return re.split(r"[/.]", name.removeprefix("fused "), maxsplit=1)[0]


def show(record: Mapping[str, Any]) -> None:
    """Prints the record as a table."""
    rows = [
        {
            "device": row["device"],
            "stage": row["stage"],
            "GFLOP": row["gflop"] or None,
            "products, ms": row["milliseconds"],
            "share of the limit": None if row["share_of_limit"] is None else f"{row['share_of_limit']:.0%}",
            "besides, ms": row["milliseconds_besides"],
        }
        for row in record["stages"]
    ]
    title = f"{record['image']}; limit {record['gflops_limit']:.0f} GFLOP/s in float32"
    Console(width=120).print(table(title, rows))


if __name__ == "__main__":
    sys.exit(main())
