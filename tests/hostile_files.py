"""Files that an attacker would send, each with what must be said of it."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hostile_models import CALLS, OUTSIDE, call, changed, compiled, foreign, too_short, weights_in, with_spec
from hostile_weights import (
    FACTS,
    Payload,
    bomb_of_weights,
    cache_behind_a_link,
    cache_of_others,
    cache_without_seal,
    exported_program,
    npy_of,
    pickled_arrays,
    plain_pickle,
    safetensors,
    saved,
    torchscript,
    written,
    zipped,
)
from model_mutants import sealed
from surveillance import Place
from toy_model import SPEC, toy_proto, write_toy

import edgemask
from edgemask.checkpoints import load_model
from edgemask.errors import ModelFileError
from edgemask.quantization.calibration import Calibration
from edgemask.runs import StoredRun
from edgemask.runtimes import RuntimeOptions
from edgemask.runtimes.cache import open_entry
from edgemask.spec import SPEC_KEY

BUILDER = "maskrcnn_resnet50_fpn"
CLASSES = "roi_heads.box_predictor.cls_score.bias"
IMAGE = np.zeros((64, 64, 3), np.uint8)


@dataclass(frozen=True)
class Hostile:
    """A file, how it gets in, and what is said of it; None where it is taken, without harm."""

    make: Callable[[Place], Path]
    read: Callable[[Path], object]
    said: str | None


def opened(path: Path) -> None:
    options = RuntimeOptions(threads=1, cache=False)
    with edgemask.load(path, device="cpu", options=options) as detector:
        detector.predict(IMAGE)


def as_checkpoint(path: Path) -> None:
    load_model(str(path))


def as_weights(path: Path) -> None:
    load_model(BUILDER, weights=path)


def as_run(path: Path) -> None:
    with StoredRun.open(path) as run:
        for name in run.names:
            run.get(name, "0" * 64)


def as_cache(path: Path) -> None:
    entry = open_entry(FACTS, title="m.onnx", cache=path)
    if entry is None or entry.load() is None:
        raise ModelFileError("nothing in the cache can be used", "build it anew")


def linked(make_link: Callable[[Path, Path], None]) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        make_link(place.secret, place.inside / "weights")
        return changed(place.model, weights_in("weights"))

    return make


def with_node(node: Callable[[str], onnx.NodeProto]) -> Callable[[Place], Path]:
    return lambda place: changed(place.model, lambda proto: proto.graph.node.append(node(str(place.library))))


def with_metadata(entries: Callable[[Place], dict[str, str]]) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        def change(proto: onnx.ModelProto) -> None:
            for key, value in entries(place).items():
                proto.metadata_props.add(key=key, value=value)

        return changed(place.model, change)

    return make


def with_names(**changes: Any) -> Callable[[Place], Path]:
    return lambda place: with_spec(place.model, json.dumps(json.loads(SPEC.to_json()) | changes))


def without_text(place: Place) -> Path:
    write_toy(place.model)
    place.model.write_bytes(sealed(place.model.read_bytes().replace(b"stage/Mul_2", b"stage/\xff\x9b2J_")))
    return place.model


def ort_file(place: Place) -> Path:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(place.inside / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(toy_proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return place.inside / "m.ort"


ELSEWHERE, NO_STATE, NO_MODEL = "keeps weights in other files", "is no plain state dict", "is no ONNX model"
FILES: dict[str, Hostile] = {
    "weights above the folder": Hostile(
        lambda place: changed(place.model, weights_in("../outside/secret")), opened, ELSEWHERE
    ),
    "weights by an absolute path": Hostile(
        lambda place: changed(place.model, weights_in(str(place.secret))), opened, ELSEWHERE
    ),
    "weights behind a symbolic link": Hostile(linked(lambda to, at: at.symlink_to(to)), opened, ELSEWHERE),
    "weights behind a hard link": Hostile(linked(lambda to, at: at.hardlink_to(to)), opened, ELSEWHERE),
    **{
        f"weights outside, of {name}": Hostile(lambda p, change=change: changed(p.model, change), opened, ELSEWHERE)
        for name, change in OUTSIDE.items()
    },
    "an operator of a library": Hostile(with_node(foreign), opened, r"uses operators of 'evil\\n.corp'"),
    "an operator of a library, in a function": Hostile(
        lambda place: changed(
            place.model, lambda p: p.functions.add(name="F").node.append(foreign(str(place.library)))
        ),
        opened,
        r"uses operators of 'evil\\n.corp'",
    ),
    "a compiled model in a node": Hostile(with_node(compiled), opened, "uses operators of 'com.microsoft'"),
    **{
        f"a function that calls {name}": Hostile(
            lambda p, functions=functions: changed(p.model, lambda proto: proto.functions.extend(functions)),
            opened,
            f"has functions that call functions: {called}$",
        )
        for name, (functions, called) in CALLS.items()
    },
    "options for the runtime": Hostile(
        with_metadata(lambda _: {"ort_config": '{"session_options": {"enable_profiling": 1}}'}),
        opened,
        r"brings options for ONNX Runtime \(ort_config\)",
    ),
    "100 MB of spec": Hostile(lambda place: with_spec(place.model, " " * 10**8), opened, "at most 1048576 characters"),
    "names that steer a terminal": Hostile(
        with_names(class_names=["\x1b]0;owned\x07", "\u202egpj.exe"]), opened, "without control characters"
    ),
    "names that steer a terminal, in an error": Hostile(
        lambda p: changed(p.model, lambda proto: proto.graph.node.append(call("Relu\x1b[2J", ""))),
        opened,
        "cannot open",
    ),
    "names that steer a terminal, in a log": Hostile(
        lambda place: changed(place.model, too_short), opened, "cannot open"
    ),
    "names that are no text": Hostile(without_text, opened, "has names that are not UTF-8"),
    "libraries, paths and devices in metadata": Hostile(
        with_metadata(
            lambda place: {
                "custom_ops_library": str(place.library),
                "session.custom_ops": str(place.library),
                "plugin": str(place.library),
                "device": "cuda",
                "\x1b[2J": "\x1b]0;owned\x07" * 1000,
                "trt_engine_cache_path": str(place.outside),
            }
        ),
        opened,
        None,
    ),
    "names for a page and a spreadsheet": Hostile(
        with_names(class_names=["<script>alert(1)</script>", "=cmd|'/c calc'!A1"]), opened, None
    ),
    "an engine of TensorRT": Hostile(written("m.engine", b"ftrt" + bytes(range(256)) * 8), opened, NO_MODEL),
    "an OpenVINO model": Hostile(
        written("m.xml", b'<?xml version="1.0"?>\n<net name="m" version="11"><layers/></net>'), opened, "is a web page"
    ),
    "an OpenVINO model's weights": Hostile(written("m.bin", bytes(4096)), opened, NO_MODEL),
    "an ONNX Runtime model": Hostile(ort_file, opened, NO_MODEL),
    "an archive as a model": Hostile(zipped("m.onnx", {"../../outside/marker": b"x"}), opened, NO_MODEL),
    "a pickle, in a checkpoint": Hostile(saved(lambda p: {"weight": Payload(p.marker)}), as_weights, NO_STATE),
    "a pickle alone": Hostile(plain_pickle, as_weights, NO_STATE),
    "a pickled module": Hostile(saved(lambda _: torch.nn.Linear(2, 2)), as_weights, NO_STATE),
    "a .pt2 archive": Hostile(exported_program, as_weights, NO_STATE),
    "a TorchScript archive": Hostile(torchscript, as_weights, NO_STATE),
    "a TorchScript archive as a checkpoint": Hostile(torchscript, as_checkpoint, "is no safetensors file"),
    "a zip bomb as a checkpoint": Hostile(bomb_of_weights, as_weights, r"of \d+ bytes that unpacks to \d{8}"),
    "an archive with names above the folder": Hostile(
        zipped("w.pth", {"../../outside/marker": b"x", "a/data.pkl": b"\x80\x02]q\x00."}), as_weights, NO_STATE
    ),
    "weights without storage": Hostile(
        saved(lambda _: {CLASSES: torch.zeros(3, device="meta")}), as_weights, "is no state dict of plain numbers"
    ),
    "a billion classes": Hostile(
        saved(lambda _: {CLASSES: torch.zeros(1).expand(10**9)}), as_weights, "at most 10001 classes"
    ),
    "a checkpoint that names a function": Hostile(
        safetensors({SPEC_KEY: SPEC.replace(builder="os:system").to_json()}),
        as_checkpoint,
        "no builder named 'os:system'",
    ),
    "a checkpoint larger than the file": Hostile(
        safetensors({}, w={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
        as_checkpoint,
        "is no safetensors file",
    ),
    "a zip bomb as a run": Hostile(
        zipped("run.npz", {"run.npy": npy_of(np.zeros(40 << 20, np.uint8))}, zipfile.ZIP_DEFLATED),
        as_run,
        "at most 33554432 bytes of JSON",
    ),
    "pickled arrays as a run": Hostile(pickled_arrays("run"), as_run, "floats or bools"),
    "pickled arrays as a calibration": Hostile(
        pickled_arrays("calibration"), lambda path: Calibration.load(path), "floats or bools"
    ),
    "a run with names above the folder": Hostile(
        zipped("run.npz", {"../../outside/marker": b"x"}), as_run, r"expected a member run\.npy"
    ),
    "a cache into which all may write": Hostile(cache_of_others, as_cache, "nothing in the cache"),
    "an entry of the cache behind a link": Hostile(cache_behind_a_link, as_cache, "nothing in the cache"),
    "another engine in the cache": Hostile(cache_without_seal, as_cache, "nothing in the cache"),
}
