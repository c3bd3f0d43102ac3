"""Proof after every export: the file is run and compared with PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import placement_of
from edgemask.divergence import StageCheck, compare_stages, first_divergence
from edgemask.errors import ParityError, UnsupportedModel
from edgemask.export.half import LIMIT
from edgemask.export.ranges import overflows
from edgemask.models import Model
from edgemask.parity import (
    SEMANTIC_TOLERANCES,
    TOLERANCES,
    ParityReport,
    SemanticParity,
    compare,
    compare_maps,
    least_score,
)
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import Detector, ModelFile, read_model
from edgemask.runtimes.ort import OrtCpu
from edgemask.scenes import draw_scene
from edgemask.semantic_reference import SemanticReference, reference_for
from edgemask.spec import ModelSpec

Picture = NDArray[np.uint8]
# Where a stage differs by more than the precision allows.
_REMEDIES = {
    "fp32": "this is a fault of the export; please report it with the model's definition",
    "fp16": "float16 may be too coarse for it: export in float32 (--precision fp32); report it if that differs too",
}
_COARSER = {"fp16": "; or export it in float32 (--precision fp32)"}


@dataclass(frozen=True, slots=True)
class Verification:
    """How an exported file compares with its PyTorch model.

    Attributes:
        device: where the file was run.
        parity: what was found on the probe images, compared.
        stages: the stages, compared; empty where the detections were enough.
    """

    device: str
    parity: ParityReport | SemanticParity
    stages: tuple[StageCheck, ...]


def probe_images(spec: ModelSpec) -> dict[str, NDArray[np.uint8]]:
    """Images that the export did not see: two drawn scenes of different size, and a background without any object.

    They are cut so that the canvas holds them at the size at which PyTorch would see them.
    """
    images = {
        "scene": draw_scene(0, seed=77).image,
        "other scene": draw_scene(1, seed=77, size=256).image,
        # A texture: on a plain grey every anchor has the same score, and any rounding decides between them.
        "nothing": draw_scene(2, seed=77, size=160, objects=0).image,
    }
    rows, columns = spec.canvas or (3, 4)
    return {name: _cut(image, rows / columns, spec) for name, image in images.items()}


def _cut(image: NDArray[np.uint8], ratio: float, spec: ModelSpec) -> NDArray[np.uint8]:
    """The largest part of a square image with about this ratio of height to width that fits the canvas unshrunk."""
    side = len(image)
    height, width = (side, max(1, int(side / ratio))) if ratio > 1 else (max(1, int(side * ratio)), side)
    while min(height, width) > 1:
        placement = placement_of((height, width), spec)
        if not placement.resized_beyond_reference:
            break
        height, width = (height - 1, width) if placement.size[0] == placement.canvas[0] else (height, width - 1)
    return image[:height, :width]


def verify(model: Model, path: str | Path) -> Verification:
    """Runs a file and compares what it finds with PyTorch; where that differs, or where it is nothing, the stages too.

    Args:
        model: the model that the file was exported from.
        path: the file.

    Returns:
        The comparison, which held.

    Raises:
        UnsupportedModel: a layer that computes in float16 gives what float16 cannot hold; names it.
        ParityError: it did not hold; names the first stage that differs.
    """
    file = read_model(path)
    device = "cpu" if OrtCpu.unavailable("") is None else "openvino:CPU"
    images = probe_images(file.spec)
    reference = reference_for(model, file.spec)
    if file.spec.precision == "fp16":
        _check_range(reference, file, device, images)
    with Detector(file, device) as detector:
        parity, found = _compare(reference, detector, images)
    if parity.passed:
        return Verification(device, parity, ())
    stages: tuple[StageCheck, ...] = ()
    for image in images.values():
        stages = _compare_stages(reference, file, device, image)
        if first_divergence(stages):
            break
    divergence = first_divergence(stages)
    if divergence is not None:
        raise ParityError(
            f"the exported file differs from PyTorch, first at stage {divergence.stage}: "
            f"error {divergence.error:.2g}, allowed {divergence.tolerance:.2g}",
            _REMEDIES[file.spec.precision],
        )
    if found:
        raise ParityError(
            f"the exported file finds something else than PyTorch ({'; '.join(parity.failures)}), though every stage "
            "agrees on the same input",
            "what an untrained model finds are ties that any rounding flips: train it, or skip with --no-verify"
            + _COARSER.get(file.spec.precision, ""),
        )
    return Verification(device, parity, stages)


def _compare(
    reference: ReferenceDetector | SemanticReference, detector: Detector, images: Mapping[str, Picture]
) -> tuple[ParityReport | SemanticParity, bool]:
    """The comparison, and whether there was anything to compare."""
    spec = detector.spec
    if isinstance(reference, SemanticReference):
        maps = [(name, reference.segment(image), detector.segment(image)) for name, image in images.items()]
        found = compare_maps(maps, SEMANTIC_TOLERANCES[spec.precision])
        return found, len(found.labels) > 1
    pairs = []
    for name, image in images.items():
        boxes = reference.propose(image) if spec.proposals == "input" else None
        pairs.append((name, reference.predict(image, proposals=boxes), detector.predict(image, proposals=boxes)))
    parity = compare(
        pairs,
        TOLERANCES[spec.precision],
        score_threshold=least_score(spec),
        max_detections=spec.max_detections,
    )
    return parity, any(len(expected) or len(own) for _, expected, own in pairs)


def _compare_stages(
    reference: ReferenceDetector | SemanticReference, file: ModelFile, device: str, image: Picture
) -> tuple[StageCheck, ...]:
    boxes = _proposals(reference, image, file.spec)
    return compare_stages(file, device, image, record_stages(reference, image, proposals=boxes))


def _check_range(
    reference: ReferenceDetector | SemanticReference, file: ModelFile, device: str, images: Mapping[str, Picture]
) -> None:
    pairs = ((image, _proposals(reference, image, file.spec)) for image in images.values())
    for name, count in overflows(file, device, pairs).items():
        raise UnsupportedModel(
            f"{name} gives {count} numbers beyond {LIMIT:.0f}, the largest of float16, for drawn scenes",
            "export it in float32: --precision fp32 (precision='fp32')",
        )


def _proposals(
    reference: ReferenceDetector | SemanticReference, image: Picture, spec: ModelSpec
) -> NDArray[np.float32] | None:
    """Boxes to give to a model that takes them."""
    if isinstance(reference, ReferenceDetector) and spec.proposals == "input":
        return reference.propose(image)
    return None
