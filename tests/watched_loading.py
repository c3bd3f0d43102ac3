"""Loads image files in a child process and watches it: what came of each, in what time, with how much memory.

from watched_loading import Watch
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from image_bytes import encoded

from edgemask.errors import EdgemaskError
from edgemask.images import load_image

REFUSED, PICTURE = "typed error", "picture"
CAN_WATCH = sys.platform == "linux"  # where the kernel keeps the peak of a process, and can forget it
_START = 60.0  # seconds for the imports of the child

Loader = Callable[[Path], Any]


class Watched(NamedTuple):
    """What came of a file: `REFUSED`, `PICTURE`, or in words what must not be."""

    outcome: str
    message: str
    seconds: float
    peak: float  # MiB, beyond what the process held when it was ready


class Watch:
    """A process that loads files; a new one takes the place of one that crashed or hung."""

    def __init__(self, folder: Path, loader: Loader = load_image, limit: float = 5.0) -> None:
        self._path, self._loader, self._limit = folder / "image", loader, limit
        self._start()

    def load(self, content: bytes) -> Watched:
        self._path.write_bytes(content)
        self._connection.send(self._path)
        if not self._connection.poll(self._limit):
            self._stop()
            self._start()
            return Watched("hang", "", self._limit, 0)
        try:
            watched: Watched = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._start()
            return Watched(f"crash with exit code {code}", "", 0, 0)
        return watched

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._loader, self._path), daemon=True)
        self._process.start()
        other.close()
        assert self._connection.poll(_START), "the child process does not start"
        assert self._connection.recv() == "ready"

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, loader: Loader, path: Path) -> None:
    for kind in ("JPEG", "PNG", "BMP", "WEBP"):  # Pillow loads its plugins with the first file of a format
        path.write_bytes(encoded(kind))
        load_image(path)
    before = _memory("VmRSS")
    connection.send("ready")
    while True:
        path = connection.recv()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        start = time.perf_counter()
        outcome, message = _outcome(loader, path)
        connection.send(Watched(outcome, message, time.perf_counter() - start, _memory("VmHWM") - before))


def _outcome(loader: Loader, path: Path) -> tuple[str, str]:
    try:
        image = loader(path)
    except EdgemaskError as error:
        return REFUSED, error.problem
    except BaseException as error:
        return f"raised {type(error).__name__}", str(error)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return PICTURE if image.size and image.flags.c_contiguous else "an array without order", ""
    return f"gave {type(image).__name__}", ""


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
