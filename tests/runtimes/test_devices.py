"""Which device is chosen: the one named or an error; with `auto` the first that works, and why the others did not."""

import ctypes
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from toy_model import write_toy

import edgemask
from edgemask.cli import main
from edgemask.errors import DeviceUnavailable, OutOfMemory, UsageError
from edgemask.runtimes import DEVICES, ModelFile, RuntimeOptions, devices, nvidia, read_model
from edgemask.runtimes.devices import Device, open_runtime
from edgemask.runtimes.options import UNCACHED
from edgemask.runtimes.ort_gpu import OrtCuda
from edgemask.runtimes.ov import OpenVino
from edgemask.runtimes.profiles import NodeRun
from edgemask.runtimes.runtime import Array, Runtime


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "m.onnx")


@pytest.fixture(scope="module")
def model(path: Path) -> ModelFile:
    return read_model(path)


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with an NVIDIA GPU too, these tests tell of one without."""
    load = ctypes.CDLL

    def load_all_but_the_driver(name: str | None, *arguments: Any, **options: Any) -> ctypes.CDLL:
        if name in {"libcuda.so.1", "nvcuda.dll"}:
            raise OSError(f"{name}: cannot open shared object file")
        return load(name, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", load_all_but_the_driver)


class Fake(Runtime):
    """Opens where `reasons` has nothing against it; notes what was asked of it."""

    reasons: ClassVar[dict[str, DeviceUnavailable]]
    failures: ClassVar[dict[str, Exception]]
    asked: ClassVar[list[str]]

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        cls.asked.append(f"? {target}")
        return cls.reasons.get(target)

    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        self.asked.append(f"open {target}")
        if target in self.failures:
            raise self.failures[target]
        self.device = target

    def run(self, images: Array, image_sizes: Array) -> dict[str, Array]:
        return {}

    @property
    def promised(self) -> tuple[str, ...]:
        return ()

    def profile(self, model: ModelFile, inputs: Any) -> tuple[NodeRun, ...]:
        return ()

    def close(self) -> None:
        self.asked.append("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """All devices of `DEVICES`, each opened by `Fake` with its name as the target."""
    faked = tuple(Device(entry.name, Fake, entry.name, entry.automatic) for entry in DEVICES)
    monkeypatch.setattr(devices, "DEVICES", faked)
    Fake.reasons, Fake.failures, Fake.asked = {}, {}, []
    return Fake


def test_order_of_auto() -> None:
    assert [entry.name for entry in DEVICES if entry.automatic] == ["cuda", "openvino:GPU", "openvino:CPU", "cpu"]
    others = {"tensorrt", "openvino:NPU", "openvino:AUTO"}
    assert {entry.name for entry in DEVICES if not entry.automatic} == others


def test_auto_takes_the_first_that_works_and_asks_no_further(model: ModelFile, fake: type[Fake]) -> None:
    runtime, refusals = open_runtime(model, "auto")
    assert (runtime.device, refusals) == ("cuda", ())
    assert fake.asked == ["? cuda", "open cuda"]


def test_auto_keeps_a_line_for_each_refusal(model: ModelFile, fake: type[Fake]) -> None:
    fake.reasons = {"cuda": DeviceUnavailable("no\n  driver", "install it")}
    fake.failures = {"openvino:GPU": OutOfMemory("too small", "use smaller images")}
    runtime, refusals = open_runtime(model, "auto")
    assert runtime.device == "openvino:CPU"
    assert refusals == ("cuda: no driver: install it", "openvino:GPU: too small: use smaller images")
    assert fake.asked == ["? cuda", "? openvino:GPU", "open openvino:GPU", "? openvino:CPU", "open openvino:CPU"]


def test_auto_lists_every_reason_when_nothing_works(model: ModelFile, fake: type[Fake]) -> None:
    fake.reasons = {
        entry.name: DeviceUnavailable(f"reason {number}", f"remedy {number}") for number, entry in enumerate(DEVICES)
    }
    with pytest.raises(DeviceUnavailable) as caught:
        open_runtime(model, "auto")
    assert caught.value.problem.splitlines()[1:] == [
        "cuda: reason 0: remedy 0",
        "openvino:GPU: reason 1: remedy 1",
        "openvino:CPU: reason 2: remedy 2",
        "cpu: reason 3: remedy 3",
    ]


def test_auto_does_not_hide_a_fault_of_ours(model: ModelFile, fake: type[Fake]) -> None:
    fake.failures = {"cuda": KeyError("a fault")}
    with pytest.raises(KeyError):
        open_runtime(model, "auto")


@pytest.mark.parametrize(
    ("name", "reasons", "expected"),
    [
        ("cpu", {}, True),
        ("openvino", {}, True),
        ("openvino:GPU", {}, False),
        ("cuda:0", {}, False),
        ("torch:cuda", {}, False),
        ("auto", {}, False),
        ("auto", {"cuda", "openvino:GPU"}, True),
        ("auto", {"cuda", "openvino:GPU", "openvino:CPU", "cpu"}, False),
    ],
)
def test_which_devices_use_the_processors(fake: type[Fake], name: str, reasons: set[str], expected: bool) -> None:
    fake.reasons = {missing: DeviceUnavailable("it is not there") for missing in reasons}
    assert devices.uses_processors(name) is expected


@pytest.mark.parametrize(("name", "fallback"), [("auto", False), ("cuda", True)])
def test_a_wrong_option_does_not_choose_the_device(
    model: ModelFile, fake: type[Fake], name: str, fallback: bool
) -> None:
    fake.failures = {"cuda": UsageError("cuda has no option streams")}
    with pytest.raises(UsageError, match="no option streams"):
        open_runtime(model, name, fallback=fallback)
    assert fake.asked == ["? cuda", "open cuda"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": None}, "device: expected the name of one, such as auto or cuda:0, got None"),
        ({"options": {"threads": 2}}, "options: expected RuntimeOptions, got {'threads': 2}"),
    ],
)
def test_arguments_that_cannot_be_meant(path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        edgemask.load(path, **values)


@pytest.mark.parametrize("name", [entry.name for entry in DEVICES])
def test_a_device_named_is_that_one_or_an_error(model: ModelFile, fake: type[Fake], name: str) -> None:
    runtime, refusals = open_runtime(model, name)
    assert (runtime.device, refusals) == (name, ())
    fake.reasons = {name: DeviceUnavailable("it is switched off", "switch it on")}
    with pytest.raises(DeviceUnavailable, match="it is switched off\nswitch it on"):
        open_runtime(model, name)
    fake.reasons, fake.failures = {}, {name: OutOfMemory("too small", "use smaller images")}
    with pytest.raises(OutOfMemory, match="too small"):
        open_runtime(model, name)
    assert fake.asked == [f"? {name}", f"open {name}", f"? {name}", f"? {name}", f"open {name}"]


@pytest.mark.parametrize(
    ("name", "target"), [("openvino", "openvino:CPU"), ("cuda:0", "cuda"), ("tensorrt:0", "tensorrt")]
)
def test_short_and_long_names(model: ModelFile, fake: type[Fake], name: str, target: str) -> None:
    assert open_runtime(model, name)[0].device == target


def test_a_fallback_is_asked_for_and_warned_of(
    model: ModelFile, fake: type[Fake], caplog: pytest.LogCaptureFixture
) -> None:
    fake.reasons = {"openvino:NPU": DeviceUnavailable("it is switched off", "switch it on")}
    fake.failures = {"cuda": OutOfMemory("too small", "use smaller images")}
    with pytest.raises(DeviceUnavailable, match="switched off"):
        open_runtime(model, "openvino:NPU")
    runtime, refusals = open_runtime(model, "openvino:NPU", fallback=True)
    assert runtime.device == "openvino:GPU"
    lines = ("openvino:NPU: it is switched off: switch it on", "cuda: too small: use smaller images")
    assert refusals == lines
    assert caplog.messages == [f"m.onnx runs on openvino:GPU, not on {lines[0]}"]


def test_a_fallback_that_is_not_needed_says_nothing(
    model: ModelFile, fake: type[Fake], caplog: pytest.LogCaptureFixture
) -> None:
    runtime, refusals = open_runtime(model, "cpu", fallback=True)
    assert (runtime.device, refusals, caplog.messages) == ("cpu", (), [])


def test_torch_wants_a_checkpoint(path: Path) -> None:
    with pytest.raises(UsageError, match="torch runs a PyTorch model, not an ONNX file"):
        edgemask.load(path, device="torch")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "openvino:TPU", "openvino:", "cuda:", "cuda:x", "cuda:-1", "auto "])
def test_unknown_device_lists_the_known_ones(path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        edgemask.load(path, device=name)
    assert repr(name) in caught.value.problem
    known = (
        "auto, cuda, openvino:GPU, openvino:CPU, cpu, tensorrt, openvino:NPU, openvino:AUTO, cuda:N, tensorrt:N, torch"
    )
    assert str(caught.value.remedy).endswith(f"the devices are: {known}")


@pytest.mark.openvino
def test_auto_without_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Core(openvino.Core):  # type: ignore[misc]  # noqa: TID251  shared_core keeps it, too
        available_devices = ("CPU",)

    monkeypatch.setattr(openvino, "Core", Core)
    with edgemask.load(path) as detector:
        assert detector.device == "openvino:CPU"
        cuda, openvino_gpu = detector.refusals
    assert cuda.startswith("cuda: ")
    assert openvino_gpu.startswith("openvino:GPU: OpenVINO sees no GPU here, only CPU")


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if onnxruntime-gpu alone were installed."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OrtCuda.provider, "CPUExecutionProvider"])
    monkeypatch.setattr(nvidia, "_is_installed", lambda package: package == "onnxruntime-gpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
@pytest.mark.usefixtures("with_cuda")
def test_cuda_without_driver(path: Path, name: str) -> None:
    with pytest.raises(DeviceUnavailable, match=r"no NVIDIA driver here \(.*cannot open") as caught:
        edgemask.load(path, device=name)
    assert "nvidia-smi" in str(caught.value.remedy)


@pytest.mark.usefixtures("with_cuda")
def test_cuda_without_driver_on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = path.with_name("a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    assert main(["predict", str(path), str(picture), "--device", "cuda"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: there is no NVIDIA driver here")
    assert printed.err.endswith("install it; nvidia-smi must show the GPU\n")


def test_both_packages_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: package)
    reason = OrtCuda.unavailable("0")
    assert reason is not None
    assert "onnxruntime and onnxruntime-gpu are both installed" in reason.problem
    assert "pip uninstall onnxruntime onnxruntime-gpu" in str(reason.remedy)


def test_onnxruntime_without_cuda(monkeypatch: pytest.MonkeyPatch, with_cuda: None) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    reason = OrtCuda.unavailable("0")
    assert reason is not None
    assert reason.problem == "this onnxruntime was built without CUDA"


def broken_import(name: str) -> Callable[..., Any]:
    original = __import__

    def refuse(wanted: str, *arguments: Any) -> Any:
        if wanted == name:
            raise ImportError(f"lib{name}.so is broken")
        return original(wanted, *arguments)

    return refuse


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("cpu", "onnxruntime", "cpu"), ("cuda", "onnxruntime", "cuda"), ("openvino", "openvino", "openvino")],
)
def test_a_library_that_cannot_be_imported(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    monkeypatch.setattr("builtins.__import__", broken_import(package))
    with pytest.raises(DeviceUnavailable, match=rf"{package} cannot be \w+ \(lib{package}.so is broken\)") as caught:
        edgemask.load(path, device=name)
    assert caught.value.remedy == f"pip install 'edgemask[{extra}]'"


@pytest.mark.openvino
def test_openvino_device_that_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Core:
        available_devices = ("CPU", "GPU.0", "GPU.1")

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(DeviceUnavailable, match=r"sees no NPU here, only CPU, GPU\.0, GPU\.1\n"):
        edgemask.load(path, device="openvino:NPU")
    assert OpenVino.unavailable("GPU") is None
