"""Which devices work: each asked by itself, and with a model, the model opened and run on it."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.doctor.records import ModelFacts, Trial
from edgemask.errors import EdgemaskError

BLANK_SIZE = (480, 640)  # height and width of the blank image where the model takes any


def device_names() -> tuple[str, ...]:
    """Full names of all devices, in the order in which `auto` tries them.

    Raises:
        ImportError: onnx is not installed.
    """
    from edgemask.runtimes.devices import DEVICES

    return tuple(entry.name for entry in DEVICES)


def is_automatic(device: str) -> bool:
    """Whether `auto` tries a device, by its full name."""
    from edgemask.runtimes.devices import DEVICES

    return any(entry.name == device and entry.automatic for entry in DEVICES)


def check(device: str) -> str:
    """Says that a device can be used here, as far as can be told without a model, by returning its full name.

    Raises:
        DeviceUnavailable: it cannot; says why, and what to do about it.
    """
    from edgemask.runtimes.devices import check_device

    return check_device(device)


def model_facts(path: str | Path) -> ModelFacts:
    """Reads a model file.

    Raises:
        ModelFileError: no such file, or no sound edgemask model.
        ImportError: onnx is not installed.
    """
    from edgemask.runtimes import read_model

    model = read_model(path)
    spec = model.spec
    opset = max((entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    notes = []
    if None in (spec.canvas, spec.batch):
        notes.append("TensorRT compiles for one shape: export with --shape HxW --batch N for the device tensorrt")
    if spec.precision == "fp16":
        notes.append("a file in FP16 is computed in float32 on CPUs, and in float16 on GPUs")
    return ModelFacts(
        path=str(path),
        bytes=len(model.data),
        precision=spec.precision,
        opset=opset,
        canvas=spec.canvas,
        batch=spec.batch,
        notes=tuple(notes),
    )


def trial(path: str, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """Opens a model as `edgemask.load` does and runs it once on a black image; the fields of a `Trial`.

    Args:
        path: of the model.
        device: its name.
        options: fields of `RuntimeOptions`.

    Raises:
        EdgemaskError: it cannot be opened there, or not run.
    """
    from edgemask import load
    from edgemask.runtimes import RuntimeOptions

    before = time.perf_counter()
    with load(path, device=device, options=RuntimeOptions(**options)) as detector:
        opened = time.perf_counter()
        spec = detector.spec
        height, width = size = spec.canvas or spec.fixed_size or BLANK_SIZE
        image = np.zeros((height, width, 3), np.uint8)
        if "semantic" in spec.tasks:
            detector.segment(image)
        elif spec.proposals == "input":
            detector.predict(image, proposals=[[0, 0, width, height]])
        else:
            detector.predict(image)
        ran = time.perf_counter()
        placed = placement_of(detector)
    return dataclasses.asdict(
        Trial(open_seconds=opened - before, run_seconds=ran - opened, image=(size[0], size[1]), **placed)
    )


def placement_of(detector: Any) -> dict[str, Any]:
    """What `Detector.placement` tells, as fields of a `Trial`; it runs the model a second time."""
    try:
        placed = detector.placement()
    except EdgemaskError as error:  # the model ran, whatever keeps it from being looked at
        return {"placement": f"where its parts run is not known: {' '.join(error.problem.split())}"}
    shares = ", ".join(f"{share.share:.0%} on {share.provider}" for share in placed.providers)
    types = dict.fromkeys(share.arithmetic for share in placed.operators if share.arithmetic)
    return {
        "placement": "; ".join(placed.problems) or f"time: {shares}",
        "placed_well": placed.ok,
        "precision": " and ".join(types) or None,
    }


def trial_of(fields: dict[str, Any]) -> Trial:
    """The record of what `trial` returned."""
    height, width = fields["image"]
    return Trial(**{**fields, "image": (height, width)})
