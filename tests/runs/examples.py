"""Entries, facts and files that the tests of stored runs share."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.detections import Detections
from edgemask.runs import RunEntry, RunFacts, RunWriter, StoredRun
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

SPEC = ModelSpec(class_names=("bolt", "nut"), min_size=256, max_size=320)
POSED = ModelSpec(tasks=("boxes", "keypoints"), class_names=("person",), min_size=256, max_size=320)
SEMANTIC = ModelSpec(tasks=("semantic",), class_names=("sky", "road"), min_size=256, max_size=320)
WEIGHTS = "0123456789abcdef" * 4
STAGES = {
    "stage/resize": np.float32([[0.5, -1.25], [3.0, 1e-30]]),
    "rpn.scores": np.zeros((0, 3), np.float32),
    "nms": np.array([[0, 1, 2]], np.int64),
    "scale": np.array(0.25, np.float64),
    "kept": np.array([True, False]),
}


def facts(**changes: Any) -> RunFacts:
    values: dict[str, Any] = {
        "kind": "pytorch",
        "name": "nuclei.safetensors",
        "device": "torch",
        "sha256": WEIGHTS,
        "spec": SPEC,
        "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
        "date": "2026-11-22T12:00:00+00:00",
    }
    return RunFacts(**(values | changes))


def digest(number: int) -> str:
    return f"{number:064x}"


def detections(count: int, seed: int = 0, mask_size: int = 28, keypoints: int | None = None) -> Detections:
    random = np.random.default_rng(seed)
    return Detections(
        boxes=random.normal(50, 40, (count, 4)).astype(np.float32),
        scores=-np.sort(-random.random(count, np.float32)),
        labels=np.ones(count, np.int64),
        masks=random.random((count, mask_size, mask_size), np.float32) if keypoints is None else None,
        keypoints=None if keypoints is None else random.random((count, keypoints, 3), np.float32),
        keypoint_scores=None if keypoints is None else random.random((count, keypoints), np.float32),
        image_size=(120, 90),
    )


def entry(count: int = 3, seed: int = 0, **changes: Any) -> RunEntry:
    return RunEntry(**({"found": detections(count, seed), "seconds": 0.1 + seed} | changes))


def semantic_map(seed: int = 0) -> SemanticMap:
    random = np.random.default_rng(seed)
    return SemanticMap(random.integers(0, 3, (7, 5), np.uint8), random.random((7, 5), np.float32))


def arrays(given: RunEntry) -> dict[str, Any]:
    """All that an entry holds, with bytes in place of arrays, so that equal means equal to the last bit."""
    found = given.found
    names = Detections.__slots__ if isinstance(found, Detections) else SemanticMap.__slots__
    values = {name: getattr(found, name) for name in names} | {"proposals": given.proposals}
    values |= {} if given.stages is None else {f"stage {name}": array for name, array in given.stages.items()}
    exact = {
        name: (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
    return exact | {"seconds": given.seconds, "has stages": given.stages is not None, "size": found.image_size}


ENTRIES = {
    "a.png": entry(3, 0, proposals=np.float32([[0, 0, 5, 5]]), stages=STAGES),
    "b.png": entry(0, 1),
    "c.png": entry(2, 2),
}


def packed(folder: Path, entries: dict[str, RunEntry], **changes: Any) -> Path:
    with RunWriter.open(folder / "journal", facts(**changes), fresh=True) as writer:
        for number, (name, given) in enumerate(entries.items()):
            writer.put(name, digest(number), given)
        writer.pack(folder / "run.npz")
    return folder / "run.npz"


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def index_of(contents: dict[str, bytes]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(np.load(io.BytesIO(contents["run.npy"])).tobytes())
    return loaded


def rewritten(made: Path, path: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Path:
    """A copy of a run with members and index changed, its checksums right."""
    contents = members(made)
    index = index_of(contents)
    change(contents, index)
    if "run.npy" in contents and index:
        contents["run.npy"] = npy(np.frombuffer(json.dumps(index).encode(), np.uint8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def read_all(path: Path) -> list[RunEntry]:
    with StoredRun.open(path) as run:
        return [run.get(name, digest(number)) for number, name in enumerate(run.names)]


def at(*keys: Any, to: Any) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    def change(_: dict[str, bytes], index: dict[str, Any]) -> None:
        *path, last = keys
        target: Any = index
        for key in path:
            target = target[key]
        target[last] = to

    return change


def member(name: str, content: bytes) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    return lambda contents, _: contents.update({f"000000/{name}.npy": content})
