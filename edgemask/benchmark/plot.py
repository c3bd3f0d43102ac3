"""Latency and accuracy of the contestants, as a picture or as a page."""

import html

from edgemask.benchmark.accuracy import METRICS, common_metric
from edgemask.benchmark.records import BenchReport
from edgemask.benchmark.scatter import Point, scatter
from edgemask.checks import printable

_TITLE = "Latency and accuracy"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:800px;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse}"
    "td,th{padding:.2rem .8rem .2rem 0;text-align:left}td+td,th+th{text-align:right}th{color:#59636e;font-weight:400}"
)


def plot_svg(report: BenchReport) -> str:
    """Returns the plot as an SVG image; encode it as UTF-8.

    The median time of an image in memory, against the most telling metric that the most of the contestants have, both
    as measured. Contestants without it are named below.
    """
    metric = common_metric([one.accuracy for one in report.contestants if one.accuracy is not None])
    points, missing = [], []
    for result in report.contestants:
        if metric is not None and result.accuracy is not None and metric in result.accuracy.values:
            points.append(Point(result.title, result.stages["total"].median, result.accuracy.values[metric]))
        else:
            missing.append(f"{result.title}: {result.stages['total'].median:.4g} ms, accuracy not known")
    y_name = "accuracy: no report of a validation has any of these contestants" if metric is None else METRICS[metric]
    machine = f"{report.environment.processor}, threads: {report.environment.threads}, {report.environment.date}"
    return scatter(
        _TITLE,
        points,
        x_name="milliseconds for an image in memory, median",
        x_unit="ms",
        y_name=y_name,
        remarks=[*missing, machine],
    )


def plot_page(report: BenchReport) -> str:
    """Returns a page with the plot, its figures and the notes, which needs nothing else; encode it as UTF-8."""
    known = sorted({name for one in report.contestants if one.accuracy for name in one.accuracy.values})
    rows = [
        [
            result.title,
            f"{result.stages['total'].median:.4g}",
            *(_figure(None if result.accuracy is None else result.accuracy.values.get(name)) for name in known),
            "" if result.accuracy is None else result.accuracy.report,
        ]
        for result in report.contestants
    ]
    head = ["contestant", "ms", *(METRICS[name] for name in known), "from"]
    notes = "".join(f"<li>{_escaped(note)}</li>" for note in report.notes)
    table = "".join(_row("td", row) for row in rows)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"{plot_svg(report)}<table><thead>{_row('th', head)}</thead><tbody>{table}</tbody></table>"
        f"<ul>{notes}</ul></body></html>\n"
    )


def _row(cell: str, values: list[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{_escaped(value)}</{cell}>' for value in values)}</tr>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
