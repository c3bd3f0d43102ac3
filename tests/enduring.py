"""What the checks of endurance share: models, pictures of many sizes, and what a process holds.

from enduring import DEVICES, held, pictures, result_bytes, scenes

Processes of their own import it: what takes seconds to import is imported where it is needed.
"""

import ctypes
import gc
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sizes import is_refused, picture, sizes
from toy_model import SPEC, busy_proto

import edgemask
from edgemask.detections import Detections
from edgemask.runtimes import RuntimeOptions, read_model, write_model
from edgemask.scenes import draw_scene

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
RUNTIMES = {"cpu": "ONNX Runtime", "openvino:CPU": "OpenVINO"}
ONE_THREAD = RuntimeOptions(threads=1, cache=False)
TWO_THREADS = RuntimeOptions(threads=2)  # the least that has a pool, for openings; with the cache that users have
Picture = NDArray[np.uint8]


class Predictor(Protocol):
    """A detector, or what stands between a test and one."""

    def predict(self, source: Picture) -> Detections: ...


def small_model(folder: Path) -> Path:
    """A file of two convolutions, whose results depend on the image."""
    write_model(busy_proto(), SPEC, folder / "small.onnx")
    return folder / "small.onnx"


def sample_model(folder: Path) -> Path:
    """The real, trained one; 8 seconds."""
    from edgemask.checkpoints import load_checkpoint
    from edgemask.export import export_onnx

    with resources.as_file(resources.files("edgemask") / "assets" / "sample.safetensors") as checkpoint:
        model, spec = load_checkpoint(checkpoint)
    export_onnx(model, folder / "sample.onnx", spec=spec, verify=False)
    return folder / "sample.onnx"


MODELS = {"small": small_model, "sample": sample_model}


def scenes(count: int) -> list[Picture]:
    """Drawn scenes of ordinary sizes, no two alike."""
    return [draw_scene(index, size=96 + 16 * (index % 9)).image[: 96 - index % 13] for index in range(count)]


def pictures(path: Path, count: int) -> list[Picture]:
    """Drawn scenes of as many sizes, up to 200: from a pixel to 4000 for the sample."""
    if path.stem == "small":
        drawn = scenes(20)
        return [drawn[index % 20][index // 20 :, index % 20 :] for index in range(count)]
    spec = read_model(path).spec
    taken = [size for size in sizes(2 * count) if not is_refused(size, spec)]
    return [picture(*size) for size in taken[:count]]


def result_bytes(found: Detections) -> bytes:
    """A fingerprint of everything that a prediction gives, to the last bit."""
    assert found.masks is not None
    digest = hashlib.sha256(repr(found.image_size).encode())
    for array in (found.boxes, found.scores, found.labels, found.masks):
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds, or how much more than before."""

    memory: int
    descriptors: int
    threads: int

    def __sub__(self, other: "Held") -> "Held":
        return Held(self.memory - other.memory, self.descriptors - other.descriptors, self.threads - other.threads)


def held() -> Held:
    """Resident bytes once garbage and free blocks of the heap are given back, open descriptors, running threads."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    )


def growth(path: Path, device: str, *, predictions: int, after: int, wrap: Callable[[Predictor], Predictor]) -> int:
    """By how many bytes a process grows after its first predictions. To be run in a process of its own.

    Args:
        path: the model.
        device: to run it on.
        predictions: how many in all, of 200 sizes in turns.
        after: those at the beginning that may cost memory; a multiple of 200 shows every size its time.
        wrap: stands between; the detector itself, or something with a leak.
    """
    shown = pictures(path, 200)
    with edgemask.load(path, device=device, options=ONE_THREAD) as detector:
        predictor = wrap(detector)
        _predict(predictor, shown, range(after))
        before = held()
        _predict(predictor, shown, range(after, predictions))
        return (held() - before).memory


def _predict(predictor: Predictor, shown: list[Picture], numbers: Iterable[int]) -> None:
    for number in numbers:
        predictor.predict(shown[number % len(shown)])


def plain(predictor: Predictor) -> Predictor:
    """No leak."""
    return predictor


class PythonLeak:
    """Keeps 100 KB of every prediction in a list."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._kept = predictor, list[bytes]()

    def predict(self, source: Picture) -> Detections:
        self._kept.append(os.urandom(100_000))
        return self._predictor.predict(source)


class NativeLeak(PythonLeak):
    """Loses 100 KB of C's heap at every prediction."""

    def predict(self, source: Picture) -> Detections:
        library = ctypes.CDLL(None)
        library.malloc.restype = ctypes.c_void_p
        ctypes.memset(library.malloc(ctypes.c_size_t(100_000)), 1, 100_000)
        return self._predictor.predict(source)


ModelOf = Callable[[str], Path]
Opening = Callable[[Path, str, Picture], None]


def left_over(path: Path, device: str, opening: Opening, *, times: int, shown: Picture) -> Held:
    """What is left after a number of openings, the first five apart. To be run in a process of its own."""
    for _ in range(5):
        opening(path, device, shown)
    before = held()
    for _ in range(times):
        opening(path, device, shown)
    return held() - before


def closed(path: Path, device: str, shown: Picture) -> None:
    """Opened and closed as users do."""
    with edgemask.load(path, device=device, options=TWO_THREADS) as detector:
        detector.predict(shown)


def forgotten(path: Path, device: str, shown: Picture) -> None:
    """Never closed, only let go of."""
    edgemask.load(path, device=device, options=TWO_THREADS).predict(shown)


def streamed(path: Path, device: str, shown: Picture) -> None:
    """Left in the middle of a stream, whose threads are to end."""
    with edgemask.load(path, device=device, options=TWO_THREADS) as detector:
        stream = detector.stream([shown] * 4)
        next(stream)
        stream.close()


def failing(path: Path, device: str, shown: Picture) -> None:
    """Refused by the runtime itself, for an operator that there is not."""
    broken = onnx.load(path)
    broken.graph.node[-1].op_type = "NoSuchOperator"
    write_model(broken, read_model(path).spec, path.with_name("broken.onnx"))
    with pytest.raises(edgemask.EdgemaskError, match="NoSuchOperator"):
        edgemask.load(path.with_name("broken.onnx"), device=device, options=TWO_THREADS)


def memory_lost(path: Path, device: str, shown: Picture) -> None:
    """A megabyte that nobody frees: for the control."""
    _LOST.append(os.urandom(2**20))


def descriptor_lost(path: Path, device: str, shown: Picture) -> None:
    """A descriptor that nobody closes: for the control."""
    os.open(os.devnull, os.O_RDONLY)


def never_closed(path: Path, device: str, shown: Picture) -> None:
    """A detector that stays open, with its threads: for the control."""
    _LOST.append(edgemask.load(path, device=device, options=TWO_THREADS))


_LOST: list[object] = []
