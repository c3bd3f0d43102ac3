"""The device `torch`: a checkpoint behind the interface of a detector, bit for bit the reference."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_model import write_toy

import edgemask
from edgemask import Detections
from edgemask.checkpoints import load_checkpoint
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.reference import ReferenceDetector
from edgemask.runtimes import Detector, RuntimeOptions
from edgemask.scenes import draw_scene

SAMPLE = Path(edgemask.__file__).parent / "assets" / "sample.safetensors"
IMAGES = [draw_scene(index, size=128).image for index in range(2)]


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with edgemask.load(SAMPLE, device="torch") as detector:
        yield detector


@pytest.fixture(scope="module")
def expected() -> list[Detections]:
    reference = ReferenceDetector(*load_checkpoint(SAMPLE))  # type: ignore[arg-type]
    return [reference.predict(image) for image in IMAGES]


def same(one: object, other: Detections) -> bool:
    assert isinstance(one, Detections)
    assert one.masks is not None
    assert other.masks is not None
    pairs = ((one.boxes, other.boxes), (one.scores, other.scores), (one.labels, other.labels), (one.masks, other.masks))
    return len(other) > 0 and all(np.array_equal(a, b) for a, b in pairs)


def test_it_is_the_reference(detector: Detector, expected: list[Detections]) -> None:
    assert detector.device == "torch:cpu"
    assert detector.refusals == ()
    assert same(detector.predict(IMAGES[0]), expected[0])
    assert all(map(same, detector.predict(IMAGES), expected))


def test_a_stream(detector: Detector, expected: list[Detections]) -> None:
    for image, (pixels, found), one in zip(IMAGES, detector.stream(iter(IMAGES)), expected, strict=True):
        np.testing.assert_array_equal(pixels, image)
        assert same(found, one)


def test_what_pytorch_has_not(detector: Detector) -> None:
    with pytest.raises(UsageError, match="has no graph to run"):
        detector.run(np.zeros((1, 3, 64, 64), np.float32), np.array([[64, 64]]))
    with pytest.raises(UsageError, match="all of this model runs in PyTorch on cpu"):
        detector.placement()
    with pytest.raises(UsageError, match="this model detects objects"):
        detector.segment(IMAGES[0])
    with pytest.raises(UsageError, match="proposals: expected None"):
        detector.predict(IMAGES[0], proposals=[[0, 0, 9, 9]])


def test_a_closed_one_says_so() -> None:
    detector = edgemask.load(SAMPLE, device="torch:cpu")
    detector.close()
    for call in (detector.predict, lambda image: next(detector.stream([image]))):
        with pytest.raises(UsageError, match="this detector was closed"):
            call(IMAGES[0])
    detector.close()


@pytest.mark.parametrize("device", ["auto", "cpu", "torch:gpu", "torch:cuda:x"])
def test_a_checkpoint_runs_on_torch_alone(device: str) -> None:
    with pytest.raises(UsageError, match="is a checkpoint, which runs on torch") as caught:
        edgemask.load(SAMPLE, device=device)
    assert "edgemask export" in str(caught.value.remedy)


@pytest.mark.parametrize("device", ["torch", "torch:cuda"])
def test_an_onnx_file_does_not_run_on_torch(tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match="torch runs a PyTorch model, not an ONNX file"):
        edgemask.load(write_toy(tmp_path / "m.onnx"), device=device)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceUnavailable, match="PyTorch sees no GPU for torch:cuda:99"):
        edgemask.load(SAMPLE, device="torch:cuda:99")


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    edgemask.load(SAMPLE, device="torch", options=RuntimeOptions(threads=3)).close()
    assert asked == [3]
    with pytest.raises(UsageError, match="precision: expected file on torch"):
        edgemask.load(SAMPLE, device="torch", options=RuntimeOptions(precision="bf16"))
    with pytest.raises(UsageError, match="torch has no option"):
        edgemask.load(SAMPLE, device="torch", options=RuntimeOptions(library={"a": "1"}))


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFileError):
        edgemask.load(tmp_path / "a.safetensors", device="torch")
