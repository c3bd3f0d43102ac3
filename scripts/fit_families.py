"""Fits the narrow models of `tests/families.py` on drawn scenes and writes `tests/weights/NAME.safetensors`.

    python scripts/fit_families.py [NAME …]

Without names it fits all of them, one after the other, on one core: about an hour. Seeds are fixed and one thread
computes: the same machine gives the same weights. The figures that it prints are those of the stored weights, float16,
on fresh scenes.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from edgemask.evaluation import coco_metrics
from edgemask.models import parameter_count
from edgemask.scenes import CLASS_NAMES, Scene, draw_scene, mask_extent

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from families import FAMILIES, NUM_CLASSES, SCENE_SIZE, WEIGHTS, Family, keypoints_of, load

TRAIN_SEED, TEST_SEED = 31, 32  # of the scenes
TRAIN_SCENES, TEST_SCENES = 1500, 20
BATCH = 8
WARMUP = 60
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.02
# Name, steps, and the families whose stored weights it starts from where name and shape fit; it may be its own.
RUNS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("mask_bottleneck", 2200, ()),
    ("keypoint_resnet", 650, ("mask_bottleneck",)),
    ("mask_c4", 600, ("mask_bottleneck",)),
    ("mask_mobilenet_large", 800, ("mask_bottleneck",)),
    ("faster_mobilenet", 800, ("mask_mobilenet_large",)),
    ("faster_mobilenet_320", 300, ("faster_mobilenet",)),
    ("mask_keypoint", 300, ("mask_bottleneck", "keypoint_resnet")),
    ("mask_v2", 600, ("mask_bottleneck",)),
    ("faster_v2", 250, ("mask_v2",)),
    ("faster_resnet", 250, ("mask_bottleneck",)),
    ("mask_basic", 600, ("mask_bottleneck",)),
    ("mask_resnext", 600, ("mask_bottleneck",)),
    ("mask_mobilenet_small", 600, ("mask_bottleneck",)),
    ("semantic_fcn", 1500, ("mask_bottleneck",)),
    ("semantic_deeplab", 1500, ("mask_mobilenet_large",)),
    ("mask_c4", 1000, ("mask_c4",)),
    ("mask_mobilenet_small", 1000, ("mask_mobilenet_small",)),
)
BACKGROUND = 0.3  # weight of its pixels, of which there are the most
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # torchvision's
CONFIDENT = 0.5


def main() -> None:
    """Fits the families named on the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FAMILIES)}; all, if none is named")
    names = parser.parse_args().names or list(FAMILIES)
    if unknown := sorted(set(names) - FAMILIES.keys()):
        parser.error(f"there is no family named {', '.join(unknown)}")
    torch.set_num_threads(1)
    WEIGHTS.mkdir(exist_ok=True)
    scenes = [draw_scene(index, seed=TRAIN_SEED, size=SCENE_SIZE) for index in range(TRAIN_SCENES)]
    fresh = [draw_scene(index, seed=TEST_SEED, size=SCENE_SIZE) for index in range(TEST_SCENES)]
    for name, steps, starts in RUNS:
        if name not in names:
            continue
        started = time.monotonic()
        model = fit(FAMILIES[name], scenes, steps, starts)
        path = WEIGHTS / f"{name}.safetensors"
        save(model, path)
        seconds = time.monotonic() - started
        say(name, f"{parameter_count(model)} parameters, {path.stat().st_size} bytes, {seconds:.0f} s")
        say(name, quality(FAMILIES[name], fresh))


def fit(family: Family, scenes: Sequence[Scene], total: int, starts: Sequence[str]) -> nn.Module:
    """Trains a family for `total` steps; gives it back in evaluation mode.

    Those that it starts from must have been fitted.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    torch.manual_seed(1)
    model = family.build().train()
    for start in starts:
        start_from(load(start), model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total))
    means: dict[str, float] = {}
    for step, batch in enumerate(batches(scenes, total)):
        losses = semantic_losses(model, batch) if "semantic" in family.tasks else rcnn_losses(model, batch, family)
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"{family.name}: the loss became {loss.item()} in step {step}: {losses}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        means = {key: 0.98 * means.get(key, value.item()) + 0.02 * value.item() for key, value in losses.items()}
        if (step + 1) % 100 == 0:
            say(family.name, f"step {step + 1}: " + ", ".join(f"{key} {value:.3f}" for key, value in means.items()))
    return model.eval()


def start_from(first: nn.Module, model: nn.Module) -> None:
    """Copies what has the same name and shape in both; only in a pyramid the backbone is called `body`."""
    state = model.state_dict()
    for name, value in first.state_dict().items():
        for key in (name, name.replace("backbone.body.", "backbone.")):
            if key in state and state[key].shape == value.shape:
                state[key] = value
    model.load_state_dict(state)


def rate(step: int, total: int) -> float:
    """Share of the learning rate: a linear warm-up, then a cosine down to a hundredth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (total - WARMUP)))


def batches(scenes: Sequence[Scene], total: int) -> Iterator[list[Scene]]:
    """Endless shuffled passes over the scenes, each turned and flipped by chance, cut into `total` batches."""
    rng = np.random.default_rng(1)
    order: list[int] = []
    for _ in range(total):
        while len(order) < BATCH:
            order += rng.permutation(len(scenes)).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        yield [turned(scenes[index], int(rng.integers(4)), flip=bool(rng.integers(2))) for index in chosen]


def turned(scene: Scene, quarters: int, *, flip: bool) -> Scene:
    """A scene in another of its eight positions."""
    image = np.rot90(scene.image, quarters, (0, 1))
    masks = np.rot90(scene.masks, quarters, (1, 2))
    if flip:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return Scene(np.ascontiguousarray(image), np.ascontiguousarray(masks), scene.labels)


def as_tensor(scene: Scene) -> Tensor:
    """Float32 [3, S, S] in 0-1."""
    return torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255


def normalised(scenes: Sequence[Scene]) -> Tensor:
    """Float32 [B, 3, S, S], as torchvision's models for segmentation take it."""
    return (torch.stack([as_tensor(scene) for scene in scenes]) - MEAN[:, None, None]) / DEVIATION[:, None, None]


def boxes_of(scene: Scene) -> Tensor:
    """Float32 [N, 4] xyxy."""
    extents = torch.tensor([mask_extent(mask) for mask in scene.masks], dtype=torch.float32).reshape(-1, 4)
    return torch.cat([extents[:, :2], extents[:, :2] + extents[:, 2:]], 1)


def points_of(scene: Scene) -> Tensor:
    """Float32 [N, 5, 3]."""
    return torch.from_numpy(np.stack([keypoints_of(mask) for mask in scene.masks]))


def label_map(scene: Scene) -> Tensor:
    """Int64 [S, S]: the label of each pixel, 0 the background."""
    return torch.from_numpy((scene.masks * scene.labels[:, None, None]).sum(0))


def rcnn_losses(model: nn.Module, batch: Sequence[Scene], family: Family) -> dict[str, Tensor]:
    """Torchvision's own losses."""
    targets = []
    for scene in batch:
        target = {"boxes": boxes_of(scene), "labels": torch.from_numpy(scene.labels)}
        if "masks" in family.tasks:
            target["masks"] = torch.from_numpy(scene.masks.astype(np.uint8))
        if "keypoints" in family.tasks:
            target["keypoints"] = points_of(scene)
        targets.append(target)
    losses: dict[str, Tensor] = model([as_tensor(scene) for scene in batch], targets)
    return losses


def semantic_losses(model: nn.Module, batch: Sequence[Scene]) -> dict[str, Tensor]:
    """Cross-entropy of each head; an auxiliary one counts half, as in torchvision's references."""
    weights = torch.tensor([BACKGROUND] + [1.0] * len(CLASS_NAMES))
    truth = torch.stack([label_map(scene) for scene in batch])
    shares = {"out": 1.0, "aux": 0.5}
    found = model(normalised(batch))
    return {name: shares[name] * nn.functional.cross_entropy(logits, truth, weights) for name, logits in found.items()}


def save(model: nn.Module, path: Path) -> None:
    """Stores floating-point weights as float16; what two parts share is stored under both names."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    if overflown := [name for name, value in state.items() if not bool(value.isfinite().all())]:
        raise FloatingPointError(f"{path.stem}: beyond float16: {', '.join(overflown)}")
    path.write_bytes(safetensors.torch.save({name: value.clone().contiguous() for name, value in state.items()}))


@torch.inference_mode()
def quality(family: Family, scenes: Sequence[Scene]) -> str:
    """What the stored weights do on scenes that they have not seen."""
    model = load(family.name)
    if "semantic" in family.tasks:
        return semantic_quality(model, scenes)
    started = time.monotonic()
    found = [model([as_tensor(scene)])[0] for scene in scenes]
    milliseconds = (time.monotonic() - started) / len(scenes) * 1000
    sure = sum(int((result["scores"] > CONFIDENT).sum()) for result in found)
    objects = sum(len(scene.labels) for scene in scenes)
    return (
        f"box AP50 {box_ap50(scenes, found):.3f}, {sure} detections above {CONFIDENT} for {objects} objects, "
        f"{branch_quality(scenes, found)}, {milliseconds:.1f} ms an image"
    )


def semantic_quality(model: nn.Module, scenes: Sequence[Scene]) -> str:
    """Mean IoU over the classes, pixels of all scenes together."""
    started = time.monotonic()
    chosen = torch.cat([model(normalised([scene]))["out"].argmax(1) for scene in scenes])
    milliseconds = (time.monotonic() - started) / len(scenes) * 1000
    truth = torch.stack([label_map(scene) for scene in scenes])
    counts = torch.bincount((truth * NUM_CLASSES + chosen).flatten(), minlength=NUM_CLASSES**2).double()
    matrix = counts.reshape(NUM_CLASSES, NUM_CLASSES)
    ious = matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())
    return f"mean IoU {ious.mean():.3f}, {milliseconds:.1f} ms an image"


def box_ap50(scenes: Sequence[Scene], found: Sequence[dict[str, Tensor]]) -> float:
    """COCO's AP at IoU 0.5."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, (scene, result) in enumerate(zip(scenes, found, strict=True), 1):
        for mask, label in zip(scene.masks, scene.labels.tolist(), strict=True):
            annotations.append({"image_id": index, "category_id": label, "bbox": mask_extent(mask)})
        boxes, labels, scores = (result[key].tolist() for key in ("boxes", "labels", "scores"))
        for (left, top, right, bottom), label, score in zip(boxes, labels, scores, strict=True):
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": index, "category_id": label, "bbox": box, "score": score})
    images = [{"id": index, "height": SCENE_SIZE, "width": SCENE_SIZE} for index in range(1, len(scenes) + 1)]
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return coco_metrics(path, results, tasks=["boxes"])["boxes"].ap50


def branch_quality(scenes: Sequence[Scene], found: Sequence[dict[str, Tensor]]) -> str:
    """Over the confident detections that lie on an object of their class: their share of the objects, masks, points."""
    hits, ious, distances = 0, [], []
    for scene, result in zip(scenes, found, strict=True):
        overlaps = box_iou(boxes_of(scene), result["boxes"])
        overlaps[torch.from_numpy(scene.labels)[:, None] != result["labels"]] = 0
        overlaps[:, result["scores"] <= CONFIDENT] = 0
        for index, row in enumerate(overlaps):
            if not len(row) or row.max() < 0.5:
                continue
            best = int(row.argmax())
            hits += 1
            if "masks" in result:
                mask, truth = result["masks"][best, 0].numpy() >= 0.5, scene.masks[index]
                ious.append((mask & truth).sum() / (mask | truth).sum())
            if "keypoints" in result:
                difference = result["keypoints"][best, :, :2] - points_of(scene)[index, :, :2]
                distances.append(float(difference.norm(dim=1).median()))
    text = f"{hits} objects found"
    text += f", mean mask IoU {np.mean(ious):.3f}" if ious else ""
    return text + (f", points off by {np.median(distances):.1f} px" if distances else "")


def say(name: str, text: str) -> None:
    """One line, at once."""
    print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    main()
