"""A validation as JUnit XML."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from report_record import HOSTILE, RECORDS, failing, misread, passing, unmeasured

from edgemask.report import to_junit
from edgemask.validation.reports import Validation, ValidationReport


def suites_of(*reports: ValidationReport) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(to_junit(Validation(reports))))


def failures_of(suite: ElementTree.Element) -> dict[str, str]:
    """The message by the name of the case."""
    found = [(case.get("name", ""), case.find("failure")) for case in suite.iter("testcase")]
    return {name: failure.get("message", "") for name, failure in found if failure is not None}


@pytest.mark.parametrize("name", RECORDS)
def test_counts(name: str) -> None:
    """A suite per device, a case per thing asked, and as many failures as the record has."""
    validation = RECORDS[name]()
    root = ElementTree.fromstring(to_junit(validation))
    assert root.tag == "testsuites"
    assert len(root) == len(validation.reports)
    for suite, report in zip(root, validation.reports, strict=True):
        cases = suite.findall("testcase")
        asked = [measure for measure in report.measures if measure.limit is not None]
        assert len(cases) == len(asked) + len(report.op_tests) + 2 + (report.stages is not None)
        assert len(failures_of(suite)) == len(report.failures)
        assert bool(failures_of(suite)) is not report.passed
        assert suite.get("tests") == str(len(cases))
        assert suite.get("failures") == str(len(failures_of(suite)))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
        assert {case.get("classname") for case in cases} == {suite.get("name")}
        assert len({case.get("name") for case in cases}) == len(cases)
        assert float(suite.get("time", "")) == pytest.approx(sum(float(case.get("time", "")) for case in cases))
    for count in ("tests", "failures", "errors", "skipped"):
        assert int(root.get(count, "")) == sum(int(suite.get(count, "")) for suite in root)


def test_what_passed() -> None:
    (suite,) = suites_of(passing())
    assert suite.get("name") == "edgemask.cpu"
    assert suite.get("timestamp") == "2026-11-23T01:02:03+00:00"
    assert suite.get("time") == f"{80 * 23.04 / 1000:.3f}"
    assert [case.get("name") for case in suite.iter("testcase")] == [
        "op self-test: box_roi_pool",
        "op self-test: class_nms",
        "images",
        "comparison",
        "stages",
        "matched share at least 99.9 %",
        "mean mask IoU at least 0.995",
        "box AP difference at most 0.1 points",
        "mask AP difference at most 0.1 points",
    ]
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties["model"] == "nuclei.onnx"
    assert properties["lowest box IoU"] == "0.99992"
    assert properties["milliseconds per image"] == "23.04"
    assert properties["mask AP"] == "0.4421"
    assert "matched share" not in properties  # it has a case
    assert "mask AP LARGE" not in properties  # it has no value
    assert "first bad stage" not in properties


def test_what_failed() -> None:
    (suite,) = suites_of(failing())
    failures = failures_of(suite)
    assert failures["mean mask IoU at least 0.995"] == "mean mask IoU 0.9949996 is below 0.995"
    assert failures["oks at least 0.9"] == "oks could not be measured, 0.9 is asked"
    assert failures["op self-test: mask_roi_pool"].startswith("3 of 53 vectors are not as specified: a roi without")
    skipped = suite.find("testcase[@name='images']/skipped")
    assert skipped is not None
    assert skipped.get("message") == "3 images left out"
    assert "gone.png could not be used: there is no such file" in (skipped.text or "").splitlines()
    texts = {case.get("name"): case.findtext("failure") for case in suite.iter("testcase")}
    assert "error 0.125, allowed 2e-05" in (texts["op self-test: mask_roi_pool"] or "")
    assert "95 % interval -2.53 to -1.83" in (texts["box AP difference at most 0.1 points"] or "")
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties["first bad stage"] == "mask_head"
    assert (suite.findtext("system-out") or "").splitlines()[-1] == "FAILED, first at the stage mask_head"


def test_nothing_compared() -> None:
    (suite,) = suites_of(unmeasured())
    assert list(failures_of(suite)) == ["comparison"]
    skipped = [case.get("name") for case in suite.iter("testcase") if case.find("skipped") is not None]
    assert skipped[0] == "matched share at least 99.9 %"
    assert len(skipped) == 4
    assert suite.get("time") == "0.000"


def test_a_stage_alone_may_condemn() -> None:
    (suite,) = suites_of(misread())
    assert failures_of(suite) == {"stages": misread().failures[0]}
    assert "paste" in failures_of(suite)["stages"]


def test_the_same_device_twice_has_two_names() -> None:
    assert [suite.get("name") for suite in suites_of(passing(), passing())] == ["edgemask.cpu", "edgemask.cpu (2)"]


def test_hostile_names_stay_text() -> None:
    """What XML 1.0 has no form for is escaped; the rest comes back as it was."""
    text = to_junit(RECORDS["hostile"]())
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n<testsuites')
    root = ElementTree.fromstring(text.encode("utf-8"))
    shown = root[0][0][0].get("value") or ""
    assert shown.startswith(
        "a|<b onclick='x()'>&amp;`*_[y](javascript:z)~\\x1b[31m\\u202e\\n# 1\\r\\x00</script><!--]]>"
    )
    assert shown.endswith('\\ud800 "é\\ufffe')
    assert shown != HOSTILE
    assert {element.tag for element in root.iter()} == {
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "failure",
        "skipped",
        "system-out",
    }


def test_images_without_a_result_fail_their_case() -> None:
    report = passing(stages=None, images=replace(passing().images, broken=(("a.png", "no numbers"),)))
    assert not report.passed
    (suite,) = suites_of(report)
    (failure,) = failures_of(suite).items()
    assert failure == ("images", "no result for 1 of 80 images, first for a.png: no numbers")
