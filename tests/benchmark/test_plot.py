"""The plot of latency against accuracy: sound XML, points where they belong, nobody left out without a word."""

import re
from xml.etree import ElementTree

import pytest
from contenders import record, result

from edgemask.benchmark import plot_page, plot_svg
from edgemask.benchmark.records import Accuracy
from edgemask.benchmark.scatter import Point, scatter

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>&\x1b[31m.onnx"


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def circles(root: ElementTree.Element) -> list[tuple[float, float, bool]]:
    found = root.iter(f"{SVG}circle")
    return [(float(one.attrib["cx"]), float(one.attrib["cy"]), "best" in one.attrib["class"]) for one in found]


def words(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def plotted(*points: Point) -> ElementTree.Element:
    return drawn(scatter("t", points, x_name="x", x_unit="ms", y_name="y", remarks=["r"]))


def test_points_lie_where_their_values_are() -> None:
    """Axes from 0 to 300 ms and 0.405 to 0.435: the plot lies between x 70 and 736, y 376 and 56."""
    root = plotted(Point("a", 100, 0.41), Point("b", 200, 0.43), Point("c", 250, 0.42))
    assert circles(root) == [(292.0, 322.7, True), (514.0, 109.3, True), (625.0, 216.0, False)]
    (front,) = (path for path in root.iter(f"{SVG}path") if path.attrib["class"] == "front")
    assert front.attrib["d"] == "M292.0 322.7H514.0V109.3H736"
    assert "1  a: 100 ms, 0.41" in words(root)


def test_latencies_of_other_orders_get_a_logarithmic_axis() -> None:
    root = plotted(Point("a", 10, 0.4), Point("b", 100, 0.5), Point("c", 1000, 0.6))
    (left, *_), (middle, *_), (right, *_) = circles(root)
    assert (left, right) == (70, 736)
    assert middle == pytest.approx((left + right) / 2)
    assert {"10", "20", "50", "100", "1000"} <= set(words(root))


@pytest.mark.parametrize("points", [[], [Point("a", 5, 0.4)], [Point("a", 5, 0.0), Point("b", 5, 0.0)]])
def test_few_points_are_drawn_too(points: list[Point]) -> None:
    root = plotted(*points)
    assert len(circles(root)) == len(points)
    for x, y, _ in circles(root):
        assert 70 <= x <= 736
        assert 56 <= y <= 376
    assert "r" in words(root)


def test_equal_points_are_on_the_front_once() -> None:
    root = plotted(Point("slow", 9, 0.5), Point("a", 5, 0.5), Point("b", 5, 0.4))
    assert [best for *_, best in circles(root)] == [False, True, False]


def test_a_contestant_without_accuracy_is_listed_below() -> None:
    known = result(accuracy=Accuracy("r.json", 8, {"mask_ap": 0.41, "box_ap": 0.5}))
    root = drawn(plot_svg(record(known, result("b.onnx", 50.0))))
    assert len(circles(root)) == 1
    assert {"mask AP", "1  a.onnx on cpu: 20 ms, 0.41", "b.onnx on cpu: 50 ms, accuracy not known"} <= set(words(root))
    assert "Any CPU, threads: 2, 2026-11-23T01:02:03+00:00" in words(root)


def test_a_plot_of_nobody_says_so() -> None:
    root = drawn(plot_svg(record(result())))
    assert circles(root) == []
    assert any(text.startswith("accuracy: no report") for text in words(root))


def test_names_from_outside_are_shown_as_they_are() -> None:
    accuracy = Accuracy(HOSTILE, 8, {"box_ap": 0.5})
    report = record(result(HOSTILE, accuracy=accuracy), notes=(HOSTILE,))
    root = drawn(plot_svg(report))
    assert any(r"script>&\x1b[31m.onnx on cpu: 20 ms, 0.5" in text for text in words(root))
    page = plot_page(report)
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;/script&gt;") >= 2


def test_page_needs_nothing_else() -> None:
    page = plot_page(record(result(accuracy=Accuracy("r.json", 8, {"mask_ap": 0.41})), result("b.onnx", 50.0)))
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)=|url\(|@import", page) == []
    assert "<td>a.onnx on cpu</td><td>20</td><td>0.41</td><td>r.json</td>" in page
    assert "<td>b.onnx on cpu</td><td>50</td><td></td><td></td>" in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
