"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from edgemask.checks import printable

Item = TypeVar("Item")
_LINE_EVERY = 15.0  # seconds between two lines where there is no terminal
_SPIN_AFTER = 0.5  # seconds: what is shorter would only flicker


class Progress:
    """Wraps an iterable and shows how far it is; `note` adds a word behind the bar."""

    def __init__(self) -> None:
        self._note = ""

    def note(self, text: str) -> None:
        """Shows `text` behind the bar from the next item on."""
        self._note = text

    def __call__(self, items: Iterable[Item], title: str, total: int | None = None, start: int = 0) -> Iterator[Item]:
        """Yields the items.

        Args:
            items: what is worked on.
            title: a word that says what is done.
            total: number of items, where `items` does not tell.
            start: how many were done before.
        """
        self._note = ""
        if total is None and isinstance(items, Sized):
            total = len(items)
        show = self._bar if sys.stderr.isatty() else self._lines
        yield from show(items, title, total, start)

    def _bar(self, items: Iterable[Item], title: str, total: int | None, start: int) -> Iterator[Item]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")
            for item in items:
                yield item
                bar.update(task, advance=1, note=self._note)

    def _lines(self, items: Iterable[Item], title: str, total: int | None, start: int) -> Iterator[Item]:
        last = time.monotonic()
        for done, item in enumerate(items, start + 1):
            yield item
            now = time.monotonic()
            if now - last >= _LINE_EVERY:
                last = now
                of = "" if total is None else f" of {total}"
                print(f"{title}: {done}{of} {self._note}".rstrip(), file=sys.stderr, flush=True)


progress = Progress()


@contextlib.contextmanager
def waiting(title: str) -> Iterator[None]:
    """Says that a call goes on which cannot tell how far it is; of one that is short, nothing.

    On a terminal the seconds run behind `title`, elsewhere a line comes every 15 s. Exceptions pass.

    Args:
        title: what is being done.
    """
    ended = threading.Event()
    stream = sys.stderr
    show = _spin if stream.isatty() else _lines_until
    thread = threading.Thread(target=show, args=(printable(title), ended, stream), name="edgemask waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _spin(title: str, ended: threading.Event, stream: TextIO) -> None:
    if ended.wait(_SPIN_AFTER):
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    # A file name is no markup.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with (
        contextlib.suppress(OSError, ValueError),
        RichProgress(*columns, console=Console(file=stream), transient=True) as bar,
    ):
        bar.add_task(title, total=None)
        ended.wait()


def _lines_until(title: str, ended: threading.Event, stream: TextIO) -> None:
    start = time.monotonic()
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more: the work itself goes on
        while not ended.wait(_LINE_EVERY):
            print(f"{title}: {time.monotonic() - start:.0f} s", file=stream, flush=True)
