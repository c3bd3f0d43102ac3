"""Parity: what is the same passes in any order; what is wrong fails, and says how."""

import dataclasses
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from found import SIZE, changed, detections, found_on

from edgemask.detections import Detections
from edgemask.errors import DependencyMissing, ParityError, UsageError
from edgemask.parity import (
    TOLERANCES,
    ParityReport,
    Tolerance,
    compare,
    compare_image,
)

FP32 = TOLERANCES["fp32"]


def compared(candidate: Callable[[Detections], Detections], tolerance: Tolerance = FP32, **more: Any) -> ParityReport:
    """Ten images, seen by a reference and by a candidate that changes what the reference found."""
    references = [found_on(image) for image in range(10)]
    return compare([(f"{i}.png", found, candidate(found)) for i, found in enumerate(references)], tolerance, **more)


def with_ghosts(found: Detections) -> Detections:
    ghosts = found_on(1234, 500)
    fields = ("boxes", "scores", "labels", "masks")
    joined = {name: np.concatenate([getattr(found, name), getattr(ghosts, name)]) for name in fields}
    return detections(**joined)


def test_the_same_passes() -> None:
    report = compared(lambda found: found)
    assert report.passed
    assert report.failures == ()
    assert report.worst == ()
    assert (report.images, report.reference, report.candidate, report.matched) == (10, 200, 200, 200)
    assert (report.matched_share, report.box_iou_min, report.mask_iou_min) == (1, 1, 1)
    assert report.score_difference_max == 0
    report.raise_for_failure()


def test_what_lies_within_the_tolerance_passes() -> None:
    report = compared(
        lambda found: changed(found, boxes=found.boxes + np.float32(0.01), scores=found.scores - np.float32(5e-4))
    )
    assert report.passed
    assert 0.99 < report.box_iou_min < 1
    assert report.score_difference_max == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param(with_ghosts, "matched share 7.4074 % is below 99.9 %", id="500 ghosts"),
        pytest.param(lambda d: changed(d, labels=d.labels + 1), "matched share 0 % is below 99.9 %", id="labels"),
        pytest.param(lambda d: changed(d, boxes=d.boxes + 2), "matched share 0 % is below 99.9 %", id="offset"),
        pytest.param(
            lambda d: changed(d, boxes=d.boxes[:, [1, 0, 3, 2]]), "matched share 0 % is below 99.9 %", id="x for y"
        ),
        pytest.param(lambda d: changed(d, scores=d.scores * 0.9), "matched share 0 % is below 99.9 %", id="scores"),
        pytest.param(
            lambda d: changed(d, masks=np.full_like(d.masks, 0.5)), "mean mask IoU 0 is below 0.995", id="masks"
        ),
        pytest.param(
            lambda d: changed(d, masks=None), "masks were not compared: only the reference gives them", id="no masks"
        ),
        pytest.param(lambda d: d[d.scores > 0.2], "% is below 99.9 %", id="half lost"),
        pytest.param(lambda d: d[:0], "matched share 0 % is below 99.9 %", id="all lost"),
    ],
)
def test_faults_fail(fault: Callable[[Detections], Detections], sentence: str) -> None:
    report = compared(fault)
    assert not report.passed
    assert sentence in "; ".join(report.failures)
    with pytest.raises(ParityError, match=r"differs from its reference") as caught:
        report.raise_for_failure()
    assert caught.value.remedy


def test_a_swapped_image_fails() -> None:
    images = [found_on(image) for image in range(4)]
    report = compare([(str(i), images[i], images[(i + 1) % 4]) for i in range(4)], FP32)
    assert not report.passed
    assert report.matched_share < 0.1
    assert report.lost + report.ghosts > 140


def test_order_within_ties_plays_no_part() -> None:
    found = found_on(0, 60)
    tied = changed(found, scores=np.full(60, 0.7, np.float32))
    order = np.random.default_rng(1).permutation(60)
    shuffled = detections(tied.boxes[order], tied.scores, tied.labels[order], masks=tied.masks[order])
    report = compare([("ties", tied, shuffled)], FP32)
    assert report.passed
    assert report.matched == 60


def test_equal_boxes_are_told_apart_by_their_scores() -> None:
    box = [10, 10, 50, 50]
    reference = detections([box, box, box], [0.9, 0.6, 0.3])
    candidate = detections([box, box], [0.6, 0.3])
    report = compare([("equal", reference, candidate)], FP32)
    assert (report.matched, report.lost, report.ghosts) == (2, 1, 0)


@pytest.mark.parametrize(("score", "flips", "lost"), [(0.0506, 1, 0), (0.0494, 0, 0), (0.06, 0, 1)])
def test_flips_at_the_score_threshold_leave_both_counts(score: float, flips: int, lost: int) -> None:
    sure, near = [10, 10, 50, 50], [100, 100, 150, 160]
    reference, candidate = detections([sure, near], [0.9, score]), detections([sure], [0.9])
    report = compare([("a", reference, candidate)], FP32)
    mirrored = compare([("a", candidate, reference)], FP32)
    assert (report.flips, report.lost, report.ghosts) == (flips, lost, 0)
    assert (mirrored.flips, mirrored.lost, mirrored.ghosts) == (flips, 0, lost)
    assert report.passed is (lost == 0)


def test_the_models_own_threshold_counts() -> None:
    reference = detections([[10, 10, 50, 50], [100, 100, 150, 160]], [0.9, 0.5004])
    candidate = reference[:1]
    assert not compare([("a", reference, candidate)], FP32).passed
    assert compare([("a", reference, candidate)], FP32, score_threshold=0.5).passed


def test_flips_at_the_limit_of_detections() -> None:
    """Both sides are full: which of two equally sure objects came last is chance."""
    sure, one, other = [10, 10, 50, 50], [100, 100, 150, 160], [200, 20, 250, 60]
    pair = ("a", detections([sure, one], [0.9, 0.4]), detections([sure, other], [0.9, 0.4002]))
    assert not compare([pair], FP32).passed
    assert not compare([pair], FP32, max_detections=3).passed
    report = compare([pair], FP32, max_detections=2)
    assert report.passed
    assert (report.matched, report.flips) == (1, 2)


@pytest.mark.parametrize("images", [0, 3])
def test_nothing_compared_fails(images: int) -> None:
    empty = Detections.empty(SIZE, mask_size=14)
    report = compare([(str(i), empty, empty) for i in range(images)], FP32)
    assert report.failures == (
        f"nothing was compared: {images} images, on which neither side has a detection that counts",
    )
    with pytest.raises(ParityError, match="nothing was compared") as caught:
        report.raise_for_failure()
    assert "images with objects" in str(caught.value.remedy)


def test_images_without_objects_are_counted() -> None:
    empty, found = Detections.empty(SIZE, mask_size=14), found_on(1)
    report = compare([("empty", empty, empty), ("full", found, found)], FP32)
    assert report.passed
    assert (report.images, report.images_without_objects) == (2, 1)


def test_a_ghost_where_nothing_is_fails() -> None:
    empty = Detections.empty(SIZE, mask_size=14)
    report = compare([("full", found_on(1), found_on(1)), ("blank.png", empty, found_on(2, 1))], FP32)
    assert not report.passed
    assert [(image.name, image.reason) for image in report.worst] == [("blank.png", "1 invented")]


def test_int8_asks_for_the_same_objects_only() -> None:
    def rough(found: Detections) -> Detections:
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        boxes = found.boxes + np.tile(sides * np.float32(0.1), 2)
        return changed(found, boxes=boxes, scores=np.sqrt(found.scores))

    tolerance = dataclasses.replace(TOLERANCES["int8"], mask_iou=None)
    report = compared(rough, tolerance)
    assert report.passed
    assert 0.6 < report.box_iou_min < 0.75
    assert report.score_difference_max > 0.2
    assert not compared(rough).passed
    assert "matched share" in compared(lambda found: found[:17], tolerance).failures[0]
    assert "mean mask IoU" in compared(rough, TOLERANCES["int8"]).failures[0]


def test_worst_images_come_first() -> None:
    found = [found_on(image) for image in range(14)]
    pairs = [(f"{i}.png", detections_, detections_[: len(detections_) - i]) for i, detections_ in enumerate(found)]
    worst = compare(pairs, FP32).worst
    assert [image.name for image in worst] == [f"{i}.png" for i in range(13, 3, -1)]
    assert worst[0].reason == "13 lost"


def test_worst_images_say_how() -> None:
    found = found_on(0)
    moved = changed(found, boxes=found.boxes + np.float32([[3, 0, 3, 0]]))
    broken = changed(found, masks=1 - found.masks)
    worst = compare([("moved", found, moved), ("broken", found, broken)], FP32).worst
    assert worst[0].name == "moved"
    assert worst[0].reason.startswith("20 moved, box IoU down to 0.")
    assert worst[1].reason.startswith("20 with another mask, mask IoU down to 0.")


def test_keypoints() -> None:
    points = np.random.default_rng(0).uniform(20, 100, (4, 17, 3)).astype(np.float32)
    scored = np.ones((4, 17), np.float32)
    found = changed(found_on(3, 4), masks=None, keypoints=points, keypoint_scores=scored)
    near, far = (changed(found, keypoints=points + np.float32([x, 0, 0])) for x in (0.25, 0.75))
    report = compare([("near", found, near)], FP32)
    assert report.passed
    assert report.tasks == ("boxes", "keypoints")
    assert report.keypoint_distance_median == pytest.approx(0.25, rel=1e-4)
    failure, *_ = compare([("far", found, far)], FP32).failures
    assert failure.startswith("median keypoint distance 0.75")
    assert failure.endswith("is above 0.5 px")


def test_images_of_another_size_are_no_pair() -> None:
    with pytest.raises(UsageError, match=r"a\.png: the reference saw \(240, 320\)"):
        compare([("a.png", found_on(0), Detections.empty((240, 321)))], FP32)


def test_images_are_released_one_by_one() -> None:
    seen: list[weakref.ref[Any]] = []

    def pairs() -> Iterator[tuple[str, Detections, Detections]]:
        for image in range(5):
            found = found_on(image)
            seen.append(weakref.ref(found.masks.base))
            yield str(image), found, found
            del found
            assert [reference() for reference in seen[:-1]] == [None] * image

    assert compare(pairs(), FP32).images == 5


def test_without_scipy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(DependencyMissing, match=r"edgemask\[validate\]"):
        compared(lambda found: found)


def test_summary_is_what_a_model_file_can_carry() -> None:
    summary = compared(lambda found: found).summary()
    assert summary["matched_share"] == 1
    assert "keypoint_distance_median" not in summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_each_mismatch_has_a_kind() -> None:
    def fault(found: Detections) -> Detections:
        boxes, scores, masks = found.boxes.copy(), found.scores.copy(), found.masks.copy()
        boxes[1] += 4
        scores[2] = (scores[2] + scores[3]) / 2
        masks[4] = 1 - masks[4]
        return changed(found, boxes=boxes, scores=scores, masks=masks)[np.arange(20) != 6]

    found = found_on(3)
    report = compare([("a", found, fault(found))], FP32)
    image = compare_image("a", found, fault(found), FP32, score_threshold=0.05, max_detections=None)
    rows = {mismatch.kind: mismatch for mismatch in image.mismatches}
    assert list(rows) == ["lost", "box", "mask", "score"]
    assert [rows[kind].score for kind in ("lost", "box", "mask", "score")] == pytest.approx(found.scores[[6, 1, 4, 2]])
    assert rows["lost"].box == pytest.approx(found.boxes[6])
    assert rows["box"].label == found.labels[1]
    assert (report.matched, report.moved, report.lost, report.ghosts) == (17, 2, 1, 0)
    assert report.matched_share == pytest.approx(34 / 39)
    assert image.damage == pytest.approx(3 + (1 - image.mask_iou).sum())


def test_a_tied_group_cut_off_by_the_limit_is_compared_as_a_group() -> None:
    """Ten of twenty equally sure objects fit; which ten is chance, and the sure one before them is not."""
    found = found_on(5, 20)
    sure = detections([[0, 0, 20, 20]], [0.95], masks=np.ones((1, 14, 14), np.float32))
    tied = changed(found, scores=np.full(20, 0.5, np.float32))

    def with_sure(rows: slice) -> Detections:
        fields = ("boxes", "scores", "labels", "masks")
        return detections(**{n: np.concatenate([getattr(sure, n), getattr(tied[rows], n)]) for n in fields})

    one, other = with_sure(slice(0, 10)), with_sure(slice(6, 16))
    assert not compare([("a", one, other)], FP32).passed
    report = compare([("a", one, other)], FP32, max_detections=11)
    assert report.passed
    assert (report.matched, report.flips) == (5, 12)
    assert not compare([("a", one, other[1:])], FP32, max_detections=10).passed


def test_histograms_count_everything() -> None:
    report = compared(lambda found: found[:-1])
    counts = {histogram.name: histogram.counts for histogram in report.histograms}
    assert sum(counts["score"]["reference"]) == 200
    assert sum(counts["score"]["model"]) == 190
    assert counts["box IoU"]["pairs"][-1] == counts["mask IoU"]["pairs"][-1] == 190


def test_ghosts_at_the_threshold_are_no_flips_once_there_are_more_than_chance_gives() -> None:
    """Roundings carry detections over the threshold and below it alike."""

    def with_faint(count: int, found: Detections) -> Detections:
        faint = changed(found_on(77, count), scores=np.full(count, 0.0505, np.float32))
        fields = ("boxes", "scores", "labels", "masks")
        return detections(**{name: np.concatenate([getattr(found, name), getattr(faint, name)]) for name in fields})

    many = compared(lambda found: with_faint(49, found))
    assert not many.passed
    assert (many.ghosts, many.flips) == (423, 67)
    assert many.reference + many.candidate == 2 * many.matched + many.ghosts + many.flips
    few = compare([("few", found_on(0), with_faint(2, found_on(0)))], FP32)
    assert few.passed
    assert few.flips == 2
    found = [found_on(index) for index in range(2)]
    even = compare([("a", found[0], with_faint(30, found[0])), ("b", with_faint(30, found[1]), found[1])], FP32)
    assert even.passed
    assert even.flips == 60


def test_half_of_the_keypoints_broken_fails_and_is_shown() -> None:
    points = np.random.default_rng(0).uniform(20, 100, (4, 17, 3)).astype(np.float32)
    found = changed(found_on(3, 4), masks=None, keypoints=points, keypoint_scores=np.ones((4, 17), np.float32))
    broken = points.copy()
    broken[:, :8] = 0
    report = compare([("a", found, changed(found, keypoints=broken))], FP32)
    assert report.keypoint_distance_median == 0
    assert [failure.split(" is below")[0][:24] for failure in report.failures] == ["mean keypoint similarity"]
    assert report.worst[0].reason.startswith("4 with other keypoints")
