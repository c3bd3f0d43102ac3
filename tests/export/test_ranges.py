"""What float16 could not hold is found on a processor that computes in float32, by the name of its tensor."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from toy_model import SPEC, busy_proto

from edgemask.export.half import compute_in_half, half_tensors
from edgemask.export.ranges import overflows
from edgemask.runtimes import ModelFile

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


def file_of(factor: float) -> ModelFile:
    """Two convolutions in float16, the weights of the first one `factor` times those of the toy."""
    proto = onnx.shape_inference.infer_shapes(busy_proto())
    (first,) = (tensor for tensor in proto.graph.initializer if tensor.name == "first")
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) * np.float32(factor), "first"))
    compute_in_half(proto)
    assert half_tensors(proto) == ["before", "between", "maps/half"]
    return ModelFile(Path("m.onnx"), proto.SerializeToString(), proto, SPEC.replace(precision="fp16"), "")


@pytest.mark.parametrize("device", DEVICES)
def test_what_fits_is_not_named(device: str) -> None:
    assert overflows(file_of(1), device, [(image, None) for image in IMAGES]) == {}


@pytest.mark.parametrize("device", DEVICES)
def test_what_does_not_fit_is_named_and_counted_over_all_images(device: str) -> None:
    file = file_of(1000)
    first, second, both = (
        overflows(file, device, [(image, None) for image in images]) for images in (IMAGES[:1], IMAGES[1:], IMAGES)
    )
    assert [*both] == ["before", "between", "maps/half"]
    assert {name: first[name] + second[name] for name in both} == both
    assert both["between"] < both["before"], "of the negative ones nothing is left"


def test_file_is_left_as_it_was() -> None:
    file = file_of(1)
    before = dataclasses.replace(file, proto=onnx.ModelProto.FromString(file.data))
    overflows(file, "cpu", [(IMAGES[0], None)])
    assert file == before
