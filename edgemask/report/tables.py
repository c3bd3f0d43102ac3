"""Records of this package as tables on a terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from edgemask.checks import printable


def table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Returns a table with a column for each key of the rows; figures stand right, what is missing is empty.

    Control characters and markup in the values are shown as they are written; a `Text` keeps its style.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in columns:
        figures = all(isinstance(row.get(name), int | float | None) for row in rows)
        # Where a cell has too little room its text goes on in the next line, rather than end in an ellipsis.
        made.add_column(
            Text(printable(name)),
            justify="right" if figures else "left",
            header_style="dim",
            overflow="fold",
            no_wrap=False,
        )
    for row in rows:
        made.add_row(*(_cell(row.get(name)) for name in columns))
    return made


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(_shown(value))


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return printable(str(value))
