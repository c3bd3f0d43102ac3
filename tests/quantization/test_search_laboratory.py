"""The laboratory of a search, with layers of a real graph: candidates, measurements, and a search taken up again."""

import dataclasses
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layered import DEPTHWISE, write_layered
from pictures import smooth, written

from edgemask.quantization.calibration import calibrate
from edgemask.quantization.latency import Comparison
from edgemask.quantization.layers import Layer, chosen, layers_of
from edgemask.quantization.ranges import value_range
from edgemask.quantization.recipes import Recipe, recipe_named
from edgemask.quantization.rewriting import ops_of, rewrite, tensors_to_calibrate
from edgemask.quantization.search import search
from edgemask.quantization.search_journal import SearchJournal
from edgemask.quantization.search_laboratory import ModelLaboratory
from edgemask.quantization.search_records import Laboratory, Search
from edgemask.runtimes import ModelFile, read_model, write_model

PER_TENSOR = recipe_named("minmax").replace(per_channel=False)
FP32 = frozenset[Layer]()
Make = Callable[[Collection[Layer]], ModelFile]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """Its depthwise weights differ by three powers of ten, so that one scale for all of them is none for most."""
    return write_layered(tmp_path_factory.mktemp("layered") / "layered.onnx", spread=3.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return written(tmp_path_factory.mktemp("pictures") / "all", [smooth(seed, (64, 64)) for seed in range(3)])


@pytest.fixture(scope="module")
def make(model: ModelFile, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    return maker(model, pictures, tmp_path_factory.mktemp("made") / "q.onnx", PER_TENSOR)


def maker(model: ModelFile, pictures: list[Path], path: Path, recipe: Recipe) -> Make:
    histograms = calibrate(model, tensors_to_calibrate(model, layers_of(model)), pictures).histograms
    ranges = {name: value_range(histogram, recipe) for name, histogram in histograms.items()}

    def made(layers: Collection[Layer]) -> ModelFile:
        proto = rewrite(model, layers, ranges, recipe)
        write_model(proto, model.spec.replace(precision="int8", ops=ops_of(model.spec, proto)), path)
        return read_model(path)

    return made


def layers(model: ModelFile, *names: str) -> frozenset[Layer]:
    return frozenset(layer for layer in layers_of(model) if layer.name in names)


def test_sizes_and_times(model: ModelFile, make: Make, pictures: list[Path]) -> None:
    laboratory: Laboratory = ModelLaboratory(model, make, devices=["cpu"], images=pictures)
    every = frozenset(chosen(layers_of(model), PER_TENSOR))
    assert not laboratory.judges
    assert laboratory.size(FP32) == len(model.data)
    assert laboratory.size(every) == len(make(every).data)
    (compared,) = laboratory.compare(every, FP32)
    assert compared.device == "cpu"
    assert laboratory.compare(FP32, every) == (compared.turned(),)


def test_layers_are_ranked_by_how_much_they_disturb(model: ModelFile, make: Make, pictures: list[Path]) -> None:
    laboratory = ModelLaboratory(model, make, devices=["cpu"], images=pictures)
    disturbances = {
        layer.name: laboratory.disturbance(frozenset([layer]))
        for layer in layers_of(model)
        if layer.stage == "backbone"
    }
    # The layer behind the depthwise one makes up for it, and so its weights differ as much.
    worst = sorted(disturbances, key=disturbances.__getitem__)[-2:]
    assert set(worst) == {DEPTHWISE, "backbone/2/Conv"}
    others = [value for name, value in disturbances.items() if name not in worst]
    assert 0 < min(others) < max(others) < disturbances[worst[0]] / 3
    assert 0 < laboratory.disturbance(layers(model, "fpn/inner/Conv")) < 0.1
    assert 0 < laboratory.disturbance(layers(model, "rpn/head/conv/Conv", "rpn/head/conv/Conv_2")) < 0.1


def test_a_stage_that_names_no_tensor_ranks_nothing(model: ModelFile, make: Make, pictures: list[Path]) -> None:
    laboratory = ModelLaboratory(model, make, devices=["cpu"], images=pictures)
    (layer,) = layers(model, "box_head/head/fc6/Gemm")
    nameless = dataclasses.replace(layer, stage="keypoint_head")
    assert laboratory.disturbance(frozenset([nameless])) == 0


def test_nothing_is_measured_twice(
    model: ModelFile, make: Make, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def compare(first: ModelFile, second: ModelFile, device: str, images: list[Path]) -> Comparison:
        calls.append(device)
        return Comparison(device=device, first=(1.0,), second=(2.0,))

    def counted(chosen: Collection[Layer]) -> ModelFile:
        calls.append("make")
        return make(chosen)

    monkeypatch.setattr("edgemask.quantization.search_laboratory.compare_latency", compare)
    laboratory = ModelLaboratory(model, counted, devices=["cpu", "openvino:CPU"], images=pictures)
    one = layers(model, "fpn/inner/Conv")
    for _ in range(2):
        laboratory.compare(one, FP32)
        laboratory.compare(FP32, one)
        laboratory.size(one)
    assert calls == ["make", "cpu", "openvino:CPU"]


def searched(model: ModelFile, make: Make, pictures: list[Path], folder: Path, deadline: float | None = None) -> Search:
    journal = SearchJournal(folder, {"model": model.digest}, fresh=False)
    laboratory = ModelLaboratory(model, make, devices=["cpu"], images=pictures, journal=journal)
    return search(chosen(layers_of(model), PER_TENSOR), laboratory, deadline=deadline)


def test_an_interrupted_search_measures_nothing_twice(
    model: ModelFile, make: Make, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times that are drawn anew each time would lead elsewhere; the journal's do not."""
    generator, measured = np.random.default_rng(0), []

    def compare(first: ModelFile, second: ModelFile, device: str, images: list[Path]) -> Comparison:
        measured.append((first.digest, second.digest))
        return Comparison(device=device, first=(10.0,) * 4, second=tuple([generator.uniform(8, 12)] * 4))

    monkeypatch.setattr("edgemask.quantization.search_laboratory.compare_latency", compare)
    begun = searched(model, make, pictures, tmp_path, deadline=time.monotonic() - 1)
    assert begun.stopped == "the time limit"
    whole = searched(model, make, pictures, tmp_path)
    count = len(measured)
    again = searched(model, make, pictures, tmp_path)
    assert len(measured) == len(set(measured)) == count > 3
    assert again == whole
    # What somebody wrote into the journal and is no measurement is measured again.
    path = tmp_path / "search.jsonl"
    path.write_text(path.read_text().replace('"first"', '"frist"'))
    searched(model, make, pictures, tmp_path)
    assert len(measured) > count


def test_without_a_judge_there_is_no_accuracy(model: ModelFile, make: Make, pictures: list[Path]) -> None:
    laboratory: Any = ModelLaboratory(model, make, devices=["cpu"], images=pictures)
    with pytest.raises(ValueError, match="does not judge"):
        laboratory.accuracy(FP32)
