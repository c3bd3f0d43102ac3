"""One pass over the images, with fake detectors that find coloured rectangles."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coloured import SPEC, Fault, FinderSide, write_folder
from found import changed
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.errors import BrokenOutput, ParityError
from edgemask.evaluation import read_truth
from edgemask.parity import TOLERANCES
from edgemask.report import to_json
from edgemask.spec import ModelSpec
from edgemask.validation import Limit, Validation, ValidationReport
from edgemask.validation.baseline import read_baselines
from edgemask.validation.comparing import Plan, compare_sides
from edgemask.validation.images import check_images, choose_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def run(
    folder: Path, fault: Fault = lambda found: found, *, spec: ModelSpec = SPEC, annotated: bool = True, **more: Any
) -> ValidationReport:
    document = read_truth(folder / "annotations.json") if annotated else None
    images = check_images(choose_images(folder / "images", document), spec)
    candidate, reference = FinderSide(fault, spec), FinderSide(kind="pytorch")
    report, _ = compare_sides(candidate, reference, Plan(document=document, images=images, **more))
    return report


def missed(report: ValidationReport) -> list[str]:
    return [measure.key for measure in report.measures if not measure.passed]


def test_the_same_passes(folder: Path) -> None:
    report = run(folder)
    assert report.passed
    report.raise_for_failure()
    assert (report.parity.images, report.parity.images_without_objects, report.parity.matched) == (5, 1, 12)
    assert report.coco is not None
    assert report.coco.truth == "annotations"
    for compared in report.coco.tasks.values():
        assert compared.reference == compared.candidate
    assert report.coco.tasks["boxes"].candidate.ap == pytest.approx(1)
    assert report.coco.tasks["masks"].candidate.ap > 0.5
    assert (report.model.name, report.reference.name) == ("m.onnx", "trained.safetensors")
    assert (report.images.chosen, report.images.compared) == (5, 5)
    assert 0 < report.latency.median < 1000
    assert report.latency.ratio == pytest.approx(report.latency.median / report.latency.reference_median)
    limited = [measure.key for measure in report.measures if measure.limit is not None]
    assert limited == ["matched_share", "mask_iou", "box_ap.difference", "mask_ap.difference"]


def test_without_annotations_the_reference_is_the_truth(folder: Path) -> None:
    report = run(folder, annotated=False)
    assert report.passed
    assert report.coco is not None
    assert report.coco.truth == "reference"
    assert report.coco.tasks["masks"].candidate.ap == pytest.approx(1)
    lossy = run(folder, lambda found: found[1:], annotated=False)
    assert not lossy.passed
    assert lossy.coco is not None
    assert lossy.coco.tasks["boxes"].candidate.ap == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        pytest.param(
            lambda d: changed(d, labels=d.labels % 3 + 1),
            ["matched_share", "mask_iou", "box_ap.difference", "mask_ap.difference"],
            id="labels shifted",
        ),
        pytest.param(
            lambda d: changed(d, masks=np.full_like(d.masks, 0.5)), ["mask_iou", "mask_ap.difference"], id="masks"
        ),
        pytest.param(
            lambda d: d[d.scores > 0.75],
            ["matched_share", "box_ap.difference", "mask_ap.difference"],
            id="one class lost",
        ),
    ],
)
def test_faults_fail(folder: Path, fault: Fault, failing: list[str]) -> None:
    report = run(folder, fault)
    assert missed(report) == failing
    assert list(report.failures) == [measure.failure for measure in report.measures if not measure.passed]
    with pytest.raises(ParityError, match="differs from its reference"):
        report.raise_for_failure()


def test_a_gate_takes_the_place_of_the_row(folder: Path) -> None:
    half = (Limit("matched_share", "least", 0.5),)
    lossy = run(folder, lambda d: d[d.scores > 0.75], gate=half)
    assert lossy.passed
    assert [measure.key for measure in lossy.measures if measure.limit is not None] == ["matched_share"]
    assert missed(run(folder, gate=half, limits=(Limit("file_size_mb", "most", 0.9),))) == ["file_size_mb"]


def test_int8_is_judged_by_precision_where_there_are_annotations(folder: Path) -> None:
    int8 = SPEC.replace(precision="int8")
    report = run(folder, lambda d: changed(d, scores=d.scores * np.float32(0.2)), spec=int8)
    assert report.passed
    names = [measure.key for measure in report.measures if measure.limit is not None]
    assert names == ["box_ap.drop", "mask_ap.drop"]
    assert missed(run(folder, lambda d: d[d.scores > 0.75], spec=int8)) == names
    images_only = run(folder, lambda d: d[d.scores > 0.75], spec=int8, annotated=False)
    assert images_only.failures == ("matched share 80 % is below 97 %",)


def test_precision_that_cannot_be_measured_fails(folder: Path) -> None:
    path = folder / "annotations.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"annotations": []}), encoding="utf-8")
    assert "box AP difference could not be measured, 0.1 points is asked" in run(folder).failures


def test_results_below_the_threshold_count_for_coco_alone(folder: Path) -> None:
    """COCO's curve goes down to score 0; parity starts at 0.05."""
    report = run(folder, lambda d: changed(d, scores=d.scores * np.float32(0.01)))
    assert report.coco is not None
    assert report.coco.tasks["boxes"].candidate.ap == pytest.approx(1)
    assert report.parity.candidate == 0


def test_no_image_left_fails(folder: Path) -> None:
    report = run(folder, spec=SPEC.replace(canvas=(32, 32)))
    assert len(report.images.too_large) == 5
    assert report.coco is None
    assert report.failures[0] == "5 of 5 images are too large for the model's canvas"
    assert report.failures[1].startswith("nothing was compared: 0 images")
    assert math.isnan(report.latency.median)


def test_a_model_that_gives_no_result_has_found_nothing(folder: Path) -> None:
    def fault(found: Detections) -> Detections:
        if found.image_size == (80, 60):
            raise BrokenOutput("the model gave masks that are not numbers on cpu", "remedy")
        return found

    report = run(folder, fault, pictures=1)
    assert report.images.broken == (("2.png", "the model gave masks that are not numbers on cpu"),)
    assert report.failures[0].startswith("no result for 1 of 5 images, first for 2.png: the model gave masks that are")
    assert report.images.compared == report.parity.images == 5
    assert (report.parity.lost, report.parity.matched) == (3, 9)
    assert report.gallery[0].name == "2.png"


def test_what_a_reader_of_a_baseline_must_know(folder: Path) -> None:
    baseline = folder / "report.json"
    baseline.write_text(to_json(Validation((run(folder),))), encoding="utf-8")
    baselines = read_baselines(baseline)
    (note,) = run(folder, baselines=baselines).notes
    assert note.startswith("nothing is asked of the baseline")
    gate = (Limit("matched_share", "max_regression", 0.1),)
    assert run(folder, baselines=baselines, gate=gate).notes == ()
    (note,) = run(folder, baselines=baselines, gate=gate, annotated=False, spec=SPEC.replace(canvas=(128, 96))).notes
    assert note == "the baseline was measured on 5 images, this on 4"
    others = tuple(replace(baselines[0], device=device) for device in ("cuda:0", "openvino:GPU"))
    unknown = run(folder, baselines=others, gate=gate)
    assert unknown.notes == ("the baseline has no figures for cpu, only for cuda:0, openvino:GPU",)
    assert not unknown.passed, "a regression from nothing known"


def test_images_are_released_one_by_one(folder: Path) -> None:
    reference = FinderSide(kind="pytorch")
    finder = reference.detector
    predict = finder.predict

    def watching(source: NDArray[np.uint8], **more: Any) -> Detections:
        assert [seen() for seen in finder.seen] == [None] * len(finder.seen)
        found: Detections = predict(source, **more)
        return found

    finder.predict = watching
    images = check_images(choose_images(folder / "images"), SPEC)
    compare_sides(FinderSide(), reference, Plan(images=images, pictures=2))
    assert len(finder.seen) == 5


def test_the_gallery_begins_with_the_worst(folder: Path) -> None:
    def fault(found: Detections) -> Detections:
        return found[: 5 - found.image_size[0] // 24] if found.image_size[0] > 64 else found

    report = run(folder, fault, pictures=3)
    assert [entry.name for entry in report.gallery] == ["3.png", "2.png", "0.png"]
    worst = report.gallery[0]
    assert (worst.size, worst.reason) == ((96, 96), "2 lost")
    assert [(mismatch.kind, mismatch.label) for mismatch in worst.mismatches] == [("lost", 2), ("lost", 3)]
    assert worst.classes == SPEC.class_names
    assert worst.reference[:2] == worst.candidate[:2] == b"\xff\xd8"
    assert worst.reference != worst.candidate
    assert report.gallery[2].reason == ""
    assert run(folder, pictures=0).gallery == ()


def test_what_a_verdict_says(folder: Path) -> None:
    assert run(folder).verdict == "passed"
    failed = run(folder, lambda d: d[1:])
    assert (failed.verdict, failed.culprit) == ("FAILED", None)
    lenient = dataclasses.replace(TOLERANCES["fp32"], matched_share=None, mask_iou=None, ap_difference=0.05)
    report = run(folder, lambda d: changed(d, labels=d.labels % 3 + 1), tolerance=lenient)
    assert report.failures[0] == "box AP difference 100 points is above 5 points"
