"""Statistics that a graph takes of its own tensors: against numpy, of tensors without values, and small."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from toy_model import SPEC, busy_proto, write_toy

from edgemask.errors import BrokenOutput, ModelFileError
from edgemask.quantization.sampling import SAMPLE, statistics_of, with_statistics
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.devices import open_runtime

Statistics = dict[str, tuple[NDArray[np.float32], float, float]]


def chain(path: Path, *shape: int | str) -> ModelFile:
    """A model file whose graph is not the toy's: `x`, of a shape, plus one is `y`, and its root is `z`."""
    nodes = [helper.make_node("Add", ["x", "one"], ["y"], "backbone/Add"), helper.make_node("Sqrt", ["y"], ["z"])]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("z", 1, None)],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    model = read_model(write_toy(path / "m.onnx"))
    return dataclasses.replace(model, proto=proto, data=proto.SerializeToString())


def taken(model: ModelFile, tensors: list[str], inputs: dict[str, NDArray[Any]], device: str = "cpu") -> Statistics:
    runtime, _ = open_runtime(with_statistics(model, tensors), device)
    try:
        return {name: rest for name, *rest in statistics_of(runtime.run(inputs), tensors, "a.png")}  # type: ignore[misc]
    finally:
        runtime.close()


def values(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 8, 16, 32), (8191,), (8192,), (8193,)])
def test_a_small_tensor_is_taken_whole(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = values(*shape)
    sample, low, high = taken(chain(tmp_path, *shape), ["x"], {"x": x})["x"]
    assert (low, high) == (x.min(), x.max())
    if x.size <= SAMPLE:
        assert np.array_equal(sample, x.ravel())
    assert len(sample) == min(x.size, SAMPLE)


def test_a_large_tensor_is_thinned_evenly_and_its_extremes_are_exact(tmp_path: Path) -> None:
    x = values(1, 64, 200, 272)
    x[0, 63, 199, 271], x[0, 0, 0, 1] = 1e6, -0.5
    sample, low, high = taken(chain(tmp_path, "a", "b", "c", "d"), ["y"], {"x": x})["y"]
    assert (low, high) == (0.5, 1e6 + 1)
    assert len(sample) == SAMPLE
    places = np.arange(x.size, dtype=np.float32).reshape(x.shape)
    positions = taken(chain(tmp_path, "a", "b", "c", "d"), ["x"], {"x": places})["x"][0].astype(np.int64)
    assert (np.diff(positions) > 0).all()
    # A fixed step would meet one column in 17 of a tensor of this width.
    for axis in np.unravel_index(positions, x.shape)[1:]:
        counts = np.bincount(axis)
        assert counts.min() > 0
        assert counts.std() < 1.3 * np.sqrt(counts.mean())


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino", marks=pytest.mark.openvino)])
def test_a_tensor_without_values_has_no_statistics(tmp_path: Path, device: str) -> None:
    model = chain(tmp_path, "n", 4, 3)
    assert taken(model, ["y", "z"], {"x": values(0, 4, 3)}, device) == {}
    found = taken(model, ["y", "z"], {"x": values(2, 4, 3)}, device)
    assert {name: len(sample) for name, (sample, _, _) in found.items()} == {"y": 24, "z": 24}


@pytest.mark.parametrize("place", [0, 5, 40_000, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_is_found(tmp_path: Path, place: int, value: float) -> None:
    x = values(50_000)
    x[place] = value
    with pytest.raises(BrokenOutput, match=r"the tensor y holds values that are not numbers, on a\.png"):
        taken(chain(tmp_path, "n"), ["y"], {"x": x})


def test_outputs_are_small_and_the_model_does_as_before(tmp_path: Path) -> None:
    write_model(busy_proto(), SPEC, tmp_path / "busy.onnx")
    model = read_model(tmp_path / "busy.onnx")
    before = model.proto.SerializeToString()
    tensors = ["images", "before", "between"]
    changed = with_statistics(model, tensors)
    assert model.proto.SerializeToString() == before
    onnx.checker.check_model(changed.proto, full_check=True)
    inputs = {"images": values(1, 3, 256, 320), "image_sizes": np.array([[256, 320]], np.int64)}
    runs = [open_runtime(one, "cpu")[0].run(inputs) for one in (model, changed)]
    assert all(np.array_equal(runs[1][name], value) for name, value in runs[0].items())
    added = {name: value for name, value in runs[1].items() if name not in runs[0]}
    assert len(added) == 4 * len(tensors)
    assert sum(value.nbytes for value in added.values()) <= 4 * (SAMPLE + 3) * len(tensors)


def test_statistics_are_taken_before_the_next_tensor_is_computed(tmp_path: Path) -> None:
    """Otherwise all of them would lie in memory until the end; see how ONNX Runtime sorts the nodes."""
    import json

    import onnxruntime

    nodes, names = [], [f"t{number}" for number in range(9)]
    for before, after in zip(["x", *names], [*names, "z"], strict=False):
        nodes.append(helper.make_node("Sin", [before], [after], f"backbone/{after}"))
    model = chain(tmp_path, "n")
    del model.proto.graph.node[:]
    model.proto.graph.node.extend(nodes)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    data = with_statistics(model, names).data
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": values(100)})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["name"].removesuffix("_kernel_time") for event in events if event["name"].endswith("_kernel_time")]
    for number, name in enumerate(names[:-1]):
        last = max(index for index, node in enumerate(ran) if node.startswith(f"calibration/{number}/"))
        assert last < ran.index(f"backbone/{names[number + 1]}"), name


def test_refuses_tensors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"has no tensor a, b"):
        with_statistics(chain(tmp_path, "n"), ["y", "a", "b"])
