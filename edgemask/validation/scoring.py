"""COCO metrics of both sides: against annotations, or against what the reference found."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemask.detections import Detections
from edgemask.evaluation import compare_coco, truth_from
from edgemask.parity import least_score
from edgemask.spec import ModelSpec
from edgemask.validation.images import UsableImage
from edgemask.validation.judging import CocoComparison


@dataclass(slots=True)
class Scorer:
    """Collects COCO results of both sides, image by image.

    Attributes:
        spec: of the model.
        document: the annotations; None takes the reference's detections for the truth.
    """

    spec: ModelSpec
    document: dict[str, Any] | None
    images: list[tuple[int, tuple[int, int], list[dict[str, Any]]]] = field(default_factory=list)
    candidate: list[dict[str, Any]] = field(default_factory=list)
    is_possible: bool = field(init=False)

    def __post_init__(self) -> None:
        # Annotations ask for the library; without them it is only used where it is.
        self.is_possible = self.document is not None or importlib.util.find_spec("faster_coco_eval") is not None

    def add(self, image: UsableImage, reference: Detections, candidate: Detections) -> None:
        """Takes the results for one image in."""
        if not self.is_possible:
            return
        self.images.append((image.identity, image.size, self._results(image, reference)))
        self.candidate += self._results(image, candidate)

    def _results(self, image: UsableImage, found: Detections) -> list[dict[str, Any]]:
        ids = self.spec.category_ids
        # A label that the model does not have is a fault, and nothing that can be scored.
        return found[found.labels <= len(ids)].to_coco(image.identity, category_ids=ids)

    def score(self, tasks: Sequence[str]) -> CocoComparison | None:
        """The metrics of the tasks that both sides give; None where nothing can be scored."""
        if not self.is_possible or not self.images:
            return None
        truth = self.document
        if truth is None:
            threshold = least_score(self.spec)
            categories = dict(zip(self.spec.category_ids, self.spec.class_names, strict=True))
            truth = truth_from(self.images, categories, score_threshold=threshold)
        return CocoComparison(
            truth="reference" if self.document is None else "annotations",
            tasks=compare_coco(
                truth,
                [result for _, _, results in self.images for result in results],
                self.candidate,
                tasks=tasks,
                max_detections=self.spec.max_detections,
                image_ids=[identity for identity, _, _ in self.images],
            ),
        )
