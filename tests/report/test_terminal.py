"""A validation on a terminal."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from report_record import HOSTILE, RECORDS, failing, on, passing, semantic, unmeasured
from rich.console import Console

from edgemask.parity import WorstImage
from edgemask.report import print_validation
from edgemask.validation.reports import Validation, ValidationReport


def printed(record: Validation | ValidationReport, *, width: int = 80, terminal: bool = False) -> str:
    text = io.StringIO()
    print_validation(record, Console(width=width, file=text, force_terminal=terminal, color_system=None))
    return text.getvalue()


def lines_of(record: Validation | ValidationReport, **options: Any) -> list[str]:
    return [line.rstrip() for line in printed(record, **options).splitlines()]


def row(lines: list[str], name: str) -> list[str]:
    """The cells of a row."""
    (line,) = (line for line in lines if re.match(rf"\s*((ok|FAIL) +)?{re.escape(name)}(\s{{2}}|$)", line))
    return re.split(r"\s{2,}", line.strip())


def test_what_passed() -> None:
    lines = lines_of(passing())
    assert lines[:4] == [
        "nuclei.onnx (fp32, 10.7 MB, on cpu)",
        "against nuclei.safetensors (fp32, on torch)",
        "80 images, 1 of them without objects; 1000 detections of the reference, 1000 of the model: "
        "1000 matched, 0 moved, 0 lost, 0 invented, 0 at the threshold",
        "passed",
    ]
    assert row(lines, "matched share") == ["ok", "matched share", "100 %", "at least 99.9 %"]
    assert row(lines, "mean mask IoU") == ["ok", "mean mask IoU", "0.9999996", "at least 0.995"]
    assert row(lines, "lowest box IoU") == ["lowest box IoU", "0.99992"]
    assert row(lines, "mask AP difference") == ["ok", "mask AP difference", "0 points", "at most 0.1 points"]
    assert "95 % interval -0.40 to 0.30" in "\n".join(lines)
    assert "COCO, in points, against annotations" in lines
    assert row(lines, "box AP") == ["box AP", "44.21", "44.21", "0", "-0.40 to +0.30"]
    assert row(lines, "mask AR medium") == ["mask AR medium", "58.11", "58.11", "0"]
    assert not any("large" in line for line in lines if "AP" in line)  # neither side has a value
    assert "op self-test: 2 ops, 106 vectors, all as specified" in lines
    stages = "stages: 6 on IMG_0001.jpg, each fed with the reference's own input, all as the reference's"
    assert stages in lines
    assert (
        "time per image: 23.0 ms (90 % within 31.4 ms); the reference 41.1 ms (90 % within 55.0 ms): 0.561 x" in lines
    )
    assert lines[-1] == "passed"
    assert not re.search("FAIL|backbone|before|worst images|note|could not be used", "\n".join(lines))


def test_what_failed() -> None:
    report = failing()
    lines = lines_of(report, width=100)
    assert lines[3] == lines[-1] == "FAILED, first at the stage mask_head"
    assert row(lines, "matched share")[0] == "FAIL"
    assert row(lines, "matched share")[2:] == ["98.947 %", "at least 99.9 %", "100 %"]  # the last one in the baseline
    assert row(lines, "mean mask IoU") == ["FAIL", "mean mask IoU", "0.9949996", "at least 0.995"]
    assert row(lines, "oks") == ["FAIL", "oks", "-", "at least 0.9"]
    assert row(lines, "box AP") == ["box AP", "44.21", "42.08", "-2.13", "-2.53 to -1.83"]
    assert "op self-test: 2 ops, 106 vectors, 1 FAILED" in lines
    assert row(lines, "box_roi_pool") == ["ok", "box_roi_pool", "box_head", "0 of 53", "1.9e-06", "2e-05"]
    assert row(lines, "mask_roi_pool") == ["FAIL", "mask_roi_pool", "mask_head", "3 of 53", "0.125", "2e-05"]
    title = "stages: 5 on IMG_0007.jpg, each fed with the reference's own input, the first that differs is mask_head"
    assert title in lines
    assert row(lines, "proposals") == ["ok", "proposals", "0", "0.002"]
    assert row(lines, "mask_head") == ["FAIL", "mask_head", "0.1734", "2e-05", "<- the first"]
    assert row(lines, "masks") == ["FAIL", "masks", "inf", "2e-05"]
    for line in (
        "12 images taken over from the interrupted run",
        "1 image too large for the model's canvas, left out: huge.png",
        "2 images could not be used, left out:",
        "  cut.jpg: image file is truncated",
        "worst images:",
        "  IMG_0007.jpg: 9 lost, mask IoU down to 0.412",
        "note: the reference is a stored run of nuclei.safetensors on torch, 2026-11-20",
        "FAILED: mean mask IoU 0.9949996 is below 0.995",
        "FAILED: oks could not be measured, 0.9 is asked",
        "FAILED: time, as a multiple of the reference's 0.56113 x is above 0.5 x",
    ):
        assert line in lines
    assert sum(line.startswith("FAILED: ") for line in lines) == len(report.failures)


def test_nothing_is_marked_where_nothing_was_compared() -> None:
    lines = lines_of(unmeasured())
    assert row(lines, "matched share") == ["matched share", "-", "at least 99.9 %"]
    assert "time per image: not measured" in lines
    assert "COCO" not in "".join(lines)
    assert lines[-2].startswith("FAILED: nothing was compared")
    assert not any(line.startswith("FAIL ") for line in lines)


def test_label_maps() -> None:
    lines = lines_of(semantic())
    assert row(lines, "object agreement") == ["ok", "object agreement", "99.993 %", "at least 99.5 %"]
    assert not re.search("COCO|op self-test", "\n".join(lines))


def test_several_devices_side_by_side() -> None:
    lines = lines_of(RECORDS["two devices"]())
    table = lines[lines.index("Side by side") :]
    assert row(table, "measured") == ["measured", "cpu", "openvino:CPU"]
    assert row(table, "matched share") == ["matched share", "100 %", "98.947 %", "FAIL"]
    assert row(table, "oks") == ["oks", "-", "-", "FAIL"]
    assert row(table, "ms per image") == ["ms per image", "23.0", "23.0"]
    assert row(table, "first bad stage") == ["first bad stage", "mask_head"]
    assert row(table, "result") == ["result", "passed", "FAILED"]
    assert lines[-1] == "FAILED on openvino:CPU"
    twice = lines_of(Validation((passing(), passing())))
    assert row(twice[twice.index("Side by side") :], "measured") == ["measured", "cpu", "cpu (2)"]
    assert twice[-1] == "passed on all 2 devices"
    assert "Side by side" not in lines_of(Validation((passing(),)))


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - {"hostile"}))
def test_eighty_columns(name: str) -> None:
    """On a terminal nothing is wider, and all of it is ASCII."""
    text = printed(RECORDS[name](), terminal=True)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()


def test_no_path_is_broken() -> None:
    path = "/data/" + "/".join(f"folder-{number:02}" for number in range(12)) + "/picture.jpg"
    parity = replace(failing().parity, worst=(WorstImage(path, "9 lost, mask IoU down to 0.412"),))
    images = replace(failing().images, too_large=(path,), unreadable=((path, "image file is truncated"),))
    report = failing(parity=parity, images=images, model=replace(failing().model, name=path))
    for terminal in (False, True):
        assert printed(report, terminal=terminal).count(path) == 4
    prose = [line for line in lines_of(report, terminal=True) if path not in line]
    assert max(map(len, prose)) <= 80
    assert f"  {path}: 9 lost, mask IoU down to 0.412" in lines_of(report)


def test_many_failures_are_counted() -> None:
    bad = tuple((f"{number}.jpg", "no image") for number in range(100))
    problems = tuple(f"problem {number}" for number in range(30))
    report = failing(
        images=replace(failing().images, unreadable=bad), parity=replace(failing().parity, problems=problems)
    )
    lines = lines_of(report)
    assert sum(line.startswith("FAILED: ") for line in lines) == 20
    assert f"and {len(report.failures) - 20} more failures, all of them in the JSON report" in lines
    assert "  and 95 more" in lines


def test_hostile_names_cannot_steer_a_terminal() -> None:
    text = printed(RECORDS["hostile"]())
    assert "\\x1b[31m\\u202e\\n# 1\\r\\x00" in text
    assert not set("\x1b\r\x00\u202e\ud800") & set(text)
    assert HOSTILE not in text
    assert lines_of(on(passing(notes=("[bold]x[/bold]",)), "cpu"))[-2] == "note: [bold]x[/bold]"
