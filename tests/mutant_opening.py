"""Opens mutants of a model file in a child process, in which a runtime only notes that it was reached."""

import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NoReturn

import onnx
from model_mutants import mutant

import edgemask
from edgemask.errors import ModelFileError
from edgemask.runtimes import ModelFile, detector
from edgemask.spec import ModelSpec

REFUSED, REACHED, SOUND, CRASH = "refused", "reached a runtime", "sealed again, and sound", "crash"
CHUNK = 250  # mutants to one call of the child

Fault = Callable[[], None]


class _Reached(Exception):
    """A runtime would have been opened with this model."""


def outcomes(path: Path, count: int, fault: Fault | None = None) -> Counter[tuple[str, str]]:
    """What came of the mutants 0 to `count` of a model file, by what was done to them and what followed.

    Args:
        path: the model file.
        count: how many.
        fault: breaks something in the child before it begins; a function of a module.
    """
    found: Counter[tuple[str, str]] = Counter()
    context = multiprocessing.get_context("spawn")
    waiting = [range(start, min(count, start + CHUNK)) for start in range(0, count, CHUNK)]
    while waiting:
        with ProcessPoolExecutor(1, context, initializer=fault) as pool:
            try:
                while waiting:
                    found += pool.submit(_opened, path, waiting[0]).result()
                    waiting.pop(0)
            except BrokenProcessPool:
                found["one of " + str(waiting.pop(0)), CRASH] += 1
    return found


def _opened(path: Path, numbers: range) -> Counter[tuple[str, str]]:
    data, copy = path.read_bytes(), path.with_name("mutant.onnx")
    detector.open_runtime = _reach
    found: Counter[tuple[str, str]] = Counter()
    for number in numbers:
        name, changed = mutant(data, number)
        copy.write_bytes(changed)
        found[name, _outcome(copy, is_sealed="sealed" in name)] += 1
    return found


def _reach(model: ModelFile, *_: Any, **__: Any) -> NoReturn:
    raise _Reached(model)


def _outcome(path: Path, *, is_sealed: bool) -> str:
    try:
        edgemask.load(path, device="cpu")
    except ModelFileError as error:
        return REFUSED if error.remedy else "refused without a remedy"
    except _Reached as reached:
        (model,) = reached.args
        return SOUND if is_sealed and is_sound(model) else REACHED
    except BaseException as error:
        return f"raised {type(error).__name__}"
    return "opened"


def is_sound(model: ModelFile) -> bool:
    """Whether spec and graph are as `read_model` promises; looked at in another way than it does."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model.proto)
    for tensor in rest.graph.initializer:
        tensor.ClearField("raw_data")
    outside = re.search(r"^\s*(external_data \{|data_location: EXTERNAL)", str(rest), re.MULTILINE)
    calls = {node.domain for part in (rest.graph, *rest.functions) for node in _nodes(part)}
    return (
        ModelSpec.from_json(model.spec.to_json()) == model.spec
        and outside is None
        and calls <= {"", "ai.onnx", "edgemask"}
        and all(isinstance(value, str) for entry in model.metadata.items() for value in entry)
    )


def _nodes(part: Any) -> Iterator[Any]:
    for node in part.node:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph)


def without_seal() -> None:
    """A reader that does not look at the digest."""
    from edgemask.runtimes import modelfile

    def believe(_: Path, data: bytes) -> str:
        return data[data.index(modelfile._ENTRY) + len(modelfile._ENTRY) :][:64].decode()

    modelfile._check_seal = believe


def without_types() -> None:
    """A reader that lets protobuf's own errors out."""
    from edgemask.runtimes import opening

    def parsed(path: Path) -> onnx.ModelProto:
        return onnx.load_from_string(path.read_bytes())

    opening.read_model = parsed  # type: ignore[assignment]


def without_survival() -> None:
    """A reader that ends the process, as an overflow does."""
    import os
    import signal

    from edgemask.runtimes import opening

    def killed(_: Path) -> ModelFile:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("unreachable")

    opening.read_model = killed
