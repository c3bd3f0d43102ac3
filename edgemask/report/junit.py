"""A validation as JUnit XML, which every CI knows how to show."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from edgemask.checks import printable
from edgemask.report.rows import asked_of, images_of, labels_of

if TYPE_CHECKING:
    from edgemask.optest import OpTest
    from edgemask.parity import Measure
    from edgemask.validation.reports import Validation, ValidationReport

_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
_NO_CHARACTER = re.compile("[\ufffe\uffff]")  # XML 1.0 has no form for them; the others `printable` escapes


def to_junit(validation: "Validation") -> str:
    """Returns a validation as JUnit XML: a suite for each device, a case for each thing that is asked.

    The cases are every limit, every op of the self-test, `images`, skipped where some were left out, `comparison`
    (there was something to compare) and, where they were compared, `stages`, which fails if a stage alone condemns the
    model. A limit is skipped where nothing was compared, as the record counts it. The time of a suite,
    in seconds, is what the model took for the images by its median, and stands in the case `comparison`. What was
    measured and not asked is a property.
    """
    suites = ElementTree.Element("testsuites", name="edgemask validate")
    for label, report in zip(labels_of(validation.reports), validation.reports, strict=True):
        suites.append(_suite(label, report))
    for count in ("tests", "failures", "errors", "skipped"):
        suites.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    suites.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    ElementTree.indent(suites)
    # The library would declare the encoding of the locale, whatever the text is written in.
    return f"{_DECLARATION}\n{ElementTree.tostring(suites, encoding='unicode')}\n"


def _suite(label: str, report: "ValidationReport") -> ElementTree.Element:
    name = _text(f"edgemask.{label}")
    cases = [*_op_cases(report.op_tests), _image_case(report), _comparison_case(report), *_stage_cases(report)]
    cases += [_measure_case(measure, skip=report.parity.is_empty) for measure in report.measures if _is_asked(measure)]
    seconds = _seconds(report)
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors="0",
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=seconds,
        timestamp=_text(report.environment.date),
    )
    suite.append(_properties(report))
    for case in cases:
        case.set("classname", name)
        case.set("time", seconds if case.get("name") == "comparison" else "0.000")
        suite.append(case)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _text(report.parity.headline) + "\n" + _text(report.verdict)
    return suite


def _is_asked(measure: "Measure") -> bool:
    return measure.limit is not None


def _seconds(report: "ValidationReport") -> str:
    median = report.latency.median
    return f"{0.0 if math.isnan(median) else report.images.compared * median / 1000:.3f}"


def _properties(report: "ValidationReport") -> ElementTree.Element:
    properties = ElementTree.Element("properties")
    facts = {
        "model": report.model.name,
        "reference": report.reference.name,
        "images compared": str(report.images.compared),
        "first bad stage": report.culprit or "",
        **{f"version of {name}": version for name, version in report.environment.versions.items()},
    }
    asked = {measure.key for measure in report.measures if _is_asked(measure)}
    free = [measure for measure in report.values if measure.key not in asked and not math.isnan(measure.value)]
    for name, value in (*facts.items(), *((measure.name, repr(measure.value)) for measure in free)):
        if value:
            ElementTree.SubElement(properties, "property", name=_text(name), value=_text(value))
    return properties


def _op_cases(tests: "Sequence[OpTest]") -> list[ElementTree.Element]:
    cases = []
    for test in tests:
        case = _case(f"op self-test: {test.name}")
        if not test.passed:
            wrong = f"{test.failed} of {test.vectors} vectors are not as specified: {test.example}"
            _fail(case, [wrong], f"stage {test.stage}; error {test.error:.3g}, allowed {test.tolerance:.3g}")
        cases.append(case)
    return cases


def _image_case(report: "ValidationReport") -> ElementTree.Element:
    case = _case("images")
    lines = [f"{name} could not be used: {reason}" for name, reason in report.images.unreadable]
    lines += [f"{name} is too large for the model's canvas" for name in report.images.too_large]
    if wrong := report.image_failures():
        _fail(case, wrong, *lines)
    elif lines:
        skipped = ElementTree.SubElement(case, "skipped", message=f"{images_of(len(lines))} left out")
        skipped.text = "\n".join(map(_text, lines))
    return case


def _comparison_case(report: "ValidationReport") -> ElementTree.Element:
    case = _case("comparison")
    if report.parity.obstacles:
        _fail(case, report.parity.obstacles)
    return case


def _stage_cases(report: "ValidationReport") -> list[ElementTree.Element]:
    if report.stages is None:
        return []
    case = _case("stages")
    if wrong := report.stage_failures():
        _fail(case, wrong)
    return [case]


def _measure_case(measure: "Measure", *, skip: bool) -> ElementTree.Element:
    case = _case(f"{measure.name} {asked_of(measure)[1]}")
    if skip:
        ElementTree.SubElement(case, "skipped", message="nothing was compared")
    elif not measure.passed:
        _fail(case, [measure.failure or ""], *([measure.note] if measure.note else []))
    return case


def _case(name: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", name=_text(name))


def _fail(case: ElementTree.Element, lines: Sequence[str], *more: str) -> None:
    failure = ElementTree.SubElement(case, "failure", message=_text(lines[0]), type="ParityError")
    failure.text = "\n".join(_text(line) for line in (*lines, *more))


def _text(text: str) -> str:
    """Text that XML 1.0 allows: what it has no form for stands as an escape."""
    return _NO_CHARACTER.sub(lambda match: f"\\u{ord(match[0]):04x}", printable(text))
