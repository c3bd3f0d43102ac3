"""What goes wrong together."""

import pytest

from edgemask.doctor.conflicts import conflicts
from edgemask.doctor.records import Jetson, Library

ORIN = Jetson(model="Orin", l4t="36.4.3", jetpack="6.2", python="3.10", cuda="12.6", cudnn="9.3", tensorrt="10.3")
OLD = Jetson(model="Orin", l4t="36.3.0", jetpack="6.0", python="3.10", cuda="12.2", cudnn="8.9", tensorrt="8.6")


def test_a_sound_environment_has_none() -> None:
    installed = {"onnxruntime-gpu": "1.31.1", "torch": "2.15.0", "openvino": "2026.4.1"}
    tensorrt = Library(name="TensorRT", version="10.13.0")
    assert conflicts(installed, runtime_cuda="13.0", torch_cuda="13.2", libraries=[tensorrt]) == ()
    assert conflicts({}) == ()


def test_two_runtimes_that_install_the_same_module() -> None:
    (found,) = conflicts({"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.31.1"})
    assert "onnxruntime and onnxruntime-gpu are installed and overwrite each other" in found.problem
    assert found.remedy == "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'edgemask[cuda]'"


def test_pytorch_for_another_cuda() -> None:
    installed = {"onnxruntime-gpu": "1.31.1", "torch": "2.15.0"}
    (found,) = conflicts(installed, runtime_cuda="13.0", torch_cuda="12.6")
    assert "PyTorch 2.15.0 was built for CUDA 12.6, onnxruntime-gpu 1.31.1 for CUDA 13.0" in found.problem
    assert conflicts(installed, runtime_cuda=None, torch_cuda="12.6") == ()


@pytest.mark.parametrize(("version", "old"), [("1.26.0", True), ("1.9.1", True), ("1.27.0", False), ("2.0", False)])
def test_a_runtime_without_the_kernel_of_roi_align(version: str, old: bool) -> None:
    found = conflicts({"onnxruntime-gpu": version})
    assert [("RoiAlign on the CPU" in one.problem) for one in found] == ([True] if old else [])
    assert conflicts({"onnxruntime": version}) == ()  # the CPU has one


def test_tensorrt_that_cannot_read_our_files() -> None:
    (found,) = conflicts({}, libraries=[Library(name="TensorRT", version="8.6.2")])
    assert "TensorRT 8.6.2, which cannot read files of op set 18" in found.problem
    (found,) = conflicts({}, jetson=OLD, python="3.10.4")
    assert "JetPack 6.0 brings TensorRT 8.6" in found.problem
    # What is there counts, not what JetPack brought.
    newer = [Library(name="TensorRT", version="10.3.0")]
    assert conflicts({}, jetson=OLD, libraries=newer, python="3.10.4") == ()


def test_wheels_that_do_not_fit_a_jetson() -> None:
    (found,) = conflicts({"onnxruntime-gpu": "1.31.1"}, jetson=ORIN, runtime_cuda="13.0", python="3.12.3")
    assert "built for CUDA 13.0, and JetPack 6.2 brings CUDA 12.6" in found.problem
    (found,) = conflicts({"onnxruntime": "1.31.1"}, jetson=ORIN, python="3.12.3")
    assert "do not fit this Python 3.12.3" in found.problem
    assert conflicts({"onnxruntime-gpu": "1.31.1"}, jetson=ORIN, runtime_cuda="12.6", python="3.11.2") == ()
    assert conflicts({}, jetson=Jetson(model="Orin", l4t=None), python="3.12.3") == ()
