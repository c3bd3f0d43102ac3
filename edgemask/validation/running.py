"""Runs a model file and its reference on the same images and compares."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgemask.canvas import eager_size
from edgemask.detections import Detections
from edgemask.errors import ImageError, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics, read_truth
from edgemask.images import load_image
from edgemask.parity import (
    SCORE_THRESHOLD,
    SEMANTIC_TOLERANCES,
    TOLERANCES,
    ParityReport,
    SemanticParity,
    Tolerance,
    compare,
    compare_maps,
)
from edgemask.progress import progress
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec
from edgemask.validation.reports import ValidationReport
from edgemask.validation.sources import (
    ChosenImage,
    Predictor,
    Reference,
    Segmenter,
    check_categories,
    choose_images,
    open_reference,
)

if TYPE_CHECKING:
    from edgemask.models import Model

Found = TypeVar("Found", Detections, SemanticMap)


def validate(
    model: str | os.PathLike[str],
    reference: "str | os.PathLike[str] | Model",
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
        annotations: a COCO-format file; with it COCO metrics of both are measured. Not for a semantic model.
        device: where the model runs, and a reference that is an ONNX file.
        weights: a file or the name of torchvision's weights, for a builder.
        limit: take only the first so many images.
        tolerance: what is asked; None: the row of the model's precision in `TOLERANCES`. Of a semantic model, that in
            `SEMANTIC_TOLERANCES` is.

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
    from edgemask.runtimes import load

    document = None if annotations is None else read_truth(os.fspath(annotations))
    chosen = choose_images(images, document, limit)

    with contextlib.ExitStack() as stack:
        candidate = stack.enter_context(load(os.fspath(model), device=device))
        if document is not None and "semantic" in candidate.spec.tasks:
            raise UsageError("annotations list objects, and a semantic model finds none", "leave out the annotations")
        if document is not None:
            check_categories(document, candidate.spec)
        opened = open_reference(reference, candidate.spec, device=device, weights=weights, stack=stack)
        if "semantic" in candidate.spec.tasks:
            return compare_segmenters(candidate, opened, chosen, model=os.fspath(model))
        return compare_detectors(
            candidate,
            opened,
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
    run = _Run(candidate, reference.detector, scored=annotations is not None, propose=propose)
    parity = compare(
        run.pairs(images),
        tolerance,
        score_threshold=max(SCORE_THRESHOLD, candidate.spec.score_threshold),
        max_detections=candidate.spec.max_detections,
    )
    coco = None if annotations is None or not run.identities else run.score(annotations, parity)
    return run.report(model, reference, parity, coco)


def compare_segmenters(
    candidate: Segmenter, reference: Reference, images: Sequence[ChosenImage], *, model: str
) -> ValidationReport:
    """Compares two open semantic models; see `validate`.

    Args:
        candidate: the model.
        reference: what it is compared with.
        images: what `choose_images` gave.
        model: how the report names the candidate.

    Raises:
        ImageError: an image is unreadable.
    """
    run = _Run(candidate, reference.detector, scored=False)
    parity = compare_maps(run.maps(images), SEMANTIC_TOLERANCES[candidate.spec.precision])
    return run.report(model, reference, parity, None)


@dataclass(slots=True)
class _Run:
    """One pass over the images, and what is kept of it."""

    candidate: Any
    reference: Any
    scored: bool
    propose: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    seconds: list[float] = field(default_factory=list)
    reference_seconds: list[float] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    identities: list[int] = field(default_factory=list)
    results: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"reference": [], "candidate": []})

    def pairs(self, images: Sequence[ChosenImage]) -> Iterator[tuple[str, Detections, Detections]]:
        """Decodes, detects and releases one image after the other."""
        category_ids = self.candidate.spec.category_ids
        for image, pixels in self._fitting(images):
            given = {} if self.propose is None else {"proposals": self.propose(pixels)}
            expected, found = self._timed(
                partial(self.reference.predict, pixels, **given), partial(self.candidate.predict, pixels, **given)
            )
            if self.scored and image.identity is not None:
                self.identities.append(image.identity)
                for side, detections in (("reference", expected), ("candidate", found)):
                    self.results[side] += detections.to_coco(image.identity, category_ids=category_ids)
            yield image.name, expected, found

    def maps(self, images: Sequence[ChosenImage]) -> Iterator[tuple[str, SemanticMap, SemanticMap]]:
        """Decodes, labels and releases one image after the other."""
        for image, pixels in self._fitting(images):
            expected, found = self._timed(
                partial(self.reference.segment, pixels), partial(self.candidate.segment, pixels)
            )
            yield image.name, expected, found

    def _fitting(self, images: Sequence[ChosenImage]) -> Iterator[tuple[ChosenImage, NDArray[np.uint8]]]:
        for image in progress(images, "validate"):
            pixels = load_image(image.path)
            if _exceeds_canvas(image.name, pixels.shape[0], pixels.shape[1], self.candidate.spec):
                self.excluded.append(image.name)
            else:
                yield image, pixels

    def _timed(self, reference: Callable[[], Found], candidate: Callable[[], Found]) -> tuple[Found, Found]:
        started = time.perf_counter()
        expected = reference()
        halfway = time.perf_counter()
        found = candidate()
        self.seconds.append(time.perf_counter() - halfway)
        self.reference_seconds.append(halfway - started)
        return expected, found

    def report(
        self,
        model: str,
        reference: Reference,
        parity: ParityReport | SemanticParity,
        coco: dict[str, dict[str, CocoMetrics]] | None,
    ) -> ValidationReport:
        """The record of the pass."""
        return ValidationReport(
            model=model,
            reference=reference.name,
            device=self.candidate.device,
            reference_device=self.reference.device,
            precision=self.candidate.spec.precision,
            parity=parity,
            coco=coco,
            milliseconds=_median_milliseconds(self.seconds),
            reference_milliseconds=_median_milliseconds(self.reference_seconds),
            excluded=tuple(self.excluded),
            notes=reference.notes,
        )

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
