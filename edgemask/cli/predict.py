"""`edgemask predict`."""

import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.cli.answers import answer, facts, note, working
from edgemask.cli.options import AsJson, Device, ModelFile, check_folder
from edgemask.errors import DatasetError, UsageError
from edgemask.files import creating, write_image
from edgemask.images import IMAGE_SUFFIXES, load_image
from edgemask.progress import progress
from edgemask.proposals import read_proposals
from edgemask.semantic import BACKGROUND, SemanticMap, map_label_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from edgemask.detections import Detections
    from edgemask.runtimes import Detector

EXAMPLE = """\b
Example: edgemask predict model.onnx photos/ -o out/photos --score 0.6
Example: edgemask predict model.onnx a.jpg --device cpu --coco results.json"""
_CLASSES_SHOWN = 6  # in the line of an image


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """What came of one image; `image_id` is the one used in the COCO results, `picture` the annotated copy.

    `detections` of a semantic model are the classes that occur.
    """

    file: str
    image_id: int
    height: int
    width: int
    detections: int
    milliseconds: float
    picture: str | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of all images: `milliseconds` is the median over them, with resize, without reading and drawing."""

    model: str
    device: str
    refusals: tuple[str, ...]
    images: tuple[PredictedImage, ...]
    milliseconds: float
    coco: str | None


def predict(
    model: ModelFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...", help="Images, or folders of images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to write annotated pictures.")
    ] = None,
    device: Device = "auto",
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
    as_json: AsJson = False,
) -> None:
    """Run a model on images: annotated pictures, COCO results."""
    check_folder(coco)
    with working("predict", "draw"):
        from edgemask import load

        files = image_files(images)
        ids = [*range(1, len(files) + 1)] if annotations is None else image_ids(files, annotations)
        pictures = picture_paths(files, output)
        boxes = [None] * len(files) if proposals is None else read_proposals(proposals, files)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        done: list[PredictedImage] = []
        results: list[dict[str, Any]] = []
        with load(model, device=device) as detector:
            for line in (f"{model} on {detector.device}", *(f"  not on {reason}" for reason in detector.refusals)):
                note(line)
            jobs = zip(files, ids, pictures, boxes, strict=True)
            for file, identity, picture, own in progress(jobs, "predict", len(files)):
                image, found = _predict_one(detector, file, identity, picture, own, score)
                done.append(image)
                if coco is not None:
                    records = found.to_coco(identity, category_ids=detector.spec.category_ids)
                    results += [record | {"file_name": file.name} for record in records]
                note(_line(image, found, detector.spec.class_names, score))
        if coco is not None:
            with creating(coco) as temporary:
                temporary.write_text(json.dumps(results), encoding="utf-8")
        middle = statistics.median(image.milliseconds for image in done)
        written = None if coco is None else str(coco)
        record = Prediction(str(model), detector.device, detector.refusals, tuple(done), middle, written)
    following = ["edgemask", "validate", model, "--reference", "CHECKPOINT", "--images", images[0]]
    answer(record, as_json=as_json, show=lambda console: _show(console, record, output), following=[following])


def image_files(sources: "Sequence[Path]") -> list[Path]:
    """Files named, and those in folders named that look like images, in order of their names.

    Raises:
        UsageError: nothing of that name, or a folder without images.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(
                path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            )
            if not inside:
                raise UsageError(f"there is no image in {source}", f"expected files with {', '.join(IMAGE_SUFFIXES)}")
            files += inside
        elif source.is_file():
            files.append(source)
        else:
            raise UsageError(f"there is no file or folder {source}", "check the path")
    return files


def image_ids(files: "Sequence[Path]", annotations: Path) -> list[int]:
    """The id that a COCO-format file gives each image: the entry whose `file_name` ends the image's path.

    Raises:
        DatasetError: the annotations cannot be read, or do not list an image.
    """
    try:
        entries = json.loads(annotations.read_bytes())["images"]
        known = {Path(entry["file_name"]).parts: int(entry["id"]) for entry in entries}
    except OSError as error:
        raise DatasetError(f"cannot read annotations {annotations}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{annotations} is no COCO annotation file: {type(error).__name__} {error}",
            "expected a JSON object with the list images, of entries with id and file_name",
        ) from error
    ids = []
    for file in files:
        parts = file.absolute().parts
        found = [known[parts[start:]] for start in range(len(parts)) if parts[start:] in known]
        if not found:
            raise DatasetError(f"{annotations} does not list {file}", "leave the image out, or leave out --annotations")
        ids.append(found[0])
    return ids


def picture_paths(files: "Sequence[Path]", folder: Path | None) -> list[Path | None]:
    """Where each annotated picture goes: `folder/stem.jpg` for JPEGs, else `folder/stem.png`, each name once.

    Raises:
        UsageError: a picture would replace one of the images.
    """
    if folder is None:
        return [None] * len(files)
    originals = {file.resolve() for file in files}
    taken: set[str] = set()
    paths: list[Path | None] = []
    for file in files:
        suffix = ".jpg" if file.suffix.lower() in {".jpg", ".jpeg"} else ".png"
        name, number = file.stem + suffix, 2
        while name.casefold() in taken:  # some file systems do not tell A from a
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name.casefold())
        path = folder / name
        if path.resolve() in originals:
            raise UsageError(f"the annotated picture of {file} would replace the image {path}", "name another folder")
        paths.append(path)
    return paths


def _predict_one(
    detector: "Detector",
    file: Path,
    identity: int,
    picture: Path | None,
    boxes: "NDArray[np.float32] | None",
    score: float,
) -> "tuple[PredictedImage, Detections | SemanticMap]":
    pixels = load_image(file)
    started = time.perf_counter()
    found: Detections | SemanticMap
    if "semantic" in detector.spec.tasks:
        found = detector.segment(pixels)
        count = len(found.present.keys() - {BACKGROUND})
    else:
        found = detector.predict(pixels, proposals=boxes)
        count = len(found)
    milliseconds = 1000 * (time.perf_counter() - started)
    if picture is not None:
        write_image(picture, _drawn(pixels, found, detector.spec.class_names, score))
    height, width = found.image_size
    written = None if picture is None else str(picture)
    return PredictedImage(str(file), identity, height, width, count, milliseconds, written), found


def _drawn(
    pixels: "NDArray[np.uint8]", found: "Detections | SemanticMap", class_names: "Sequence[str]", score: float
) -> "NDArray[np.uint8]":
    if isinstance(found, SemanticMap):
        from edgemask.map_drawing import draw_map

        return draw_map(pixels, found, class_names)
    from edgemask.drawing import draw

    return draw(pixels, found, class_names, minimum_score=score)


def _line(image: PredictedImage, found: "Detections | SemanticMap", class_names: "Sequence[str]", score: float) -> str:
    where = "" if image.picture is None else f" -> {image.picture}"
    return f"{image.file}: {_counts(found, class_names, score)}, {image.milliseconds:.1f} ms{where}"


def _counts(found: "Detections | SemanticMap", class_names: "Sequence[str]", score: float) -> str:
    """What was found, the most frequent classes first."""
    if isinstance(found, SemanticMap):
        shares = sorted(found.present.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{share:.0%} {map_label_name(label, class_names)}" for label, share in shares[:_CLASSES_SHOWN]
        )
    shown = found.labels[found.scores >= score].tolist()
    most = Counter(class_names[label - 1] for label in shown).most_common(_CLASSES_SHOWN)
    listing = f" ({', '.join(f'{count} {name}' for name, count in most)})" if most else ""
    return f"{len(shown)} of {len(found)} from score {score:g} on{listing}"


def _show(console: "Console", record: Prediction, output: Path | None) -> None:
    facts(
        console,
        device=record.device,
        images=len(record.images),
        detections=sum(image.detections for image in record.images),
        median=f"{record.milliseconds:.1f} ms per image, with resize",
        pictures=output,
        results=record.coco,
    )
