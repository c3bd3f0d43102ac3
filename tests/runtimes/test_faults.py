"""Faults of a machine, made on purpose: each is one typed error that names its cause, and never a run on the CPU.

Each case is a process of its own with the real loader, the real ONNX Runtime and a driver of ours.
"""

import importlib.util
from pathlib import Path

import pytest
from stub_driver import compiled_driver, in_process, packages_without
from toy_model import write_toy

SCRIPT = """
import json, logging, sys
import numpy, edgemask
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("edgemask").addHandler(handler)
path, device, fallback, *options = sys.argv[1:]
from edgemask.runtimes.options import parse_options
try:
    with edgemask.load(path, device=device, fallback=fallback == "True", options=parse_options(options)) as detector:
        found = len(detector.predict(numpy.zeros((64, 64, 3), numpy.uint8)))
        answer = {"device": detector.device, "found": found}
except edgemask.EdgemaskError as error:
    answer = {"error": type(error).__name__, "problem": error.problem, "remedy": error.remedy}
print(json.dumps(answer | {"lines": lines}))
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime-gpu")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built without CUDA")
    return compiled_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "m.onnx")


# Device asked for, what the driver is made to say, packages that are hidden, words of the problem, words of the remedy.
FAULTS = {
    "no GPU": ("cuda", {"STUB_COUNT": "0"}, (), "does not work: it shows no GPU", "CUDA_VISIBLE_DEVICES"),
    "a driver half updated": ("cuda", {"STUB_INIT": "803"}, (), "its parts are of different versions", "nvidia-smi"),
    "a broken driver": ("cuda", {"STUB_INIT": "999"}, (), "it answers with error 999", "nvidia-smi must show the GPU"),
    "a driver that fails late": ("cuda", {"STUB_NAME": "46"}, (), "it answers with error 46", "nvidia-smi"),
    "another CUDA major": ("cuda", {"STUB_VERSION": "9020"}, (), "runs CUDA 9.2 at most", "update the driver, or"),
    "an unknown device number": ("cuda:7", {}, (), "there is no GPU 7: the driver shows 0 (Stub GPU), 1", "cuda:0"),
    "no CUDA libraries": (
        "cuda",
        {},
        ("nvidia/cu12", "nvidia/cu13"),
        "the library libcu",
        "pip install 'edgemask[cuda",
    ),
    "hidden cuDNN": ("cuda", {}, ("nvidia/cudnn",), "the library libcudnn.so.9 is missing", "install nvidia-cudnn-cu"),
    "no TensorRT": ("tensorrt", {}, (), "the library libnvinfer.so.10 is missing", "pip install 'tensorrt-cu"),
    "a GPU on which CUDA does not start": ("cuda", {}, (), "CUDA failure", "`edgemask doctor`"),
    "no OpenVINO": ("openvino:CPU", {}, ("openvino",), "openvino cannot be loaded", "pip install 'edgemask[openvino]'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_typed_error(driver: Path, model: Path, tmp_path: Path, fault: str) -> None:
    device, setting, hidden, problem, remedy = FAULTS[fault]
    packages = packages_without(tmp_path, *hidden) if hidden else None
    answer = in_process(SCRIPT, model, device, False, driver=driver, packages=packages, **setting)
    assert answer.get("error") == "DeviceUnavailable", answer
    assert problem in answer["problem"]
    assert remedy in answer["remedy"]
    assert "/onnxruntime_src/" not in answer["problem"]
    assert answer["lines"] == []


@pytest.mark.parametrize("fault", ["no GPU", "a GPU on which CUDA does not start"])
def test_a_fallback_is_taken_where_it_was_asked_for(driver: Path, model: Path, fault: str) -> None:
    device, setting, _, problem, _ = FAULTS[fault]
    answer = in_process(SCRIPT, model, device, True, driver=driver, **setting)
    assert answer["device"] in ("openvino:CPU", "cpu")
    assert answer["found"] == 2
    assert answer["lines"][0].startswith(f"m.onnx runs on {answer['device']}, not on cuda: ")
    assert problem in answer["lines"][0]


@pytest.mark.parametrize(
    ("device", "option", "problem"),
    [
        ("cpu", "precision=bf16", "precision: expected file on cpu, got 'bf16'"),
        pytest.param("openvino:CPU", "NO_SUCH_THING=1", "NO_SUCH_THING", marks=pytest.mark.openvino),
        pytest.param("openvino:CPU", "PERFORMANCE_HINT=SOON", "SOON", marks=pytest.mark.openvino),
    ],
)
def test_an_option_that_the_device_does_not_have(model: Path, device: str, option: str, problem: str) -> None:
    answer = in_process(SCRIPT, model, device, False, option, driver=None)
    assert answer.get("error") == "UsageError", answer
    assert problem in answer["problem"]
