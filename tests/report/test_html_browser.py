"""The HTML page of a validation in a browser: what can be clicked, typed and tapped, and that it asks for nothing."""

import functools
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_record import RECORDS, failing, gallery_entry, on, passing

from edgemask.report.html import to_html
from edgemask.validation.reports import Validation, ValidationReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GALLERY = (
    gallery_entry("one.jpg", "2 lost", ("lost", "lost", "mask"), damage=3.0, classes=("bolt", "nut")),
    gallery_entry("two.jpg", "1 moved", ("box", "score", "ghost", "flip"), damage=2.0, classes=("bolt", "nut")),
    gallery_entry("three.jpg", "1 lost", ("lost",), damage=1.0, classes=("bolt",)),
    gallery_entry("four.jpg", "", (), damage=0.0, classes=("washer",)),
)


def page_of(*reports: ValidationReport) -> str:
    return to_html(Validation(reports))


@functools.cache
def gallery_page() -> str:
    return page_of(failing(gallery=GALLERY))


def missing_browser() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'edgemask[dev]'"
    return None if chromium() else "no Chromium on this machine (Debian, Ubuntu: apt install chromium)"


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if reason := missing_browser():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium())
        yield started
        started.close()


@dataclass
class Opener:
    """Opens pages, and takes down what goes wrong on them and what they ask for."""

    browser: "Browser"
    folder: Path
    complaints: list[str] = field(default_factory=list)

    def open(self, page: str, width: int = 1280, height: int = 800, **options: Any) -> "Page":
        path = self.folder / f"{len(list(self.folder.iterdir()))}.html"
        path.write_text(page, encoding="utf-8")
        opened = self.browser.new_page(viewport={"width": width, "height": height}, **options)
        opened.set_default_timeout(20_000)
        opened.on("console", lambda message: self.complaints.append(message.text))
        opened.on("pageerror", lambda error: self.complaints.append(str(error)))
        opened.on("request", lambda request: self._note(request.url, path.as_uri()))
        opened.goto(path.as_uri())
        return opened

    def _note(self, address: str, own: str) -> None:
        if address.partition("#")[0] != own and not address.startswith("data:"):
            self.complaints.append(f"asked for {address}")

    def close(self) -> None:
        for context in self.browser.contexts:
            context.close()


@pytest.fixture
def opener(browser: "Browser", tmp_path: Path) -> Iterator[Opener]:
    made = Opener(browser, tmp_path)
    yield made
    made.close()
    assert made.complaints == []


def shown_names(page: "Page") -> list[str]:
    return page.locator(".entry:visible h4").all_inner_texts()


def test_filters_work_together(opener: Opener) -> None:
    page = opener.open(gallery_page())
    left = page.locator(".filters output")
    assert left.inner_text() == "4 of 4 images"
    lost, choose = page.get_by_role("button", name="lost 2"), page.locator("select")
    lost.click()
    assert shown_names(page) == ["one.jpg", "three.jpg"]
    assert left.inner_text() == "2 of 4 images"
    choose.select_option(label="nut (2)")
    assert shown_names(page) == ["one.jpg"]
    assert left.inner_text() == "1 of 4 images"
    # Of what one.jpg has, only the lost nut: the bolts that differ are those of another class.
    assert page.locator(".entry:visible .reference .marks rect:visible").count() == 1
    lost.click()
    assert shown_names(page) == ["one.jpg", "two.jpg"]
    page.get_by_role("button", name="invented 1").click()
    assert shown_names(page) == []
    assert left.inner_text() == "0 of 4 images"
    page.get_by_role("button", name="show all").click()
    assert len(shown_names(page)) == 4
    assert page.get_by_role("button", name="show all").count() == 0
    choose.select_option(label="washer (1)")
    assert shown_names(page) == ["four.jpg"]


def test_several_kinds_add_up(opener: Opener) -> None:
    page = opener.open(gallery_page())
    page.get_by_role("button", name="invented 1").click()
    page.get_by_role("button", name="lost 2").press("Enter")
    assert shown_names(page) == ["one.jpg", "two.jpg", "three.jpg"]


def test_boxes_can_be_hidden(opener: Opener) -> None:
    page = opener.open(gallery_page())
    boxes = page.locator(".entry .marks:visible")
    assert boxes.count() == 6
    page.locator(".filters .show-marks").uncheck()
    assert boxes.count() == 0
    page.locator(".filters .show-marks").check()
    assert boxes.count() == 6


def test_boxes_lie_where_they_are_in_the_picture(opener: Opener) -> None:
    page = opener.open(gallery_page())
    picture = page.locator(".entry").first.locator(".reference .picture")
    whole, box = picture.bounding_box(), picture.locator("rect").nth(1).bounding_box()
    assert whole is not None
    assert box is not None
    # The second box is [4, 3, 13, 20.5] on an image of 640 x 480; its line is two pixels wide.
    assert box["x"] - whole["x"] == pytest.approx(4 / 640 * whole["width"], abs=1.5)
    assert box["y"] - whole["y"] == pytest.approx(3 / 480 * whole["height"], abs=1.5)
    assert box["height"] == pytest.approx(17.5 / 480 * whole["height"], abs=2.5)
    assert whole["width"] / whole["height"] == pytest.approx(640 / 480, abs=0.01)


def test_an_image_is_shown_large(opener: Opener) -> None:
    page = opener.open(gallery_page())
    page.get_by_role("button", name="lost 2").click()
    page.locator(".entry:visible .pair").first.click()
    large = page.get_by_role("dialog")
    assert large.get_by_role("heading").inner_text() == "one.jpg"
    assert large.locator("output").inner_text() == "1 of 2"
    assert large.locator("img:visible").count() == 2
    assert large.locator("li").count() == 3
    assert large.get_by_role("button", name="Previous image").is_disabled()
    page.keyboard.press("ArrowRight")
    assert large.get_by_role("heading").inner_text() == "three.jpg"
    assert large.get_by_role("button", name="Next image").is_disabled()
    page.keyboard.press("ArrowRight")
    assert large.locator("output").inner_text() == "2 of 2"
    page.keyboard.press("ArrowLeft")
    large.get_by_role("button", name="Next image").click()
    assert large.get_by_role("heading").inner_text() == "three.jpg"
    large.get_by_role("button", name="model").click()
    assert large.locator("img:visible").evaluate_all("images => images.map((image) => image.alt)") == [
        "three.jpg with what the model found"
    ]
    page.keyboard.press("Escape")
    large.wait_for(state="hidden")
    page.locator("[aria-label='Large: three.jpg']:focus").wait_for()


def test_an_image_is_opened_and_closed_by_keyboard(opener: Opener) -> None:
    page = opener.open(gallery_page())
    page.get_by_role("button", name="Large: two.jpg").press("Enter")
    large = page.get_by_role("dialog")
    assert large.get_by_role("heading").inner_text() == "two.jpg"
    large.get_by_role("button", name="Close").press("Enter")
    large.wait_for(state="hidden")


def test_a_difference_in_the_list_shows_its_box(opener: Opener) -> None:
    page = opener.open(gallery_page())
    page.locator(".entry .open").first.click()
    large = page.get_by_role("dialog")
    large.locator("li").nth(2).hover()
    assert large.locator(".hot").evaluate_all("marks => marks.map((mark) => mark.dataset.kind)") == ["mask", "mask"]
    large.locator("li").nth(0).hover()
    assert large.locator(".hot").evaluate_all("marks => marks.map((mark) => mark.dataset.kind)") == ["lost", "lost"]


def test_devices_are_tabs(opener: Opener) -> None:
    page = opener.open(page_of(passing(), on(failing(), "openvino:CPU"), on(passing(), "cuda")))
    tabs = page.get_by_role("tab")
    chosen = page.get_by_role("tab", selected=True)
    assert tabs.all_inner_texts() == ["cpu passed", "openvino:CPU FAILED", "cuda passed"]
    assert chosen.inner_text() == "openvino:CPU FAILED"  # the first that failed
    assert page.locator(".verdict:visible h2").all_inner_texts() == ["FAILED, first at the stage mask_head"]
    tabs.first.click()
    assert page.locator(".verdict:visible h2").all_inner_texts() == ["Passed"]
    page.keyboard.press("ArrowLeft")
    assert chosen.inner_text() == "cuda passed"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert chosen.inner_text() == "openvino:CPU FAILED"
    assert page.locator(".device:visible").count() == 1
    page.emulate_media(media="print")
    assert page.locator(".device:visible").count() == 3


def test_classes_are_sorted(opener: Opener) -> None:
    page = opener.open(page_of(failing()))
    table = page.locator(".sortable").first

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    assert column(1) == ["bolt", "nut", "washer", "hex key"]  # lost most first, without objects last
    table.get_by_role("button", name="Difference").click()
    assert column(1)[-2:] == ["bolt", "hex key"]
    table.get_by_role("button", name="Class").click()
    assert column(1) == ["bolt", "hex key", "nut", "washer"]
    table.get_by_role("button", name="Class").click()
    assert column(1) == ["washer", "nut", "hex key", "bolt"]
    table.get_by_role("button", name="Objects").press("Enter")
    assert column(2) == ["0", "212", "312", "412"]
    assert table.locator("[aria-sort]").all_inner_texts() == ["Objects"]


@pytest.mark.parametrize("name", ["failing", "semantic", "hostile"])
def test_a_phone_scrolls_one_way(opener: Opener, name: str) -> None:
    page = opener.open(to_html(RECORDS[name]()), 360, 740, has_touch=True)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    if page.locator(".entry:visible").count():
        page.locator(".entry:visible .pair").first.tap()
        assert page.get_by_role("dialog").is_visible()
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360


def test_everything_is_there_without_a_script(opener: Opener) -> None:
    page = opener.open(page_of(passing(), on(failing(gallery=GALLERY), "cuda")), java_script_enabled=False)
    assert page.locator(".device:visible").count() == 2
    assert page.locator(".entry img:visible").count() == 8
    assert page.locator(".filters:visible").count() == 0
    assert page.locator(".open:visible").count() == 0
    assert page.locator("dialog:visible").count() == 0


def test_the_policy_holds(browser: "Browser", tmp_path: Path) -> None:
    """What got into a page all the same could neither run nor call anybody."""
    page = Opener(browser, tmp_path).open(page_of(passing()))
    blocked = page.evaluate(
        """async () => {
            const blocked = [];
            document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = new Image();
            image.src = "http://127.0.0.1:9/a.png";
            await fetch("http://127.0.0.1:9/b").catch(() => null);
            for (let turn = 0; turn < 200 && blocked.length < 3; turn++) {
                await new Promise((done) => setTimeout(done, 50));
            }
            return [blocked.sort(), window.ran ?? false];
        }"""
    )
    page.context.close()
    assert blocked == [["connect-src", "img-src", "script-src-elem"], False]
