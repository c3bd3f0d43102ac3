"""Rows as a table."""

import io
import math

from rich.console import Console
from rich.text import Text

from edgemask.report import table


def printed(rows: list[dict[str, object]], width: int = 100, title: str = "Title") -> list[str]:
    text = io.StringIO()
    Console(width=width, file=text, highlight=False).print(table(title, rows))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_tables() -> None:
    lines = printed(
        [
            {"name": "[red]a[/red]\x1b[31m", "share": 0.123456, "ok": True},
            {"name": "b", "share": math.nan, "more": 7},
            {"name": Text("c [bold]"), "share": None, "ok": False},
        ]
    )
    assert lines[0] == "Title"
    assert lines[1].split() == ["name", "share", "ok", "more"]
    assert lines[2].split() == ["[red]a[/red]\\x1b[31m", "0.1235", "yes"]
    assert lines[3].split() == ["b", "-", "7"]
    assert lines[4].split() == ["c", "[bold]", "no"]


def test_what_is_too_long_goes_on_in_the_next_line() -> None:
    lines = printed([{"name": "x" * 50, "words": "one two three"}], width=40)
    assert "".join(lines).count("x") == 50
    assert "".join(lines).isascii()
    assert max(map(len, lines)) <= 40


def test_without_title() -> None:
    assert printed([{"name": "b"}], title="") == ["name", "b"]
