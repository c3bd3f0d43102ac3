"""Parity of label maps: what is the same passes, what is wrong fails and says how, and nothing passes unseen."""

import json
import math
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.errors import ParityError, UsageError
from edgemask.parity.semantic import SEMANTIC_TOLERANCES, SemanticParity, compare_maps
from edgemask.semantic import SemanticMap

FP32 = SEMANTIC_TOLERANCES["fp32"]
SIZE = (200, 250)
Change = Callable[[SemanticMap], SemanticMap]


def map_of(image: int) -> SemanticMap:
    """What some model found on some image: background around two discs of the labels 1 and 2."""
    rng = np.random.default_rng(image)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.zeros(SIZE, np.uint8)
    for label, column in ((1, 60), (2, 190)):
        labels[(rows - 100) ** 2 + (columns - column) ** 2 < rng.integers(30, 50) ** 2] = label
    return SemanticMap(labels, rng.uniform(0.3, 0.9, SIZE).astype(np.float32))


def constant(label: int, size: tuple[int, int] = SIZE) -> SemanticMap:
    return SemanticMap(np.full(size, label, np.uint8), np.full(size, 0.5, np.float32))


def compared(change: Change, precision: str = "fp32") -> SemanticParity:
    """Four images, seen by a reference and by a candidate that changes what the reference found."""
    references = [map_of(image) for image in range(4)]
    pairs = [(f"{index}.png", found, change(found)) for index, found in enumerate(references)]
    return compare_maps(pairs, SEMANTIC_TOLERANCES[precision])


def relabelled(found: SemanticMap, count: int, label: int = 3) -> SemanticMap:
    """With the first `count` pixels of label 1 given to another label."""
    labels = found.labels.copy()
    labels.ravel()[np.flatnonzero(found.labels == 1)[:count]] = label
    return SemanticMap(labels, found.scores)


def scored(found: SemanticMap, by: float) -> SemanticMap:
    """With one score raised."""
    scores = found.scores.copy()
    scores[7, 11] += np.float32(by)
    return SemanticMap(found.labels, scores)


def test_the_same_passes() -> None:
    report = compared(lambda found: found)
    report.raise_for_failure()
    assert report.passed
    assert (report.images, report.images_without_objects, report.pixels) == (4, 0, 4 * 200 * 250)
    assert report.labels == (0, 1, 2)
    agreements = (report.pixel_agreement, report.pixel_agreement_min, report.object_agreement)
    assert agreements == (1, 1, 1)
    assert (report.label_iou_mean, report.label_iou_min, report.score_difference_max) == (1, 1, 0)
    assert 0.5 < report.background_share < 0.9
    assert report.worst == ()
    assert report.headline == "4 images, 0 of them without objects; 200000 pixels, 3 labels"


def test_figures_are_those_of_the_pixels() -> None:
    """Counted the slow way."""
    references = [map_of(image) for image in range(3)]
    candidates = [relabelled(map_of(0), 700), map_of(7), relabelled(map_of(2), 40, label=0)]
    names = map(str, range(3))
    report = compare_maps(zip(names, references, candidates, strict=True), FP32)
    expected, found = (np.stack([one.labels for one in maps]) for maps in (references, candidates))
    same, either = expected == found, (expected > 0) | (found > 0)
    assert report.pixel_agreement == same.mean()
    assert report.pixel_agreement_min == min(image.mean() for image in same)
    assert report.object_agreement == pytest.approx((same & either).sum() / either.sum())
    ious = [((expected == x) & (found == x)).sum() / ((expected == x) | (found == x)).sum() for x in range(4)]
    assert report.labels == (0, 1, 2, 3)
    assert report.label_iou_mean == pytest.approx(np.mean(ious))
    assert report.label_iou_min == min(ious) == 0
    assert report.background_share == (expected == 0).mean()
    differences = [np.abs(one.scores - other.scores).max() for one, other in zip(references, candidates, strict=True)]
    assert report.score_difference_max == pytest.approx(max(differences))


@pytest.mark.parametrize(
    ("change", "precision", "failure"),
    [
        (lambda found: relabelled(found, 40), "fp32", None),
        (lambda found: relabelled(found, 60), "fp32", r"pixel agreement 99\.88 % is below 99\.9 %"),
        (lambda found: relabelled(found, 60), "fp16", None),
        (lambda found: relabelled(found, 550), "fp16", r"pixel agreement 98\.9 % is below 99 %"),
        (lambda found: relabelled(found, 550), "int8", None),
        (lambda found: relabelled(found, 1600), "int8", r"pixel agreement 96\.8 % is below 97 %"),
        (lambda found: scored(found, 0.0009), "fp32", None),
        (lambda found: scored(found, 0.0011), "fp32", r"largest score difference 0\.0011.* is above 0\.001"),
        (lambda found: scored(found, 0.0011), "fp16", None),
        (lambda found: constant(0), "int8", r"pixel agreement .* is below 97 %"),
    ],
)
def test_limits(change: Change, precision: str, failure: str | None) -> None:
    report = compared(change, precision)
    if failure is None:
        assert report.passed
        assert report.worst == ()
        return
    with pytest.raises(ParityError, match=failure) as caught:
        report.raise_for_failure()
    assert "0.png (" in (caught.value.remedy or "")
    assert len(report.worst) == 4


def small_object(label: int) -> SemanticMap:
    labels = np.zeros(SIZE, np.uint8)
    labels[50:55, 60:67] = label
    return SemanticMap(labels, np.full(SIZE, 0.9, np.float32))


@pytest.mark.parametrize("precision", SEMANTIC_TOLERANCES)
@pytest.mark.parametrize("candidate", [0, 2], ids=["lost", "confused"])
def test_a_small_object_is_not_lost_in_the_background(candidate: int, precision: str) -> None:
    """35 of 50,000 pixels: by all pixels together, nothing would have happened."""
    report = compare_maps([("a", small_object(1), small_object(candidate))], SEMANTIC_TOLERANCES[precision])
    assert report.pixel_agreement > 0.999
    (failure,) = report.failures
    assert failure.startswith("object agreement 0 % is below")
    assert report.worst[0].reason == "object agreement 0.0000%"


@pytest.mark.parametrize("label", [0, 3])
def test_stuck_models_are_not_the_same(label: int) -> None:
    """Whatever they are given, both say one thing: that is no proof of anything."""
    report = compare_maps([(str(image), constant(label), constant(label)) for image in range(5)], FP32)
    assert report.pixel_agreement == 1
    assert report.failures == (f"nothing was compared: 5 images, on which every pixel has label {label} on both sides",)
    with pytest.raises(ParityError, match="nothing was compared") as caught:
        report.raise_for_failure()
    assert caught.value.remedy == "give images with objects that the model finds"


def test_one_image_of_background_among_others() -> None:
    report = compare_maps([("empty", constant(0), constant(0)), ("full", map_of(0), map_of(0))], FP32)
    assert report.passed
    assert report.images_without_objects == 1


def test_no_image_is_a_failure() -> None:
    report = compare_maps([], FP32)
    assert report.failures == ("nothing was compared: 0 images",)
    assert math.isnan(report.pixel_agreement)
    assert report.summary() == {"images": 0, "pixels": 0, "labels": 0}


def test_worst_images_come_first_and_are_few() -> None:
    pairs = [(str(count), map_of(0), relabelled(map_of(0), 100 * count)) for count in range(14)]
    report = compare_maps(pairs, FP32)
    assert [image.name for image in report.worst] == [str(count) for count in range(13, 3, -1)]
    assert report.worst[0].reason.startswith("pixel agreement 97.4000%, object agreement ")


def test_images_of_another_size_are_no_pair() -> None:
    with pytest.raises(UsageError, match=r"a\.png: the reference saw \(200, 250\)"):
        compare_maps([("a.png", map_of(0), constant(0, (200, 251)))], FP32)


def test_images_are_released_one_by_one() -> None:
    seen: list[weakref.ref[NDArray[np.float32]]] = []

    def pairs() -> Iterator[tuple[str, SemanticMap, SemanticMap]]:
        for image in range(4):
            found = map_of(image)
            assert isinstance(found.scores.base, np.ndarray)
            seen.append(weakref.ref(found.scores.base))
            yield str(image), found, found
            del found
            assert [reference() for reference in seen[:-1]] == [None] * image

    assert compare_maps(pairs(), FP32).images == 4


def test_summary_is_what_a_model_file_can_carry() -> None:
    summary = compared(lambda found: found).summary()
    assert summary["pixel_agreement"] == 1
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
