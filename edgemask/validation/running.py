"""Runs a model file and its reference on the same images and compares."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import eager_size
from edgemask.detections import Detections
from edgemask.errors import ImageError, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics, read_truth
from edgemask.images import load_image
from edgemask.parity import SCORE_THRESHOLD, TOLERANCES, ParityReport, Tolerance, compare
from edgemask.progress import progress
from edgemask.spec import ModelSpec
from edgemask.validation.reports import ValidationReport
from edgemask.validation.sources import (
    ChosenImage,
    Predictor,
    Reference,
    check_categories,
    choose_images,
    open_reference,
)

if TYPE_CHECKING:
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN


def validate(
    model: str | os.PathLike[str],
    reference: "str | os.PathLike[str] | GeneralizedRCNN",
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    annotations: str | os.PathLike[str] | None = None,
    device: str = "auto",
    weights: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    tolerance: Tolerance | None = None,
) -> ValidationReport:
    """Compares a model file with its reference, one image after the other.

    Args:
        model: an ONNX file written by edgemask.
        reference: a checkpoint, a builder's name (with `weights`), `package.module:function`, another ONNX file
            written by edgemask, or the PyTorch model itself. PyTorch runs where the model lies, on the canvas and with
            the thresholds of the file.
        images: a folder, or paths of images. With annotations a folder's images are those that they list.
        annotations: a COCO-format file; with it COCO metrics of both are measured.
        device: where the model runs, and a reference that is an ONNX file.
        weights: a file or the name of torchvision's weights, for a builder.
        limit: take only the first so many images.
        tolerance: what is asked; None: the row of the model's precision in `TOLERANCES`.

    Returns:
        The record; `raise_for_failure()` turns a failure into an error.

    Raises:
        DatasetError: no image, an image is missing, or annotations that do not fit the images or the model.
        ImageError: an image is unreadable.
        ModelFileError: a model file or checkpoint is not sound.
        UsageError: the reference cannot be meant, or has other classes.
        DependencyMissing: a package is not installed.
        DeviceUnavailable: the device cannot run the model here.
    """
    document = None if annotations is None else read_truth(os.fspath(annotations))
    chosen = choose_images(images, document, limit)
    from edgemask.runtimes import load

    with contextlib.ExitStack() as stack:
        candidate = stack.enter_context(load(os.fspath(model), device=device))
        if document is not None:
            check_categories(document, candidate.spec)
        return compare_detectors(
            candidate,
            open_reference(reference, candidate.spec, device=device, weights=weights, stack=stack),
            chosen,
            model=os.fspath(model),
            annotations=None if annotations is None else os.fspath(annotations),
            tolerance=tolerance or TOLERANCES[candidate.spec.precision],
        )


def compare_detectors(
    candidate: Predictor,
    reference: Reference,
    images: Sequence[ChosenImage],
    *,
    model: str,
    annotations: str | None = None,
    tolerance: Tolerance,
) -> ValidationReport:
    """Compares two open detectors; see `validate`.

    Args:
        candidate: the model.
        reference: what it is compared with.
        images: what `choose_images` gave.
        model: how the report names the candidate.
        annotations: path of the annotations in which the images have their ids.
        tolerance: what is asked.

    Raises:
        ImageError: an image is unreadable.
        DatasetError: annotations that cannot be scored.
    """
    if annotations is not None and tolerance.ap_decides:
        tolerance = replace(tolerance, matched_share=None, mask_iou=None, keypoint_distance=None)
    propose = None
    if candidate.spec.proposals == "input":
        propose = getattr(reference.detector, "propose", None)
        if propose is None:
            raise UsageError(
                f"{model} takes its proposals from the caller, and {reference.name} has none to give",
                "give the PyTorch model as the reference: its RPN makes them",
            )
    run = _Run(candidate, reference.detector, propose, scored=annotations is not None)
    parity = compare(
        run.pairs(images),
        tolerance,
        score_threshold=max(SCORE_THRESHOLD, candidate.spec.score_threshold),
        max_detections=candidate.spec.max_detections,
    )
    return ValidationReport(
        model=model,
        reference=reference.name,
        device=candidate.device,
        reference_device=reference.detector.device,
        precision=candidate.spec.precision,
        parity=parity,
        coco=None if annotations is None or not run.identities else run.score(annotations, parity),
        milliseconds=_median_milliseconds(run.seconds),
        reference_milliseconds=_median_milliseconds(run.reference_seconds),
        excluded=tuple(run.excluded),
        notes=reference.notes,
    )


@dataclass(slots=True)
class _Run:
    """One pass over the images, and what is kept of it."""

    candidate: Predictor
    reference: Predictor
    propose: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None
    scored: bool
    seconds: list[float] = field(default_factory=list)
    reference_seconds: list[float] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    identities: list[int] = field(default_factory=list)
    results: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"reference": [], "candidate": []})

    def pairs(self, images: Sequence[ChosenImage]) -> Iterator[tuple[str, Detections, Detections]]:
        """Decodes, predicts and releases one image after the other."""
        spec = self.candidate.spec
        for image in progress(images, "validate"):
            pixels = load_image(image.path)
            if _exceeds_canvas(image.name, pixels.shape[0], pixels.shape[1], spec):
                self.excluded.append(image.name)
                continue
            boxes = None if self.propose is None else self.propose(pixels)
            started = time.perf_counter()
            expected = self.reference.predict(pixels, proposals=boxes)
            halfway = time.perf_counter()
            found = self.candidate.predict(pixels, proposals=boxes)
            self.seconds.append(time.perf_counter() - halfway)
            self.reference_seconds.append(halfway - started)
            if self.scored and image.identity is not None:
                self.identities.append(image.identity)
                for side, detections in (("reference", expected), ("candidate", found)):
                    self.results[side] += detections.to_coco(image.identity, category_ids=spec.category_ids)
            yield image.name, expected, found

    def score(self, annotations: str, parity: ParityReport) -> dict[str, dict[str, CocoMetrics]]:
        """COCO metrics of both sides, of the tasks that both give."""
        return {
            side: coco_metrics(
                annotations,
                results,
                tasks=parity.tasks,
                max_detections=self.candidate.spec.max_detections,
                image_ids=self.identities,
            )
            for side, results in self.results.items()
        }


def _exceeds_canvas(name: str, height: int, width: int, spec: ModelSpec) -> bool:
    """Whether `place_on_canvas` would flag the image as resized beyond the reference."""
    try:
        size = eager_size(height, width, spec)
    except ImageError as error:
        raise ImageError(f"{name}: {error.problem}", error.remedy) from error
    return spec.canvas is not None and (size[0] > spec.canvas[0] or size[1] > spec.canvas[1])


def _median_milliseconds(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds) if seconds else float("nan")
