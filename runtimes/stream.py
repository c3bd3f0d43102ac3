"""Reading, the graph and the results of images that follow each other, at the same time and in order."""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from edgemask.checks import Described, refuse, whole

_MOST = 9999  # of a stream's batch, and of its images in waiting

Boxes = TypeVar("Boxes")
Source = TypeVar("Source")
Prepared = TypeVar("Prepared")
Outputs = TypeVar("Outputs")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Steps(Generic[Source, Prepared, Outputs, Result]):
    """What is done with each image; each step runs in threads of its own.

    Args:
        prepare: makes the graph's input of what an iterator gave.
        run: runs the graph on neighbours that fit each other.
        finish: makes the result of one of them, of the graph's outputs and the number in the run.
        fit: whether two images may be in one run.
        check: raises where results may no longer be waited for, such as in a forked child.
    """

    prepare: Callable[[Source], Prepared]
    run: Callable[[Sequence[Prepared]], Outputs]
    finish: Callable[[Outputs, int, Prepared], Result]
    fit: Callable[[Prepared, Prepared], bool]
    check: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing comes behind it; with an error, this is the error's place in the order."""

    error: BaseException | None = None


_NONE = _End()


def streamed(
    sources: Iterable[Source],
    boxes: Iterable[Boxes] | None,
    steps: Steps[tuple[Source, Boxes | tuple[()]], Prepared, Outputs, Result],
    *,
    fixed_batch: int | None,
    batch: int,
    ahead: int,
    runs: int,
) -> Generator[Result, None, None]:
    """The results of images, worked on by `overlapped`; see `Detector.stream`.

    Args:
        sources: images.
        boxes: proposals for each, or None.
        steps: what is done with an image and its proposals.
        fixed_batch: images that the graph takes at a time; None: any number.
        batch: images that a run waits for.
        ahead: images that may be waiting.
        runs: how many may be under way at a time.

    Raises:
        UsageError: a number that cannot be meant, no iterable, or, in its place, boxes for more or for fewer images.
    """
    most = fixed_batch or whole(1, _MOST)("batch", batch)
    least = whole(1, most)("batch", batch)
    whole(0, _MOST)("ahead", ahead)
    if not isinstance(sources, Iterable) or isinstance(sources, str | Image.Image | np.ndarray):
        got = Described(f"{type(sources).__module__}.{type(sources).__qualname__}")
        refuse("sources", "an iterable of images", got, "for one image: predict(image); of an array: list(images)")
    given, own = iter(sources), None if boxes is None else iter(boxes)
    return overlapped(_paired(given, own), steps, least=least, most=most, ahead=ahead, runs=runs, closing=(given, own))


def _paired(sources: Iterator[Source], boxes: Iterator[Boxes] | None) -> Iterator[tuple[Source, Boxes | tuple[()]]]:
    for source in sources:
        own = () if boxes is None else next(boxes, _NONE)
        if isinstance(own, _End):
            refuse("proposals", "one array for each image", Described("fewer"))
        yield source, own
    if boxes is not None and next(boxes, _NONE) is not _NONE:
        refuse("proposals", "one array for each image", Described("more"))


def overlapped(
    sources: Iterable[Source],
    steps: Steps[Source, Prepared, Outputs, Result],
    *,
    least: int,
    most: int,
    ahead: int,
    runs: int = 1,
    closing: Sequence[object] = (),
) -> Generator[Result, None, None]:
    """Yields the result of each source, in order, while the next ones are worked on.

    At most `ahead` sources, `runs` runs and one more for each other step are taken beyond what the consumer took. An
    error of the iterable or of a step is raised in its place, behind all results before it. However the generator ends,
    its threads have ended then too, as soon as the iterable and the graph let go of them.

    Args:
        sources: iterated in a thread of its own.
        steps: what is done with them.
        least: sources that a run waits for.
        most: sources that a run takes where as many have been read.
        ahead: sources that may be waiting.
        runs: how many may be under way at a time.
        closing: iterators to close in the end, by the thread that iterated over them, where they can be closed.
    """
    process = os.getpid()
    work = _Work(sources, steps, least, most, ahead, runs, closing)
    try:
        work.start()
        while True:
            steps.check()
            taken = work.finished.get()
            if isinstance(taken, _End):
                if taken.error is not None:
                    raise taken.error
                return
            work.tickets.release()
            yield taken
    finally:
        if os.getpid() == process:  # a forked child has the locks as they were, and not the threads
            work.stop()


class _Work(Generic[Source, Prepared, Outputs, Result]):
    """The threads and the queues between them. Tickets bound what is in all of them together."""

    def __init__(
        self,
        sources: Iterable[Source],
        steps: Steps[Source, Prepared, Outputs, Result],
        least: int,
        most: int,
        ahead: int,
        runs: int,
        closing: Sequence[object],
    ) -> None:
        self.finished: SimpleQueue[Result | _End] = SimpleQueue()
        self.tickets = threading.Semaphore(ahead + (2 + runs) * most)
        self._sources, self._steps, self._least, self._most, self._closing = sources, steps, least, most, closing
        self._read: SimpleQueue[Prepared | _End] = SimpleQueue()
        self._ran: SimpleQueue[tuple[list[Prepared], Future[Outputs]] | _End] = SimpleQueue()
        self._runs = threading.Semaphore(runs)
        self._stopping = False
        self._threads = [
            threading.Thread(target=_to_the_end, args=(work, out), name=f"edgemask {name}", daemon=True)
            for name, work, out in (
                ("read", self._prepare, self._read),
                ("run", self._run, self._ran),
                ("finish", self._finish, self.finished),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads and waits for them."""
        self._stopping = True
        self.tickets.release()
        # A generator that nobody holds any more may be collected by one of its own threads.
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()

    def _prepare(self) -> None:
        with ExitStack() as ending:
            for one in self._closing:
                close = getattr(one, "close", None)
                if close is not None:
                    ending.callback(close)
            sources = iter(self._sources)
            while self._has_ticket():
                try:
                    source = next(sources)
                except StopIteration:
                    return
                self._read.put(self._steps.prepare(source))

    def _has_ticket(self) -> bool:
        self.tickets.acquire()
        return not self._stopping

    def _run(self) -> None:
        with ThreadPoolExecutor(thread_name_prefix="edgemask run") as pool:
            following = self._read.get()
            while not isinstance(following, _End):
                self._runs.acquire()  # before images are taken: the longer it waits, the fuller a batch can be
                batch, behind = self._batch(following)
                if self._stopping:
                    return
                running = pool.submit(self._steps.run, batch)
                running.add_done_callback(lambda _: self._runs.release())
                self._ran.put((batch, running))
                following = self._read.get() if behind is None else behind
        _raise_error_of(following)

    def _batch(self, first: Prepared) -> tuple[list[Prepared], Prepared | _End | None]:
        """Images for one run, and what was read behind them, if anything was."""
        batch = [first]
        while len(batch) < self._most:
            try:
                following = self._read.get(block=len(batch) < self._least)
            except Empty:
                break
            if isinstance(following, _End) or not self._steps.fit(first, following):
                return batch, following
            batch.append(following)
        return batch, None

    def _finish(self) -> None:
        while not isinstance(taken := self._ran.get(), _End):
            batch, running = taken
            outputs = running.result()
            for index, one in enumerate(batch):
                if self._stopping:
                    return
                self.finished.put(self._steps.finish(outputs, index, one))
        _raise_error_of(taken)


def _to_the_end(work: Callable[[], None], out: "SimpleQueue[_End]") -> None:
    try:
        work()
    except BaseException as error:
        out.put(_End(error))
    else:
        out.put(_End())


def _raise_error_of(end: _End) -> None:
    if end.error is not None:
        raise end.error
