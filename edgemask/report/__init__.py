"""Reports: one record, as JSON, on a terminal, as Markdown, as JUnit XML and as a page."""

from edgemask.report.html import to_html
from edgemask.report.junit import to_junit
from edgemask.report.markdown import to_markdown
from edgemask.report.records import to_json
from edgemask.report.tables import table
from edgemask.report.terminal import print_validation

__all__ = ["print_validation", "table", "to_html", "to_json", "to_junit", "to_markdown"]
