"""Cost as work grows: milliseconds over image size, proposals, detections and images per run, of one checkpoint.

    python scripts/scaling.py edgemask/assets/sample.safetensors --image FILE -o out/scaling [--device cpu …]

Each number of proposals or detections is an export of its own, unverified, in a temporary folder: two dozen in all. The
variants of a sweep are open at the same time and take turns. Written are OUT/scaling.json and OUT/scaling.svg.

- size: a drawn scene on the canvases of `CANVASES`, of which the checkpoint's own limits keep none away.
- proposals: as many as are asked for, or as the RPN finds.
- detections: with the score threshold 0 as many come out as are asked for; with 1 none does. The same network without
  its mask branch runs beside it: the overhead of the masks is time with them / time without - 1. With the threshold 0
  every class of every proposal reaches the NMS, on both sides alike.
- batch: so many equal canvases in a run, as time per image.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.benchmark.percentiles import percentile
from edgemask.canvas import place_on_canvas, resize_bilinear
from edgemask.checkpoints import load_checkpoint
from edgemask.environment import environment
from edgemask.errors import EdgemaskError, OutputError, UsageError
from edgemask.export import export_onnx
from edgemask.files import creating, scratch
from edgemask.images import load_image
from edgemask.processors import let_threads_rest, thread_count
from edgemask.progress import progress
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.report import table, to_json
from edgemask.runtimes import RuntimeOptions, load
from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec

CANVASES = ((128, 160), (256, 320), (384, 480), (512, 640), (768, 960), (1024, 1280))  # (H, W)
PROPOSALS = (50, 100, 200, 300, 500, 1000)
DETECTIONS = (0, 1, 2, 5, 10, 20, 50, 100)
BATCHES = (1, 2, 4, 8)
WARMUP = 2
WIDTH = 120  # of the tables where there is no terminal
MASKS, BOXES = "with masks", "boxes only"
DEVICES = ("cpu", "openvino:CPU")
AXES = {"size": "canvas, megapixels", "proposals": "proposals", "detections": "detections", "batch": "images per run"}


@dataclass(frozen=True, slots=True)
class Task:
    """What is exported and run: a model with its spec, and an image, uint8 [H, W, 3] RGB."""

    model: GeneralizedRCNN
    spec: ModelSpec
    pixels: NDArray[np.uint8]
    folder: Path


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a sweep: where it was asked to stand and where it stands, and what is run.

    `images` are float32 [B, 3, H, W], `sizes` int64 [B, 2] (H, W). `pixels` are for `predict`; without them the graph
    alone is timed. `series` is empty where there is one line; where there are two, the detections found are counted.
    """

    asked: float
    found: float
    path: Path
    images: NDArray[np.float32]
    sizes: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None = None
    series: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes all sweeps; gives the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="safetensors, as `edgemask train` writes them")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", action="append", metavar="NAME", help="[default: cpu and openvino:CPU]")
    parser.add_argument("--sweep", action="append", choices=SWEEPS, help="[default: all]")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="rounds that are timed  [default: 15]")
    parser.add_argument("--threads", type=int, default=thread_count(), metavar="N", help="[default: all processors]")
    options = parser.parse_args(arguments)
    try:
        record = measured(options)
        show(record)
        write(record, options.output)
    except EdgemaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record of all sweeps."""
    if options.repeats < 1:
        raise UsageError(f"--repeats {options.repeats}", "give a number of at least 1")
    how = RuntimeOptions(threads=options.threads, cache=False)
    where, pixels = environment(options.threads), load_image(options.image)
    model, spec = load_checkpoint(options.checkpoint)
    if not isinstance(model, GeneralizedRCNN) or "masks" not in spec.tasks:
        raise UsageError(f"{options.checkpoint} finds {', '.join(spec.tasks)}", "give the checkpoint of a Mask R-CNN")
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for name in options.sweep or SWEEPS:
        with scratch() as folder:
            variants = SWEEPS[name](Task(model, spec.replace(canvas=None), pixels, folder))
            devices = options.device or DEVICES
            sweeps[name] = [point for device in devices for point in timed(variants, device, how, options.repeats)]
    record = {"environment": where, "checkpoint": options.checkpoint.name, "image": options.image.name}
    record |= {"image_size": pixels.shape[:2], "warmup": WARMUP, "repeats": options.repeats, "sweeps": sweeps}
    return record | {"mask_overhead": overheads(sweeps.get("detections", []))}


def exported(task: Task, name: str, **arguments: Any) -> Path:
    """The task's model as a file."""
    path = task.folder / f"{name}.onnx"
    print(f"exporting {name}", file=sys.stderr, flush=True)
    export_onnx(task.model, path, spec=task.spec, verify=False, **arguments)
    return path


def size_sweep(task: Task) -> list[Variant]:
    """One file of a dynamic canvas, and the same scene on canvases of all sizes."""
    path, scene = exported(task, "dynamic"), draw_scene(0, size=max(map(min, CANVASES))).image
    variants = []
    for height, width in CANVASES:
        image = np.ascontiguousarray(resize_bilinear(scene, (height, width)).transpose(2, 0, 1)[None])
        x = height * width / 1e6
        variants.append(Variant(x, x, path, image, np.array([(height, width)], np.int64)))
    return variants


def proposal_sweep(task: Task) -> list[Variant]:
    """A file for each number of proposals; PyTorch says how many of them there are."""
    reference = ReferenceDetector(task.model, task.spec.replace(max_proposals=max(PROPOSALS)))
    most = len(record_stages(reference, task.pixels)["proposals"])
    paths = {number: exported(task, f"proposals-{number}", proposals=number) for number in PROPOSALS}
    return [Variant(n, min(n, most), path, *canvas_of(task), task.pixels) for n, path in paths.items()]


def detection_sweep(task: Task) -> list[Variant]:
    """Two files for each number of detections, with and without the mask branch."""
    variants = []
    for number in DETECTIONS:
        for series, one in ((MASKS, task), (BOXES, without_masks(task))):
            limits = {"max_detections": number, "score_threshold": 0.0} if number else {"score_threshold": 1.0}
            path = exported(one, f"{series.replace(' ', '-')}-{number}", **limits)
            variants.append(Variant(number, number, path, *canvas_of(task), task.pixels, series))
    return variants


def without_masks(task: Task) -> Task:
    """The same network without its mask branch, as a Faster R-CNN is."""
    model = copy.deepcopy(task.model)
    for part in ("mask_roi_pool", "mask_head", "mask_predictor"):
        setattr(model.roi_heads, part, None)
    tasks = tuple(name for name in task.spec.tasks if name != "masks")
    return replace(task, model=model, spec=task.spec.replace(tasks=tasks, mask_size=None))


def batch_sweep(task: Task) -> list[Variant]:
    """One file of a dynamic batch, and copies of one canvas."""
    path, (image, size) = exported(task, "batch", batch="dynamic"), canvas_of(task)
    return [Variant(n, n, path, np.repeat(image, n, 0), np.repeat(size, n, 0)) for n in BATCHES]


SWEEPS: Mapping[str, Callable[[Task], list[Variant]]] = {
    "size": size_sweep,
    "proposals": proposal_sweep,
    "detections": detection_sweep,
    "batch": batch_sweep,
}


def canvas_of(task: Task) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The image on its canvas, as a batch of one, and its size there."""
    image, placement = place_on_canvas(task.pixels, task.spec)
    return image[None], np.array([placement.size], np.int64)


def timed(variants: Sequence[Variant], device: str, how: RuntimeOptions, repeats: int) -> list[dict[str, Any]]:
    """The records of the variants on a device, from rounds in which they take turns."""
    with ExitStack() as stack:
        # A detector for each, where they share a file too: none meets another shape than its own.
        opened = [(one, stack.enter_context(load(one.path, device=device, options=how))) for one in variants]
        graph, whole = ([list[float]() for _ in variants] for _ in range(2))
        for _ in progress(range(WARMUP + repeats), device):
            for (one, detector), in_graph, in_whole in zip(opened, graph, whole, strict=True):
                in_graph.append(milliseconds(detector.run, one.images, one.sizes) / len(one.images))
                if one.pixels is not None:
                    in_whole.append(milliseconds(detector.predict, one.pixels))
        counts = [len(detector.run(one.images, one.sizes)["scores"]) / len(one.images) for one, detector in opened]
    records = []
    for one, count, in_graph, in_whole in zip(variants, counts, graph, whole, strict=True):
        record = {"device": device, "series": one.series, "canvas": one.images.shape[2:], "asked": one.asked}
        record |= {"found": count if one.series else one.found, "detections": count}
        records.append(record | {"graph": summary(in_graph[WARMUP:]), "predict": summary(in_whole[WARMUP:])})
    return records


def milliseconds(call: Callable[..., Any], *arguments: Any) -> float:
    """How long a call takes."""
    let_threads_rest()
    started = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - started)


def summary(values: Sequence[float]) -> dict[str, float | None] | None:
    """Median and 90th percentile in milliseconds; None for what was not run."""
    return {"median": float(np.median(values)), "p90": percentile(values, 90)} if values else None


def overheads(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Time with masks / time without - 1, by device and detections asked for."""
    pairs = zip(*([one for one in points if one["series"] == series] for series in (MASKS, BOXES)), strict=True)
    return [
        {"device": with_masks["device"], "asked": with_masks["asked"], "detections": with_masks["detections"]}
        | {what: with_masks[what]["median"] / without[what]["median"] - 1 for what in ("graph", "predict")}
        for with_masks, without in pairs
    ]


def show(record: Mapping[str, Any]) -> None:
    """Prints the record as tables."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = console.width if console.is_terminal else WIDTH
    for name, points in record["sweeps"].items():
        rows = [{key: point[key] for key in ("device", "series", "asked", "found", "detections")} for point in points]
        for row, point in zip(rows, points, strict=True):
            for kind in ("graph", "predict"):
                row |= {f"{kind}, {what}": value for what, value in (point[kind] or {}).items()}
        console.print(table(f"{name}: milliseconds per image", rows))
    if record["mask_overhead"]:
        console.print(table("overhead of the masks, as a share of the time without them", record["mask_overhead"]))
    console.print(footer(record), soft_wrap=True)


def footer(record: Mapping[str, Any]) -> str:
    """The model, the machine and the day."""
    where = record["environment"]
    return f"{record['checkpoint']}; {where.processor}, threads: {where.threads}, load: {where.load}; {where.date[:10]}"


def write(record: Mapping[str, Any], folder: Path) -> None:
    """Writes the record and its picture."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}", "name another folder") from error
    with creating(folder / "scaling.json") as temporary:
        temporary.write_text(to_json(record) + "\n", encoding="utf-8")
    # Text stays text, and the same record gives the same file.
    style: Any = {"svg.hashsalt": "edgemask", "svg.fonttype": "none", "text.parse_math": False}
    with matplotlib.rc_context(style), creating(folder / "scaling.svg") as temporary:
        drawn(record).savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


def drawn(record: Mapping[str, Any]) -> Figure:
    """A panel for each sweep, a colour for each device: the graph's time over what was found."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    for place, (sweep, points) in enumerate(record["sweeps"].items(), 1):
        panel = figure.add_subplot(2, 2, place, title=sweep, xlabel=AXES[sweep], ylabel="graph, ms per image")
        lines = list(dict.fromkeys((point["device"], point["series"]) for point in points))
        devices = list(dict.fromkeys(device for device, _ in lines))
        for device, series in lines:
            own = [point for point in points if (point["device"], point["series"]) == (device, series)]
            x, y = [point["found"] for point in own], [point["graph"]["median"] for point in own]
            name = f"{device}, {series}" if series else device
            panel.plot(
                x, y, "--" if series == BOXES else "-", color=f"C{devices.index(device)}", marker=".", label=name
            )
        panel.set(xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.supxlabel(footer(record), fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
