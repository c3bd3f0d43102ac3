"""Files of a fixed batch: any number of images, of any sizes, each comes back once and in order."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from toy_model import SPEC

from edgemask.runtimes import Detector, read_model, write_model


def of_batch(count: int) -> onnx.ModelProto:
    """Takes `count` images at a time and gives one box for each, `[0, 0, width inside the canvas, brightest pixel]`."""
    nodes = [
        helper.make_node("Cast", ["image_sizes"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["images"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["brightest", "one"], ["column"]),
        helper.make_node("Slice", ["sides", "one", "two", "one"], ["widths"]),
        helper.make_node("Mul", ["widths", "zero"], ["corner"]),
        helper.make_node("Concat", ["corner", "corner", "widths", "column"], ["boxes"], axis=1),
        helper.make_node("Mul", ["brightest", "small"], ["scores"]),
        helper.make_node("Identity", ["numbers"], ["batch_index"]),
        helper.make_node("Identity", ["ones"], ["labels"]),
    ]
    values: dict[str, NDArray[Any]] = {
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "zero": np.zeros(1, np.float32),
        "small": np.array([0.001], np.float32),
        "numbers": np.arange(count),
        "ones": np.ones(count, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "batch",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [count, 3, "rows", "columns"]),
            helper.make_tensor_value_info("image_sizes", TensorProto.INT64, [count, 2]),
        ],
        [
            helper.make_tensor_value_info("batch_index", TensorProto.INT64, [count]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [count, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [count]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [count]),
        ],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    # Of operator set 17, whose ReduceMax has its axes as an attribute.
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def grey(level: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)])
@pytest.mark.parametrize("canvas", [None, (64, 128)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_fixed_batch_takes_any_number(
    tmp_path: Path, device: str, canvas: tuple[int, int] | None, count: int
) -> None:
    """Fewer than a batch, and images of different canvases, each come back once and in order."""
    spec = SPEC.replace(tasks=("boxes",), mask_size=None, batch=3, canvas=canvas)
    write_model(of_batch(3), spec, tmp_path / "m.onnx")
    images = [grey(10 + index, width=64 if index % 3 else 128) for index in range(count)]
    calls: list[tuple[int, ...]] = []

    class Noting(Detector):
        def run(self, images: NDArray[np.float32], *others: Any) -> dict[str, Any]:
            calls.append(images.shape)
            return super().run(images, *others)

    with Noting(read_model(tmp_path / "m.onnx"), device) as detector:
        found = detector.predict(images)
        assert [one.boxes.tolist() for one in found] == [[[0, 0, image.shape[1], image[0, 0, 0]]] for image in images]
        assert [one.image_size for one in found] == [image.shape[:2] for image in images]
        assert all(one.masks is None for one in found)
    assert {shape[0] for shape in calls} == {3}
    if canvas is not None:
        assert len(calls) == -(-count // 3), "no more runs than needed"
