"""`edgemask scenes`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson
from edgemask.scenes import SCENE_SIZE, write_scenes

EXAMPLE = "Example: edgemask scenes out/train --count 2000 --seed 1"


@dataclass(frozen=True, slots=True)
class WrittenScenes:
    """Where a data set of scenes lies and what it was drawn from."""

    images: str
    annotations: str
    count: int
    seed: int
    size: int


def scenes(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Gets images/ and annotations.json.")],
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Number of scenes.")] = 100,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Names the series; the same seed draws the same.")] = 0,
    size: Annotated[int, typer.Option(metavar="PIXELS", min=32, help="Side of the square images.")] = SCENE_SIZE,
    as_json: AsJson = False,
) -> None:
    """Draw a data set of shapes with exact masks, in COCO format."""
    with working("scenes", "coco"):
        annotations = write_scenes(folder, count, seed=seed, size=size)
    record = WrittenScenes(str(folder / "images"), str(annotations), count, seed, size)
    data = ["--images", record.images, "--annotations", record.annotations]
    answer(
        record,
        as_json=as_json,
        show=lambda console: facts(console, images=record.images, annotations=annotations, scenes=count),
        following=[["edgemask", "train", *data, "-o", "model.safetensors"]],
    )
