"""`edgemask predict`."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli.answers import answer, facts, note, working
from edgemask.cli.engines import Address, Engine, Workers, cluster_of
from edgemask.cli.options import AsJson, Device, Fallback, LibraryOptions, ModelFile, check_folder
from edgemask.cli.predict_outputs import Prediction, results_file
from edgemask.cli.predict_sources import Source, image_ids, picture_paths, sources_of
from edgemask.cli.predict_work import Work
from edgemask.cluster import ClusterDetector
from edgemask.errors import UsageError
from edgemask.processors import thread_count
from edgemask.proposals import read_proposals
from edgemask.video import is_endless

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.runtimes import Detector, RuntimeOptions

# Bytes of a model up to which two images at a time were faster than one after the other, each on half of the threads:
# 1.1-1.4 times at 3-10 MB, 1.06 at 47 MB, 0.8-1.0 at 178 MB. Large ones throw each other out of the cache.
_SMALL = 64 * 2**20

EXAMPLE = """\b
Example: edgemask predict model.onnx photos/ -o out/photos --score 0.6
Example: edgemask predict model.onnx a.jpg --device cpu --coco results.json
Example: edgemask predict model.onnx clip.mp4 -o out --every 5
Example: edgemask predict model.onnx /share/photos --engine ray --coco r.json"""


def predict(
    model: ModelFile,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|DIR|VIDEO...",
            help="Images; folders, for the images in them; videos; camera:0; an rtsp or http address.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to write annotated pictures and videos.")
    ] = None,
    device: Device = "auto",
    fallback: Fallback = False,
    options: LibraryOptions = None,
    score: Annotated[float, typer.Option(metavar="S", min=0, max=1, help="Least score drawn in pictures.")] = 0.5,
    coco: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all detections, of any score, as COCO results.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take image ids for --coco from this COCO file.")
    ] = None,
    proposals: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO results whose boxes a model without RPN scores.")
    ] = None,
    every: Annotated[int, typer.Option(metavar="N", min=1, help="Of a video, take each Nth frame.")] = 1,
    stop: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Of a video, stop there.")] = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Run a model on images and videos: pictures, COCO results."""
    check_folder(coco)
    cluster = cluster_of(engine, address, workers)
    if cluster is not None and fallback:
        raise UsageError("--fallback goes with one process: on a cluster all results are of one device", "name another")
    with working("predict", "draw"), ExitStack() as ending:
        from edgemask import load
        from edgemask.runtimes.options import parse_options

        only = {"--engine ray": cluster, "--annotations": annotations, "--proposals": proposals}
        images_only = next((name for name, value in only.items() if value is not None), None)
        sources = sources_of(images, stop=stop, images_only=images_only)
        files = [source.path for source in sources]
        ids = itertools.count(1) if annotations is None else iter(image_ids(files, annotations))
        pictures = picture_paths(files, output)
        boxes = None if proposals is None else iter(read_proposals(proposals, files))
        chosen = parse_options(options or ())
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        detector: Detector | ClusterDetector
        if cluster is None:
            chosen = _for_many(chosen, sources, model, device)
            detector = ending.enter_context(load(model, device=device, options=chosen, fallback=fallback))
        else:
            drawn = output is not None
            detector = ClusterDetector(model, cluster=cluster, device=device, options=chosen, pictures=drawn)
            ending.enter_context(detector)
        for line in (f"{model} on {detector.device}", *(f"  not on {reason}" for reason in detector.refusals)):
            note(line)
        results = ending.enter_context(results_file(coco))
        work = Work(detector, ids, score, results, boxes, every, stop)
        started = time.perf_counter()
        work.all_of(list(zip(sources, pictures, strict=True)))
        seconds = time.perf_counter() - started
    count = len(work.images) + sum(video.frames for video in work.videos)
    record = Prediction(
        model=str(model),
        device=detector.device,
        refusals=detector.refusals,
        images=tuple(work.images),
        videos=tuple(work.videos),
        seconds=seconds,
        images_per_second=count / seconds,
        coco=None if coco is None else str(coco),
    )
    following: list[object] = ["edgemask", "bench", model]
    if not sources[0].is_video:
        following = ["edgemask", "validate", model, "--reference", "CHECKPOINT", "--images", images[0]]
    answer(record, as_json=as_json, show=lambda console: _show(console, record, output), following=[following])


def _for_many(chosen: "RuntimeOptions", sources: Sequence[Source], model: Path, device: str) -> "RuntimeOptions":
    """The options, with two images at a time where many are waiting, a small model is faster so, and none was asked."""
    from edgemask.runtimes.devices import uses_processors

    live = any(is_endless(source.name) for source in sources)
    many = len(sources) > 1 or sources[0].is_video
    small = model.is_file() and model.stat().st_size <= _SMALL and (chosen.threads or thread_count()) > 1
    if chosen.streams is not None or live or not many or not small or not uses_processors(device):
        return chosen
    return dataclasses.replace(chosen, streams=2)


def _show(console: "Console", record: Prediction, output: Path | None) -> None:
    facts(
        console,
        device=record.device,
        images=len(record.images) or None,
        frames=sum(video.frames for video in record.videos) or None,
        detections=sum(image.detections for image in record.images) + sum(video.detections for video in record.videos),
        speed=f"{record.images_per_second:.1f} images a second, with reading, drawing and writing",
        pictures=output,
        results=record.coco,
    )
