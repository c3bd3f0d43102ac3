"""Checkpoints, stored runs and cache entries that an attacker would make."""

import io
import json
import os
import pickle  # noqa: TID251  what is refused has to be made
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from surveillance import Place

from edgemask.runtimes.cache import open_entry

FACTS = {"model": "m.onnx", "version": "1"}


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def written(name: str, content: bytes) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        (place.inside / name).write_bytes(content)
        return place.inside / name

    return make


def saved(value: Callable[[Place], object]) -> Callable[[Place], Path]:
    """What torch.save makes of a value."""

    def make(place: Place) -> Path:
        torch.save(value(place), place.inside / "w.pth")
        return place.inside / "w.pth"

    return make


def zipped(name: str, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        with zipfile.ZipFile(place.inside / name, "w", method, compresslevel=1) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return place.inside / name

    return make


def plain_pickle(place: Place) -> Path:
    path = place.inside / "w.pth"
    path.write_bytes(pickle.dumps({"weight": Payload(place.marker)}))
    return path


def exported_program(place: Place) -> Path:
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(2),)), place.inside / "m.pt2")
    return (place.inside / "m.pt2").rename(place.inside / "w.pt")


def torchscript(place: Place) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(place.inside / "w.pt"))
    return place.inside / "w.pt"


def bomb_of_weights(place: Place) -> Path:
    torch.save({"weight": torch.zeros(8 << 20)}, place.inside / "flat.pth")
    with zipfile.ZipFile(place.inside / "flat.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped("w.pth", members, zipfile.ZIP_DEFLATED)(place)


def safetensors(metadata: dict[str, str], **header: Any) -> Callable[[Place], Path]:
    text = json.dumps(header | {"__metadata__": metadata}).encode()
    return written("m.safetensors", struct.pack("<Q", len(text)) + text)


def npy_of(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


def pickled_arrays(name: str) -> Callable[[Place], Path]:
    return lambda place: zipped("run.npz", {f"{name}.npy": npy_of(np.array([Payload(place.marker)], object))})(place)


def cache_of_others(place: Place) -> Path:
    """A folder with a sound entry, into which anybody may write."""
    entry = open_entry(FACTS, title="m.onnx", cache=place.inside)
    assert entry is not None
    entry.store(b"an engine")
    place.inside.chmod(0o777)
    return place.inside


def cache_behind_a_link(place: Place) -> Path:
    cache_of_others(place)
    place.inside.chmod(0o700)
    (entry,) = (path for path in place.inside.iterdir() if len(path.name) == 64)
    entry.rename(place.outside / "entry")
    entry.symlink_to(place.outside / "entry")
    return place.inside


def cache_without_seal(place: Place) -> Path:
    cache_of_others(place)
    place.inside.chmod(0o700)
    (blob,) = place.inside.glob("*/files/blob")
    blob.write_bytes(b"my engine")
    return place.inside
