"""Fits a model with boxes, masks and 17 keypoints on photographs of persons, from scratch.

    python scripts/fit_persons.py --images DIR --annotations person_keypoints.json -o persons.safetensors

What it is for: detections on real photographs for which `edgemask validate` can prove all three tasks, with scores that
lie apart. It is no model for use: from so few photographs it learns nothing but them.

The fit ends with the minutes or the steps that are given, whichever come first; the learning rate follows. Seeds are
fixed and one thread computes: on the same machine the same number of steps gives the same weights, if the steps end it.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_state, save_checkpoint
from edgemask.checks import Described, number, refuse, several, whole
from edgemask.datasets import CocoAnnotations, CocoDataset, read_annotations
from edgemask.description import spec_of
from edgemask.errors import DatasetError, EdgemaskError, OutputError, UsageError
from edgemask.images import load_image
from edgemask.masks import rle_to_bitmap, segmentation_to_rle
from edgemask.mixed_precision import keep_boxes_exact
from edgemask.models import build, parameter_count
from edgemask.progress import progress
from edgemask.weight_files import read_state

PERSON = "person"  # the category that is learnt
# Where each of COCO's 17 keypoints is found in the mirrored image: the nose, then eight pairs of left and right.
MIRRORED = (0, *(point for left in range(1, 17, 2) for point in (left + 1, left)))
MODEL = "maskkeypointrcnn_resnet18_fpn"
# Of the builder. The layers of its heads are given; few rois make up for it.
ARGUMENTS: dict[str, Any] = {
    "min_size": 256,
    "max_size": 320,
    "rpn_pre_nms_top_n_train": 500,
    "rpn_post_nms_top_n_train": 200,
    "rpn_pre_nms_top_n_test": 500,
    "rpn_post_nms_top_n_test": 200,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 12,
    "box_detections_per_img": 30,
}
BATCH = 4
WITHOUT = 1  # images without a person in each batch, where there are any
LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.01
WARMUP = 0.05  # share of the fit
SEED = 1
_POINTS = several(number(-1e6, 1e6), 3 * len(MIRRORED), 3 * len(MIRRORED))


@dataclass(frozen=True)
class Photograph:
    """An image and its persons, crowds left out.

    Attributes:
        image: uint8 [3, H, W] RGB.
        boxes: float32 [N, 4] xyxy, pixels.
        masks: bool [N, H, W].
        keypoints: float32 [N, 17, 3] of x, y in pixels and COCO's visibility, 0 where a point is not marked: such a
            point has no loss, and neither have the points of a person who has none.
    """

    image: Tensor
    boxes: Tensor
    masks: Tensor
    keypoints: Tensor


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits the model; gives the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO's person keypoints")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CKPT", help="safetensors, float16")
    parser.add_argument("--model", default=MODEL, metavar="NAME", help=f"a builder with all tasks  [default: {MODEL}]")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint of an earlier fit to start from")
    parser.add_argument("--minutes", type=float, default=15.0, metavar="N", help="of fitting, at most  [default: 15]")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="at most  [default: 1000]")
    parser.add_argument("--bfloat16", action="store_true", help="twice as fast on processors with AMX")
    options = parser.parse_args(arguments)
    try:
        fit_persons(options)
    except EdgemaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def fit_persons(options: argparse.Namespace) -> None:
    """Reads the photographs, fits the model and writes the checkpoint; see `main` for the options.

    Raises:
        DatasetError: images and annotations do not fit together, or there are no persons or no keypoints in them.
        UsageError: no such builder, or one without masks or keypoints; or the loss is no longer a number.
        ModelFileError: the weights to start from do not fit.
        OutputError: the checkpoint cannot be written.
    """
    if not options.output.parent.is_dir():
        raise OutputError(f"cannot write {options.output}: there is no folder", "make it first")
    whole(1, 1_000_000)("--steps", options.steps)
    number(1e-3, 1e5)("--minutes", options.minutes)
    torch.set_num_threads(1)
    annotations = read_annotations(options.annotations)
    person = person_id(annotations)
    torch.manual_seed(SEED)
    model = build(options.model, 2, **ARGUMENTS)
    spec = spec_of(
        model, class_names=[PERSON], category_ids=[person], builder=options.model, builder_arguments=ARGUMENTS
    )
    if spec.tasks != ("boxes", "masks", "keypoints") or spec.num_keypoints != len(MIRRORED):
        raise UsageError(f"{options.model} finds {', '.join(spec.tasks)}", "take one of maskkeypointrcnn_…")
    if options.weights is not None:
        load_state(model, read_state(options.weights), options.weights)
    photographs = read_photographs(CocoDataset(options.images, annotations), person)
    counts = [len(photograph.boxes) for photograph in photographs]
    marked = sum(int(photograph.keypoints[..., 2].any(1).sum()) for photograph in photographs)
    say(f"{len(photographs)} photographs, {sum(counts)} persons, {marked} of them with keypoints")
    say(f"{options.model}, {parameter_count(model)} parameters")
    if options.bfloat16:
        keep_boxes_exact(model)
    record = fit(model, photographs, steps=options.steps, seconds=60 * options.minutes, bfloat16=options.bfloat16)
    save_checkpoint(options.output, model.eval(), spec, half=True, training=record | {"seed": SEED})
    say(f"{options.output}: {options.output.stat().st_size} bytes after {record['steps']} steps")


def person_id(annotations: CocoAnnotations) -> int:
    """The id of the category that is learnt."""
    for identity, name in annotations.categories:
        if name == PERSON:
            return identity
    problem = f"{annotations.path} has the classes {', '.join(annotations.class_names)}"
    raise DatasetError(problem, f"expected one named {PERSON}")


def read_photographs(dataset: CocoDataset, person: int) -> list[Photograph]:
    """Reads all images and their persons.

    Raises:
        DatasetError: an image and its annotations do not fit together, or no keypoint is marked in any of them.
        ImageError: an image cannot be read.
    """
    found = []
    for identity, entry in dataset.annotations.images.items():
        objects = [o for o in dataset.annotations.objects[identity] if o["category_id"] == person]
        pixels = load_image(dataset.path(entry))
        try:
            if (entry["height"], entry["width"]) != pixels.shape[:2]:
                size = (entry["height"], entry["width"])
                refuse("height and width", f"those of the image, {pixels.shape[:2]}", size)
            found.append(photograph_of(pixels, [o for o in objects if not o.get("iscrowd")]))
        except UsageError as error:
            where = f"{dataset.annotations.path}: {entry['file_name']}"
            raise DatasetError(f"{where}: {error.problem}", error.remedy or "mend or remove it") from error
    if not any(bool(photograph.keypoints[..., 2].any()) for photograph in found):
        raise DatasetError(
            f"no {PERSON} in {dataset.annotations.path} has a keypoint that is marked",
            "give COCO's person_keypoints file, not its instances",
        )
    return found


def photograph_of(pixels: NDArray[np.uint8], objects: Sequence[dict[str, Any]]) -> Photograph:
    """An image, uint8 [H, W, 3], with its persons; those whose box is no pixel wide or high are left out.

    Raises:
        UsageError: a person without segmentation or without 17 keypoints.
    """
    height, width = pixels.shape[:2]
    objects = [o for o in objects if min(o["bbox"][2:]) >= 1]
    boxes = torch.tensor([o["bbox"] for o in objects], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = np.zeros((len(objects), height, width), np.bool_)
    points = torch.zeros((len(objects), len(MIRRORED), 3))
    for mask, own, annotation in zip(masks, points, objects, strict=True):
        if "keypoints" not in annotation:
            refuse("keypoints", "those of a person", Described("an annotation without"), "give COCO's person_keypoints")
        own[:] = torch.tensor(_POINTS("keypoints", annotation["keypoints"])).reshape(-1, 3)
        mask[:] = rle_to_bitmap(segmentation_to_rle(annotation.get("segmentation"), height, width))
    return Photograph(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), boxes, torch.from_numpy(masks), points)


def flipped(photograph: Photograph) -> Photograph:
    """The mirror image: its boxes have edges, its keypoints are numbers of pixels, left and right ones change names."""
    width = photograph.image.shape[2]
    boxes = photograph.boxes.clone()
    boxes[:, [0, 2]] = width - photograph.boxes[:, [2, 0]]
    points = photograph.keypoints[:, MIRRORED].clone()
    marked = points[..., 2] > 0
    points[..., 0] = torch.where(marked, width - 1 - points[..., 0], points[..., 0])
    return Photograph(photograph.image.flip(2), boxes, photograph.masks.flip(2), points)


def batches(photographs: Sequence[Photograph]) -> Iterator[list[Photograph]]:
    """Endless batches, mirrored by chance, from shuffled passes over those with a person and those without."""
    rng = np.random.default_rng(SEED)
    with_persons = [photograph for photograph in photographs if len(photograph.boxes)]
    without = [photograph for photograph in photographs if not len(photograph.boxes)]
    some, none = shuffled(with_persons, rng), shuffled(without, rng)
    few = WITHOUT if without else 0
    while True:
        chosen = [*itertools.islice(some, BATCH - few), *itertools.islice(none, few)]
        yield [flipped(photograph) if rng.integers(2) else photograph for photograph in chosen]


def shuffled(photographs: Sequence[Photograph], rng: np.random.Generator) -> Iterator[Photograph]:
    """Endless passes in changing order; nothing, if there are none."""
    while photographs:
        for index in rng.permutation(len(photographs)):
            yield photographs[index]


def fit(
    model: GeneralizedRCNN, photographs: Sequence[Photograph], *, steps: int, seconds: float, bfloat16: bool
) -> dict[str, Any]:
    """Trains until the steps or the seconds are used up; gives what the checkpoint says of it.

    Raises:
        UsageError: the loss is no longer a number.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    started = time.monotonic()
    means: dict[str, float] = {}
    done, share = 0, 0.0
    for batch in progress(itertools.islice(batches(photographs), steps), "fit", steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate(share)
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=bfloat16
        ):  # anew in each step: it keeps copies of the weights
            losses = model([photograph.image / 255 for photograph in batch], [target_of(one) for one in batch])
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            raise UsageError(f"the loss became {loss.item()} in step {done}", "lower LEARNING_RATE")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        means = {key: 0.95 * means.get(key, value.item()) + 0.05 * value.item() for key, value in losses.items()}
        progress.note(", ".join(f"{key.removeprefix('loss_')} {value:.3f}" for key, value in means.items()))
        done += 1
        share = max(done / steps, (time.monotonic() - started) / seconds)
        if share >= 1:
            break
    return {"steps": done, "seconds": round(time.monotonic() - started), "images": len(photographs), "losses": means}


def rate(share: float) -> float:
    """Share of the learning rate: a linear warm-up, then a cosine down to a hundredth."""
    if share < WARMUP:
        return 0.01 + share / WARMUP * 0.99
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))


def target_of(photograph: Photograph) -> dict[str, Tensor]:
    """As torchvision's models take it."""
    labels = torch.ones(len(photograph.boxes), dtype=torch.int64)
    masks = photograph.masks.to(torch.uint8)
    return {"boxes": photograph.boxes, "labels": labels, "masks": masks, "keypoints": photograph.keypoints}


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
