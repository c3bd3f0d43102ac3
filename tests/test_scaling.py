"""The measurement of cost as work grows: what it runs, counts and writes. Exports are stood in for but in one test."""

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from narrow import ARGUMENTS, BUILDER, narrow
from onnx import helper, numpy_helper
from PIL import Image
from script_files import script_module
from toy_model import toy_proto

from edgemask.checkpoints import load_checkpoint, save_checkpoint
from edgemask.description import spec_of
from edgemask.runtimes import RuntimeOptions, write_model
from edgemask.scenes import draw_scene
from edgemask.spec import ModelSpec

CANVASES, PROPOSALS, DETECTIONS, BATCHES = ((64, 96), (128, 128)), (5, 5000), (0, 1, 4), (1, 3)
HOW = RuntimeOptions(threads=1, cache=False)


@pytest.fixture(scope="module")
def loaded() -> Iterator[ModuleType]:
    with script_module("scripts/scaling.py") as module:
        yield module


@pytest.fixture
def script(loaded: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with few points, none of them large."""
    for name in ("CANVASES", "PROPOSALS", "DETECTIONS", "BATCHES"):
        monkeypatch.setattr(loaded, name, globals()[name])
    monkeypatch.setattr(loaded, "let_threads_rest", lambda: None)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and an image."""
    folder = tmp_path_factory.mktemp("scaling")
    model = narrow(4)
    save_checkpoint(
        folder / "narrow.safetensors", model, spec_of(model, builder=BUILDER, builder_arguments=dict(ARGUMENTS))
    )
    Image.fromarray(draw_scene(0, size=96).image).save(folder / "scene.png")
    return folder


@pytest.fixture
def exports(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each export, in place of which a graph of constants is written that finds what it should."""
    calls: list[dict[str, Any]] = []

    def export(model: torch.nn.Module, path: Path, *, spec: ModelSpec, verify: bool, **arguments: Any) -> None:
        assert not verify
        assert spec_of(model).tasks == spec.tasks
        calls.append({"tasks": spec.tasks} | arguments)
        count = 0 if arguments.get("score_threshold") == 1.0 else arguments.get("max_detections", 2)
        masks = "masks" in spec.tasks
        batch = None if arguments.get("batch") == "dynamic" else 1
        own = spec.replace(batch=batch, mask_size=4 if masks else None, max_detections=max(count, 1))
        write_model(constants(count, masks=masks), own, path)

    monkeypatch.setattr(script, "export_onnx", export)
    return calls


def constants(count: int, *, masks: bool) -> onnx.ModelProto:
    """As `toy_proto`, with another number of detections, all of them in the first image of any batch."""
    values: dict[str, Any] = {
        "batch_index": np.zeros(count, np.int64),
        "boxes": np.tile(np.array([[4, 4, 28, 60]], np.float32), (count, 1)),
        "scores": np.linspace(0.9, 0.1, count, dtype=np.float32),
        "labels": np.ones(count, np.int64),
        "masks": np.full((count, 4, 4), 0.9, np.float32),
    }
    kept = values if masks else {name: value for name, value in values.items() if name != "masks"}
    proto = toy_proto()
    graph = proto.graph
    nodes = [node for node in graph.node if masks or "/masks/" not in node.name]
    del graph.node[:], graph.output[:], graph.initializer[1:]
    graph.node.extend(nodes)
    for name, value in kept.items():
        graph.initializer.append(numpy_helper.from_array(value, f"{name}/value"))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.output.append(helper.make_tensor_value_info(name, kind, value.shape))
    for value_info in graph.input:
        value_info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def run(script: ModuleType, folder: Path, output: Path, *words: str) -> int:
    files = [str(folder / "narrow.safetensors"), "--image", str(folder / "scene.png"), "-o", str(output)]
    return int(script.main([*files, "--repeats", "1", "--threads", "1", *words]))


def test_writes_every_sweep(
    script: ModuleType, folder: Path, exports: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, folder, tmp_path / "new" / "out", "--device", "cpu") == 0
    text = (tmp_path / "new" / "out" / "scaling.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert str(tmp_path) not in text
    assert str(folder) not in text
    assert (record["checkpoint"], record["image"], record["repeats"]) == ("narrow.safetensors", "scene.png", 1)
    assert record["environment"]["threads"] == 1
    sweeps = record["sweeps"]
    assert {name: [point["asked"] for point in points] for name, points in sweeps.items()} == {
        "size": [64 * 96 / 1e6, 128 * 128 / 1e6],
        "proposals": list(PROPOSALS),
        "detections": [number for number in DETECTIONS for _ in range(2)],
        "batch": list(BATCHES),
    }
    assert [point["canvas"] for point in sweeps["size"]] == [[64, 96], [128, 128]]
    for name, points in sweeps.items():
        for point in points:
            assert point["device"] == "cpu"
            assert point["graph"]["median"] > 0
            assert (point["predict"] is None) == (name in ("size", "batch"))
    assert 5 < sweeps["proposals"][1]["found"] < 5000, "the RPN finds fewer"
    assert sweeps["proposals"][0]["found"] == 5
    printed = capsys.readouterr().out
    assert "overhead of the masks" in printed
    assert "narrow.safetensors; " in printed


def test_counts_detections_and_exports_each_number(
    script: ModuleType, folder: Path, exports: list[Any], tmp_path: Path
) -> None:
    assert run(script, folder, tmp_path, "--device", "cpu", "--sweep", "detections") == 0
    record = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))
    points = record["sweeps"]["detections"]
    assert [(point["series"], point["found"], point["detections"]) for point in points] == [
        (series, number, number) for number in DETECTIONS for series in ("with masks", "boxes only")
    ]
    wanted = []
    for number in DETECTIONS:
        for tasks in (("boxes", "masks"), ("boxes",)):
            limits = {"max_detections": number, "score_threshold": 0.0} if number else {"score_threshold": 1.0}
            wanted.append({"tasks": tasks} | limits)
    assert exports == wanted
    assert [(one["device"], one["asked"], one["detections"]) for one in record["mask_overhead"]] == [
        ("cpu", number, number) for number in DETECTIONS
    ]


def test_picture_has_four_panels_and_is_the_same_again(
    script: ModuleType, folder: Path, exports: list[Any], tmp_path: Path
) -> None:
    words = [str(folder / "narrow.safetensors"), "--image", str(folder / "scene.png")]
    options = argparse.Namespace(
        checkpoint=Path(words[0]), image=Path(words[2]), repeats=1, threads=1, device=["cpu"], sweep=None
    )
    record = script.measured(options)
    for name in ("one", "other"):
        script.write(record, tmp_path / name)
    picture = (tmp_path / "one" / "scaling.svg").read_bytes()
    assert picture == (tmp_path / "other" / "scaling.svg").read_bytes()
    texts = ["".join(element.itertext()) for element in ET.fromstring(picture).iter() if element.tag.endswith("}text")]
    for label in ("canvas, megapixels", "proposals", "detections", "images per run", "cpu, boxes only", "cpu"):
        assert label in texts, label
    assert texts.count("graph, ms per image") == 4
    assert script.footer(record) in texts
    assert str(folder).encode() not in picture
    panels = script.drawn(record).axes
    assert [panel.get_ylim()[0] for panel in panels] == [0] * 4
    assert [len(panel.lines) for panel in panels] == [1, 1, 2, 1]
    counts, times = panels[2].lines[1].get_data()
    assert list(counts) == list(DETECTIONS)
    assert list(times) == [point["graph"]["median"] for point in record["sweeps"]["detections"][1::2]]


def test_variants_take_turns_and_warm_up(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    class Detector:
        def __init__(self, path: Path, **_: Any) -> None:
            self.name = path.stem

        def __enter__(self) -> "Detector":
            return self

        def __exit__(self, *_: object) -> None:
            calls.append((self.name, "closed"))

        def run(self, images: Any, _sizes: Any) -> dict[str, Any]:
            calls.append((self.name, "run"))
            return {"scores": np.zeros(3 * len(images))}

        def predict(self, _pixels: Any) -> None:
            calls.append((self.name, "predict"))

    def ordinal(call: Any, *arguments: Any) -> float:
        call(*arguments)
        return float(len(calls))

    monkeypatch.setattr(script, "load", Detector)
    monkeypatch.setattr(script, "milliseconds", ordinal)
    images, sizes, pixels = np.zeros((2, 3, 32, 32), np.float32), np.full((2, 2), 32), np.zeros((32, 32, 3), np.uint8)
    a = script.Variant(1, 1, Path("a.onnx"), images, sizes)
    b = script.Variant(2, 2, Path("b.onnx"), images[:1], sizes[:1], pixels, script.MASKS)
    records = script.timed([a, b], "cpu", HOW, 3)
    turn = [("a", "run"), ("b", "run"), ("b", "predict")]
    assert calls == [*turn * (script.WARMUP + 3), *turn[:2], ("b", "closed"), ("a", "closed")]
    # Calls are numbered from 1; rounds of three, of which the first two are for warm-up; a batch of two is halved.
    assert [records[0][key] for key in ("graph", "predict")] == [{"median": 10 / 2, "p90": None}, None]
    assert [records[1][key]["median"] for key in ("graph", "predict")] == [11, 12]
    assert [(one["found"], one["detections"]) for one in records] == [(1, 3), (3, 3)]


def test_overhead_is_what_masks_add(script: ModuleType) -> None:
    def point(device: str, series: str, asked: int, graph: float, predict: float) -> dict[str, Any]:
        times = {"graph": {"median": graph}, "predict": {"median": predict}}
        return {"device": device, "series": series, "asked": asked, "detections": asked} | times

    points = [
        point(device, series, asked, base * factor, 2 * base * factor)
        for device, base in (("cpu", 10.0), ("other", 4.0))
        for asked in (0, 10)
        for series, factor in (("with masks", 1 + asked / 80), ("boxes only", 1.0))
    ]
    assert script.overheads(points) == [
        {"device": device, "asked": asked, "detections": asked, "graph": asked / 80, "predict": asked / 80}
        for device in ("cpu", "other")
        for asked in (0, 10)
    ]
    assert script.overheads([]) == []


def test_boxes_alone_are_those_of_the_model(script: ModuleType, folder: Path) -> None:
    model, spec = load_checkpoint(folder / "narrow.safetensors")
    task = script.without_masks(script.Task(model, spec, np.zeros((8, 8, 3), np.uint8), folder))
    assert spec_of(task.model).tasks == task.spec.tasks == ("boxes",)
    assert spec_of(model).tasks == ("boxes", "masks"), "the model stays as it was"
    image = torch.from_numpy(draw_scene(0, size=96).image).permute(2, 0, 1).float() / 255
    (boxes,), (both,) = task.model([image]), model([image])
    assert set(both) - set(boxes) == {"masks"}
    assert torch.equal(boxes["boxes"], both["boxes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "0"], "--repeats 0\ngive a number"),
        (["--threads", "0"], "threads: expected a whole number"),
        (["--image", "missing.png"], "missing.png"),
        (["--device", "abacus", "--sweep", "batch"], "abacus"),
    ],
)
def test_says_what_is_wrong(
    script: ModuleType, folder: Path, exports: list[Any], words: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    assert run(script, folder, tmp_path / "out", *words) != 0
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_refuses_a_model_without_masks(
    script: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model, spec = load_checkpoint(folder / "narrow.safetensors")
    monkeypatch.setattr(script, "load_checkpoint", lambda _: (model, spec.replace(tasks=("boxes",), mask_size=None)))
    assert run(script, folder, tmp_path) == 2
    assert "finds boxes\ngive the checkpoint of a Mask R-CNN" in capsys.readouterr().err


@pytest.mark.soak
def test_a_real_model_finds_what_is_asked_for(
    script: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven exports."""
    monkeypatch.setattr(script, "PROPOSALS", (5,))
    monkeypatch.setattr(script, "DETECTIONS", (0, 3))
    assert run(script, folder, tmp_path, "--device", "cpu", "--device", "openvino:CPU") == 0
    record = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))
    for point in record["sweeps"]["detections"]:
        assert point["detections"] == point["asked"], point
    assert [(one["device"], one["asked"]) for one in record["mask_overhead"]] == [
        (device, number) for device in ("cpu", "openvino:CPU") for number in (0, 3)
    ]
