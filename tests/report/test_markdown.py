"""A validation as a comment on a pull request, read as a Markdown parser reads it."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report_record import CLASSES, HOSTILE, RECORDS, coco, failing, misread, on, passing, semantic, unmeasured

from edgemask.parity import WorstImage
from edgemask.report import to_markdown
from edgemask.report.markdown import MOST_CHARACTERS
from edgemask.validation.reports import Validation, ValidationReport

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
INLINE_TAGS = {"<code>", "</code>", "<sub>", "</sub>"}
BLOCK = re.compile(r"</details>|<details><summary>[^<>]*(<code>[^<>]*</code>[^<>]*)?</summary>")


def markdown(*reports: ValidationReport) -> str:
    return to_markdown(Validation(reports))


def shown(token: Token) -> str:
    """What a reader sees of a piece of text."""
    return "".join(part.content for part in token.children or [] if part.type != "html_inline").replace("\u200b", "")


def tables_of(text: str) -> list[list[list[str]]]:
    """The rows of each table."""
    tables: list[list[list[str]]] = []
    inside = False
    for token in PARSER.parse(text):
        inside = {"table_open": True, "table_close": False}.get(token.type, inside)
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and inside:
            tables[-1][-1].append(shown(token))
    return tables


def sentences_of(text: str) -> list[str]:
    """The text outside of tables."""
    tokens = PARSER.parse(text)
    return [shown(token) for before, token in pairwise(tokens) if before.type == "paragraph_open"]


def headings_of(text: str) -> list[str]:
    tokens = PARSER.parse(text)
    return [shown(token) for before, token in pairwise(tokens) if before.type == "heading_open"]


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_but_our_own_markup(name: str) -> None:
    """Every table is whole, and names from outside are text: no tag, link, picture, code or heading comes of them."""
    validation = RECORDS[name]()
    text = to_markdown(validation)
    text.encode("utf-8")
    assert len(text) <= MOST_CHARACTERS
    for table in tables_of(text):
        assert len(table) > 1
        assert {len(row) for row in table} == {len(table[0])}
    parts = [part for token in PARSER.parse(text) for part in (token, *(token.children or []))]
    assert {part.content for part in parts if part.type == "html_inline"} <= INLINE_TAGS
    blocks = [line for part in parts if part.type == "html_block" for line in part.content.split("\n") if line]
    assert [line for line in blocks if not BLOCK.fullmatch(line)] == []
    assert sum(line.startswith("<details>") for line in blocks) == blocks.count("</details>")
    kinds = {part.type.removesuffix("_open").removesuffix("_close") for part in parts}
    assert not kinds & {"link", "image", "code_inline", "code_block", "fence", "em", "s", "hr", "blockquote"}
    assert set(headings_of(text)) <= {
        f"edgemask validate: {'passed' if validation.passed else 'FAILED'}",
        "What failed",
        "Worth knowing",
        "COCO, in points, against annotations",
        "COCO, in points, against the reference's detections taken for the truth",
    }


def test_hostile_names_are_shown_as_they_are() -> None:
    text = to_markdown(RECORDS["hostile"]())
    name = HOSTILE.encode("unicode_escape").decode("ascii").replace("\\xe9", "é").replace("\\ufffe", "\ufffe")
    assert name in tables_of(text)[0][0][2]  # the device, over its column
    assert any(f"note: {name}" in sentence or f"{name}: {name}" in sentence for sentence in sentences_of(text))
    assert HOSTILE not in text


@pytest.mark.parametrize(
    "word", ["@someone", "#123", "owner/repo#1", "https://x.example", "www.x.example", "a@b.example"]
)
def test_nobody_is_called_and_nothing_is_linked(word: str) -> None:
    """What GitHub makes links of in text, after Markdown, is broken up; it is shown all the same."""
    text = markdown(passing(notes=(word,)))
    assert word not in text
    assert any(sentence.endswith(word) for sentence in sentences_of(text))
    (entry,) = [token for token in PARSER.parse(text) if token.type == "inline" and shown(token).endswith(word)]
    raw = "".join(part.content for part in entry.children or [] if part.type != "html_inline")
    assert not re.search(r"@\w|#\d", raw)


def test_what_passed() -> None:
    text = markdown(passing())
    assert text.startswith("## edgemask validate: passed\n")
    sentences = sentences_of(text)
    assert sentences[0] == "nuclei.onnx (fp32, 10.7 MB, on cpu) against nuclei.safetensors (fp32, on torch)"
    assert sentences[1].startswith("cpu: passed. 80 images, 1 of them without objects; 1000 detections")
    assert "Time per image: 23.0 ms" in sentences[1]
    assert "What failed" not in headings_of(text)
    measured, metrics, by_size, *classes = tables_of(text)
    assert measured[:3] == [
        ["measured", "asked", "cpu"],
        ["matched share", "at least 99.9 %", "100 %"],
        ["mean mask IoU", "at least 0.995", "0.9999996"],
    ]
    assert measured[-1] == ["lowest mask IoU", "", "0.9981"]
    assert metrics[:2] == [
        ["metric", "reference", "cpu", "difference (95 % interval)"],
        ["box AP", "44.21", "44.21", "0 (-0.40 to +0.30)"],
    ]
    assert len(metrics) == 1 + 8
    assert by_size[1] == ["box AP small", "37.11", "37.11", "0"]
    assert [table[1] for table in classes] == 2 * [["bolt", "412", "50.00", "50.00", "0"]]
    last = text.rstrip().splitlines()[-1]
    assert last.startswith("<sub>2026-11-23T01:02:03+00:00, ")
    assert last.endswith("onnxruntime-gpu 1.31.1; report format 1.0</sub>")
    assert len(text) < 4000


def test_what_failed_stands_first() -> None:
    text = markdown(failing())
    measured = tables_of(text)[0]
    marks = ["FAILED" in row[2] for row in measured[1:]]
    assert marks == sorted(marks, reverse=True)
    assert marks.count(True) == sum(measure.failure is not None for measure in failing().measures)
    assert ["mean mask IoU", "at least 0.995", "FAILED: 0.9949996"] in measured
    difference = "FAILED: 2.13 points (95 % interval -2.53 to -1.83)"
    assert ["box AP difference", "at most 0.1 points", difference] in measured
    sentences = sentences_of(text)
    assert "cpu: op self-test: mask_roi_pool failed, a roi without area gives 1, not 0" in sentences
    assert "cpu: 1 image too large, left out: huge.png" in sentences
    assert "cpu: 2 images not usable, left out: cut.jpg, gone.png" in sentences
    assert any("the first that differs is mask_head" in sentence for sentence in sentences)
    assert ["cpu", "mask_head", "0.173", "2e-05"] in tables_of(text)[1]
    assert ["IMG_0007.jpg", "9 lost, mask IoU down to 0.412"] in tables_of(text)[-1]


def test_a_stage_alone_may_condemn() -> None:
    text = markdown(misread())
    assert headings_of(text)[:2] == ["edgemask validate: FAILED", "What failed"]
    assert f"cpu: {misread().failures[0]}" in sentences_of(text)


def test_devices_side_by_side() -> None:
    text = to_markdown(RECORDS["two devices"]())
    assert text.startswith("## edgemask validate: FAILED\n")
    measured, _, metrics, *_ = tables_of(text)
    assert measured[:2] == [
        ["measured", "asked", "cpu", "openvino:CPU"],
        ["matched share", "at least 99.9 %", "100 %", "FAILED: 98.947 %"],
    ]
    assert ["oks", "at least 0.9", "-", "FAILED: -"] in measured
    assert metrics[1] == ["box AP", "44.21", "44.21", "0 (-0.40 to +0.30)", "42.08", "-2.13 (-2.53 to -1.83)"]


def test_references_that_differ_have_a_column_each() -> None:
    other = passing(coco=coco("boxes", scale=0.5))
    metrics = tables_of(markdown(passing(coco=coco("boxes")), on(other, "openvino:CPU")))[1]
    assert metrics[0][1:] == [
        "reference, cpu",
        "cpu",
        "difference (95 % interval)",
        "reference, openvino:CPU",
        "openvino:CPU",
        "difference (95 % interval)",
    ]
    assert [metrics[1][1], metrics[1][4]] == ["44.21", "22.11"]


def test_without_metrics() -> None:
    for report in (semantic(), unmeasured()):
        assert [table[0][0] for table in tables_of(markdown(report))] == ["measured"]
    assert "FAILED: -" not in markdown(unmeasured())


def test_the_worst_classes_of_many() -> None:
    names = tuple(f"class {number}" for number in range(80))
    text = markdown(failing(class_names=names, coco=coco("boxes", drop=0.02, classes=names)))
    classes = next(table for table in tables_of(text) if table[0][0] == "class")
    assert len(classes) == 1 + 20
    assert classes[1] == ["class 0", "412", "50.00", "40.00", "-10.00"]
    assert "the 20 that lost the most of 79" in text


def test_a_single_class_has_no_table_of_its_own() -> None:
    text = markdown(passing(coco=coco("boxes", classes=CLASSES[:1])))
    assert "class" not in {table[0][0] for table in tables_of(text)}


def large(devices: int) -> str:
    """Many devices, classes, failures and images, all with names as long and as costly as can be."""
    name = "|" * 4000
    parity = replace(failing().parity, worst=(WorstImage(name, name),) * 10, problems=(name,) * 500)
    names = (name,) * 80
    report = failing(parity=parity, coco=coco("boxes", "masks", drop=0.01, classes=names), notes=(name,) * 50)
    return markdown(*(on(report, f"{name}{number}") for number in range(devices)))


@pytest.mark.parametrize("devices", [1, 3, 12])
def test_never_too_long(devices: int) -> None:
    text = large(devices)
    assert len(text) <= MOST_CHARACTERS
    assert re.search(r"\*\*\d+ lines were left out\*\*, this comment would be too long: the JSON report", text)
    for table in tables_of(text):
        assert {len(row) for row in table} == {len(table[0])}
    assert text.count("<details>") == text.count("</details>")
    assert text.rstrip().endswith("</sub>")
    assert text.startswith("## edgemask validate: FAILED\n")


def test_nothing_is_left_out_of_what_fits() -> None:
    for name in RECORDS.keys() - {"hostile"}:
        assert "left out**" not in to_markdown(RECORDS[name]())
