"""A validation as one HTML page: what is in it, and that nothing gets out of it."""

import base64
import functools
import hashlib
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
import report_record
from report_record import HOSTILE, RECORDS, failing, gallery_entry, passing

from edgemask.checks import printable
from edgemask.errors import DependencyMissing
from edgemask.report.html import to_html
from edgemask.validation.reports import Validation, ValidationReport

MOST_BYTES = 60_000  # of a page without pictures
NO_CLOSING = {"meta", "link", "img", "input"}
PICTURE = re.compile(r"data:image/jpeg;base64,[\w+/=]+")


@dataclass
class Parsed(HTMLParser):
    """A page as a parser sees it: its tags in order, its text, and what is not closed as it was opened."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    script: str = ""
    style: str = ""
    torn: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in NO_CLOSING:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.torn.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside in ("script", "style"):
            setattr(self, inside, getattr(self, inside) + data)
        elif data.strip():
            self.text.append(" ".join(data.split()))

    def values(self, name: str) -> list[str]:
        """What an attribute is set to, everywhere."""
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def parsed(page: str) -> Parsed:
    parser = Parsed()
    parser.feed(page)
    parser.close()
    parser.torn += parser._open
    return parser


def page_of(*reports: ValidationReport) -> str:
    return to_html(Validation(reports))


@functools.cache
def page_named(name: str) -> str:
    return to_html(RECORDS[name]())


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_a_sound_page(name: str) -> None:
    page = page_named(name)
    parser = parsed(page)
    assert page.startswith("<!doctype html>\n")
    assert page.encode("utf-8")
    assert parser.torn == []
    identifiers = parser.values("id")
    assert len(set(identifiers)) == len(identifiers)
    for name in ("aria-labelledby", "aria-controls"):
        assert {word for value in parser.values(name) for word in value.split()} <= set(identifiers)
    assert all(link.removeprefix("#") in identifiers for link in parser.values("href") if link != "data:,")


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_gets_out(name: str) -> None:
    page = page_named(name)
    parser = parsed(page)
    for name in ("src", "href", "srcset", "action", "formaction", "poster", "xlink:href", "data", "background"):
        assert [value for value in parser.values(name) if not value.startswith(("data:", "#"))] == []
    assert [key for _, attributes in parser.tags for key in attributes if key.startswith("on")] == []
    assert {tag for tag, _ in parser.tags} & {"iframe", "object", "embed", "base", "audio", "video"} == set()
    for text in (parser.script, parser.style):
        assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttpRequest|eval\(|innerHTML", text)
    assert "</" not in parser.script


def test_only_the_pages_own_script_may_run() -> None:
    parser = parsed(page_named("failing"))
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in parser.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(parser.script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert [tag for tag, _ in parser.tags].count("script") == 1


def test_names_from_outside_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has the same elements with the same attributes as one with harmless names in their place."""
    page = page_named("hostile")
    parser = parsed(page)
    assert printable(HOSTILE).replace("\n", " ") in parser.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", page)
    monkeypatch.setattr(report_record, "HOSTILE", "harmless")
    tame = parsed(to_html(RECORDS["hostile"]()))
    assert [(tag, [*attributes]) for tag, attributes in parser.tags] == [
        (tag, [*attributes]) for tag, attributes in tame.tags
    ]
    assert parser.script == tame.script


@pytest.mark.parametrize("note", ["\u2028", "\u2029", "\x7f", "\u2066"])
def test_characters_that_steer_are_shown_as_escapes(note: str) -> None:
    page = page_of(passing(notes=(f"a{note}b",)))
    assert note not in page
    assert f"a{printable(note)}b" in parsed(page).text


@pytest.mark.parametrize("name", ["passing", "failing", "semantic", "keypoints", "unmeasured"])
def test_page_is_small(name: str) -> None:
    assert len(PICTURE.sub("", page_named(name)).encode()) < MOST_BYTES


def test_everything_of_the_record_is_said() -> None:
    report = failing()
    text = parsed(page_of(report)).text
    everything = " ".join(text)
    assert "FAILED, first at the stage mask_head" in text
    for failure in report.failures:
        assert failure in text
    assert report.parity.headline in text
    for said in ("cut.jpg", "image file is truncated", "huge.png", "gates.toml", "last/report.json", report.notes[0]):
        assert said in text, said
    assert "80 chosen, 77 compared, of which 12 came from an interrupted run." in everything
    assert f"sha256 {report.model.sha256}" in text
    assert report.environment.processor in text
    assert "a roi without area gives 1, not 0" in text
    assert "another shape, or no number" in text
    assert "at most 0.5 % below the reference's, fails only where 97.5 % sure" in text
    assert "95 % interval -2.53 to -1.83" in text
    assert text.count("0.9949996") == 2  # at a glance, too, no miss looks like a hit
    assert "0.995" not in text


def test_what_failed_stands_first() -> None:
    text = parsed(page_of(failing())).text
    start = text.index("Measured and asked")
    results = [word for word in text[start : text.index("Where it diverged")] if word in ("passed", "FAILED")]
    assert results == sorted(results, key=["FAILED", "passed"].index)
    assert {"FAILED"} <= set(results)


def test_the_first_bad_stage_is_marked_and_no_other() -> None:
    text = parsed(page_of(failing())).text
    assert text.count("first bad stage") == 1
    assert text[text.index("first bad stage") - 1] == "mask_head"
    assert "differs" in text[text.index("masks", text.index("first bad stage")) :]


def test_a_page_without_pictures_names_the_worst_images() -> None:
    text = parsed(page_of(failing(gallery=()))).text
    assert "The worst images" in text
    assert "9 lost, mask IoU down to 0.412" in text
    assert "The worst images" not in parsed(page_of(failing())).text


def test_pictures_are_those_of_the_record() -> None:
    report = failing()
    sources = [source for source in parsed(page_of(report)).values("src") if source]
    pictures = [base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) for source in sources]
    assert pictures == [side for entry in report.gallery for side in (entry.reference, entry.candidate)]


def test_mismatches_are_boxes_in_pixels_of_the_original() -> None:
    entry = gallery_entry("a.jpg", "", ("lost", "ghost"), damage=2.0)
    parser = parsed(page_of(failing(gallery=(entry,))))
    (canvases,) = ({attributes["viewbox"] for tag, attributes in parser.tags if attributes.get("class") == "marks"},)
    assert canvases == {"0 0 640 480"}
    boxes = [attributes for tag, attributes in parser.tags if tag == "rect" and "data-kind" in attributes]
    assert [(box["class"], box["x"], box["y"], box["width"], box["height"]) for box in boxes] == [
        ("lost", "0.0", "3.0", "9.0", "17.5"),
        ("ghost absent", "4.0", "3.0", "9.0", "17.5"),
        ("lost absent", "0.0", "3.0", "9.0", "17.5"),
        ("ghost", "4.0", "3.0", "9.0", "17.5"),
    ]


def test_jinja_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyMissing, match="jinja2") as caught:
        page_of(passing())
    assert caught.value.remedy == "pip install 'edgemask[validate]'"
