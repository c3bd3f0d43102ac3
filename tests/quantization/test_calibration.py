"""Calibration from pictures to histograms: what is counted, what is refused, and the file that keeps it."""

import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pictures import noise, smooth, written
from toy_model import SPEC, busy_proto

from edgemask.canvas import place_on_canvas
from edgemask.errors import BrokenOutput, CalibrationError, ModelFileError, UsageError
from edgemask.quantization.calibration import Calibration, CalibrationFacts, calibrate
from edgemask.quantization.ranges import Histogram
from edgemask.quantization.sampling import SAMPLE
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.runtimes.devices import open_runtime
from edgemask.spec import ModelSpec

TENSORS = ("before", "between", "bright")


def bright_proto() -> onnx.ModelProto:
    """As `busy_proto`; `bright` has a row where a picture has a value of 200 or more, and none elsewhere."""
    proto = busy_proto()
    for name, value in {"bright/limit": np.array(200, np.float32), "bright/shape": np.array([1])}.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    proto.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["images"], ["bright/most"], "mask_head/ReduceMax", keepdims=0),
            helper.make_node("GreaterOrEqual", ["bright/most", "bright/limit"], ["bright/is"], "mask_head/Greater"),
            helper.make_node("Reshape", ["bright/is", "bright/shape"], ["bright/one"], "mask_head/Reshape"),
            helper.make_node("Compress", ["maps", "bright/one"], ["bright"], "mask_head/Compress", axis=0),
        ]
    )
    return proto


def model_of(folder: Path, proto: onnx.ModelProto | None = None, spec: ModelSpec = SPEC) -> ModelFile:
    write_model(proto or bright_proto(), spec, folder / "m.onnx")
    return read_model(folder / "m.onnx")


def with_value(proto: onnx.ModelProto, name: str, value: NDArray[Any]) -> onnx.ModelProto:
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return proto


def blind(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Finds nothing: its outputs have no rows."""
    for tensor in list(proto.graph.initializer):
        if tensor.name.endswith("/value"):
            with_value(proto, tensor.name, numpy_helper.to_array(tensor)[:0])
    for output in proto.graph.output:
        if output.name != "maps":
            output.type.tensor_type.shape.dim[0].Clear()
    return proto


def tensors_on(model: ModelFile, picture: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Whole tensors, as a copy of the graph with these outputs gives them."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in TENSORS)
    runtime, _ = open_runtime(dataclasses.replace(model, data=proto.SerializeToString()), "cpu")
    canvas, placement = place_on_canvas(picture, model.spec)
    outputs = runtime.run({"images": canvas[None], "image_sizes": np.array([placement.size], np.int64)})
    return {name: outputs[name] for name in TENSORS}


def test_counts_what_the_tensors_hold(tmp_path: Path) -> None:
    """Of pictures of several sizes, of which the last ones have no row in `bright`."""
    sizes = [(48, 64), (64, 40), (90, 100)]
    pictures = [smooth(0, (64, 64)), *(smooth(seed, size, greatest=150) for seed, size in enumerate(sizes, 1))]
    model = model_of(tmp_path)
    calibration = calibrate(model, TENSORS, written(tmp_path / "images", pictures))
    whole = [tensors_on(model, picture) for picture in pictures]
    assert [len(entry["bright"]) for entry in whole] == [1, 0, 0, 0]
    for name, histogram in calibration.histograms.items():
        values = [entry[name] for entry in whole if entry[name].size]
        assert histogram.low == min(float(entry.min()) for entry in values)
        assert histogram.high == max(float(entry.max()) for entry in values)
        assert histogram.total == sum(min(entry.size, SAMPLE) for entry in values)
    # `bright` is small enough that all of it is counted.
    every = calibration.histograms["bright"]
    edges = np.linspace(-every.extent, every.extent, len(every.counts) + 1)
    assert np.array_equal(every.counts, np.histogram(whole[0]["bright"].astype(np.float64), edges)[0])


def test_a_tensor_that_is_always_empty_counts_nothing(tmp_path: Path) -> None:
    paths = written(tmp_path / "images", [smooth(seed, greatest=150) for seed in range(2)])
    calibration = calibrate(model_of(tmp_path), TENSORS, paths)
    assert calibration.histograms["bright"].total == 0
    assert calibration.histograms["before"].total > 0


def test_facts(tmp_path: Path) -> None:
    pictures = [smooth(seed, (64, 64)) for seed in range(3)]
    model = model_of(tmp_path)
    paths = written(tmp_path / "images", pictures)
    facts = calibrate(model, TENSORS, paths).facts
    assert facts.images == facts.objects == 3
    assert facts.by_class == {"dot": 3, "line": 0}  # the line has a score of 0.2
    assert facts.by_size == {"small": 0, "medium": 3, "large": 0}
    assert facts.warnings == (
        "3 images are few to take ranges from: give 100 or more",
        "no object of 1 class was found on the images: line",
        "no small and no large object was found on the images",
    )
    # The same images in another order, and under other names; then others.
    assert calibrate(model, ["before"], paths[::-1]).facts == facts
    assert calibrate(model, ["before"], written(tmp_path / "b", pictures[::-1])).facts == facts
    assert calibrate(model, ["before"], paths[:2]).facts.sha256 != facts.sha256


def test_one_image_many_times(tmp_path: Path) -> None:
    calibration = calibrate(model_of(tmp_path), ["before"], written(tmp_path / "images", [smooth(0)] * 2))
    assert "all 2 images are the same" in calibration.facts.warnings


def test_a_graph_that_takes_batches_gets_copies(tmp_path: Path) -> None:
    paths = written(tmp_path / "images", [smooth(0)])
    alone = calibrate(model_of(tmp_path), ["before"], paths)
    proto = bright_proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2
    pair = calibrate(model_of(tmp_path, proto, SPEC.replace(batch=2)), ["before"], paths)
    one, two = alone.histograms["before"], pair.histograms["before"]
    assert (one.low, one.high) == pytest.approx((two.low, two.high), rel=1e-5)
    assert pair.facts == alone.facts


def test_a_semantic_model(tmp_path: Path) -> None:
    """Every pixel of the canvas is of class 1."""
    nodes = [
        helper.make_node("Relu", ["images"], ["seen"], "backbone/Relu"),
        helper.make_node("ReduceMax", ["seen"], ["most"], "head/ReduceMax", axes=[1], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["none"], "head/Mul"),
        helper.make_node("Add", ["none", "score"], ["scores"], "head/Add"),
        helper.make_node("Ceil", ["scores"], ["classes"], "head/Ceil"),
        helper.make_node("Cast", ["classes"], ["labels"], "head/Cast", to=onnx.TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "map",
        [
            helper.make_tensor_value_info("images", 1, [1, 3, "h", "w"]),
            helper.make_tensor_value_info("image_sizes", 7, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("labels", 2, [1, "h", "w"]),
            helper.make_tensor_value_info("scores", 1, [1, "h", "w"]),
        ],
        [
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in {"zero": 0, "score": 0.5}.items()
        ],
    )
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    model = model_of(tmp_path, proto, SPEC.replace(tasks=("semantic",), mask_size=None))
    calibration = calibrate(model, ["seen"], written(tmp_path / "images", [smooth(0), smooth(1)]))
    assert calibration.facts.by_class == {"dot": 2 * 48 * 64, "line": 0}
    assert (calibration.facts.objects, calibration.facts.by_size) == (0, {})
    assert calibration.histograms["seen"].high > 0


def test_refuses_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemask.quantization.calibration.open_runtime", None)
    model = model_of(tmp_path)
    with pytest.raises(CalibrationError, match="there are no images"):
        calibrate(model, TENSORS, [])
    with pytest.raises(CalibrationError, match=r"absent\.png: cannot be read as an image: there is no such file"):
        calibrate(model, TENSORS, [tmp_path / "absent.png"])
    with pytest.raises(CalibrationError, match="3 of 3 images are noise, or of one colour"):
        calibrate(model, TENSORS, written(tmp_path / "noise", [noise(seed) for seed in range(3)]))
    given = dataclasses.replace(model, spec=SPEC.replace(proposals="input"))
    with pytest.raises(CalibrationError, match="takes its proposals from the caller"):
        calibrate(given, TENSORS, written(tmp_path / "images", [smooth(0)]))


def test_refuses_images_on_which_the_model_finds_nothing(tmp_path: Path) -> None:
    paths = written(tmp_path / "images", [smooth(seed) for seed in range(10)])
    model = model_of(tmp_path, blind(bright_proto()))
    assert calibrate(model, ["before"], paths[:9]).facts.objects == 0
    with pytest.raises(CalibrationError, match="the model finds nothing on 10 of 10 images") as caught:
        calibrate(model, ["before"], paths)
    assert caught.value.remedy == "give images like those that it was trained on"


def test_refuses_what_is_no_number(tmp_path: Path) -> None:
    paths = written(tmp_path / "images", [smooth(0)])
    weights = np.zeros((32, 3, 3, 3), np.float32)
    weights[31, 2, 2, 2] = np.nan
    model = model_of(tmp_path, with_value(bright_proto(), "first", weights))
    with pytest.raises(BrokenOutput, match=r"the tensor before holds values that are not numbers, on 000\.png"):
        calibrate(model, ["before"], paths)
    model = model_of(tmp_path, with_value(bright_proto(), "scores/value", np.array([np.nan, 0.1], np.float32)))
    with pytest.raises(BrokenOutput, match="the model gave scores that are not numbers on cpu"):
        calibrate(model, ["before"], paths)
    with pytest.raises(ModelFileError, match="has no tensor nowhere"):
        calibrate(model, ["nowhere"], paths)


def example() -> Calibration:
    histogram = Histogram()
    histogram.add(np.array([-1, 0, 2.5], np.float32), -1, 2.5)
    facts = CalibrationFacts(
        images=2, sha256="0" * 64, objects=3, by_class={"dot": 3}, by_size={"small": 3}, warnings=("a", "b")
    )
    return Calibration({"maps": histogram, "none": Histogram()}, facts)


def test_there_and_back(tmp_path: Path) -> None:
    example().save(tmp_path / "c.npz")
    again = Calibration.load(tmp_path / "c.npz")
    assert again.facts == example().facts
    assert list(again.histograms) == ["maps", "none"]
    for name, histogram in example().histograms.items():
        got = again.histograms[name].to_arrays()
        assert all(np.array_equal(got[key], value) for key, value in histogram.to_arrays().items())
    example().save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    Calibration({}, example().facts).save(tmp_path / "c.npz")
    assert Calibration.load(tmp_path / "c.npz").histograms == {}


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """Writes the example with another index or other arrays."""
    import json

    example().save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    index = json.loads(arrays.pop("calibration").tobytes())
    change(index, arrays)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {"calibration": np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays}.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=True)
            archive.writestr(f"{name}.npy", stream.getvalue())
    return path


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "format: expected edgemask.calibration": lambda index, _: index.update(format="edgemask.run"),
    "format_version: expected": lambda index, _: index.update(format_version="2.0"),
    "facts: expected an object of images": lambda index, _: index.update(facts={"images": 3}),
    "images: expected a whole number": lambda index, _: index["facts"].update(images=0),
    "sha256: expected 64": lambda index, _: index["facts"].update(sha256="no"),
    r"by_class\['dot'\]: expected a whole": lambda index, _: index["facts"].update(by_class={"dot": -1}),
    "by_size: expected a mapping of small": lambda index, _: index["facts"].update(by_size={"huge": 1}),
    r"warnings\[0\]: expected a sentence": lambda index, _: index["facts"].update(warnings=["\x1b[2J"]),
    r"tensors\[1\]: expected text": lambda index, _: index["tensors"].__setitem__(1, 7),
    "tensors: expected each name once": lambda index, _: index.update(tensors=["maps", "maps"]),
    "expected 3 rows": lambda index, _: index["tensors"].append("more"),
    "expected a member counts": lambda _, arrays: arrays.pop("counts"),
    "counts: expected int64": lambda _, arrays: arrays.update(counts=arrays["counts"][:, :-1]),
    "bounds: expected low <= high": lambda _, arrays: arrays.update(bounds=-arrays["bounds"]),
    "little-endian": lambda _, arrays: arrays.update(counts=np.array([{}, {}])),
}


@pytest.mark.parametrize("message", CHANGES)
def test_refuses_a_file_that_is_no_calibration(tmp_path: Path, message: str) -> None:
    path = changed(tmp_path / "c.npz", CHANGES[message])
    with pytest.raises(ModelFileError, match=rf"c\.npz: .*{message}"):
        Calibration.load(path)


def test_refuses_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*c\.npz"):
        Calibration.load(tmp_path / "c.npz")
    (tmp_path / "c.npz").write_bytes(b"text")
    with pytest.raises(ModelFileError, match="expected a whole zip file") as caught:
        Calibration.load(tmp_path / "c.npz")
    assert caught.value.remedy == "calibrate again"


def test_facts_are_checked() -> None:
    with pytest.raises(UsageError, match="objects: expected a whole number"):
        dataclasses.replace(example().facts, objects=-1)
    assert CalibrationFacts.from_record(example().facts.to_record() | {"later": 1}) == example().facts
