"""`edgemask doctor` at the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_model import write_toy

from edgemask.cli import main
from edgemask.doctor import (
    Cache,
    Conflict,
    DeviceVerdict,
    Diagnosis,
    Gpu,
    Jetson,
    Library,
    Memory,
    ModelFacts,
    Nvidia,
    OpenVinoDevice,
    Processor,
    Trial,
)

BARE = Diagnosis(
    system="Linux 5.15",
    container=False,
    python="3.12.3",
    packages={"numpy": "2.4.6"},
    processor=Processor(name="Cortex", architecture="aarch64", features=("asimd",), count=8, threads=6),
    memory=Memory(total=8 * 2**30, available=6 * 2**30, limit=None),
    jetson=None,
    nvidia=Nvidia(problem="there is no NVIDIA driver here", remedy="install it"),
    libraries=(Library(name="CUDA", problem="libcudart.so.13 is not found"),),
    openvino=(),
    cache=Cache(),
    conflicts=(),
    model=None,
    devices=(
        DeviceVerdict(device="cuda", automatic=True, usable=False, reason="no driver", remedy="pip install x"),
        DeviceVerdict(device="cpu", automatic=True, usable=True),
    ),
    asked=(),
)
JETSON = replace(
    BARE,
    container=True,
    memory=Memory(total=8 * 2**30, available=6 * 2**30, limit=4 * 2**30),
    jetson=Jetson(
        model="NVIDIA Orin", l4t="36.4.3", jetpack="6.2", python="3.10", cuda="12.6", cudnn="9.3", tensorrt="10.3"
    ),
    nvidia=Nvidia(cuda="12.6", gpus=(Gpu(index=0, name="Orin", compute_capability="8.7", memory=8 * 2**30),)),
    libraries=(Library(name="CUDA", version="12.6"), Library(name="TensorRT", version="10.3.0")),
    openvino=(OpenVinoDevice(name="CPU", full_name="Cortex"),),
    cache=Cache(folder="/home/u/.cache/edgemask", models=1, bytes=2_500_000),
    conflicts=(Conflict(problem="two packages", remedy="pip uninstall one"),),
    model=ModelFacts(
        path="m.onnx", bytes=10_000_000, precision="fp16", opset=18, canvas=(480, 640), batch=1, notes=("a note",)
    ),
    devices=(
        DeviceVerdict(
            device="cuda",
            automatic=True,
            usable=True,
            trial=Trial(
                open_seconds=2.5,
                run_seconds=0.25,
                image=(480, 640),
                placement="all of the work on cuda",
                placed_well=True,
                precision="fp16",
            ),
        ),
    ),
)


def show(
    found: Diagnosis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    monkeypatch.setattr("edgemask.doctor.diagnose", lambda model, devices, options: found)
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def test_a_machine_without_anything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = show(BARE, monkeypatch, capsys)
    assert code == 0
    lines = out.splitlines()
    assert "processor     Cortex, 6 of 8 processors for this process" in lines
    assert "memory        total 8.0 GiB, free 6.0 GiB" in lines
    assert "GPU           none of NVIDIA: there is no NVIDIA driver here" in lines
    assert "CUDA          none: libcudart.so.13 is not found" in lines
    assert "OpenVINO      sees no device" in lines
    assert not any(line.startswith(("Jetson", "cache", "Watch out", "This model")) for line in lines)
    works = lines.index("What works here")
    assert lines[works + 1 : works + 5] == [
        "cuda  no  no driver",
        "          pip install x",
        "cpu   ok",
        "auto takes cpu",
    ]
    assert lines[-1] == "next: edgemask doctor MODEL.onnx"


def test_a_jetson_with_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = show(JETSON, monkeypatch, capsys, "m.onnx")
    assert code == 0
    for text in (
        "in a container",
        "limited to 4.0 GiB",
        "NVIDIA Orin, Jetson Linux 36.4.3: JetPack 6.2, which brings Python 3.10, CUDA 12.6, cuDNN 9.3, TensorRT 10.3",
        "0: Orin, compute capability 8.7, 8.0 GiB; driver for CUDA up to 12.6",
        "/home/u/.cache/edgemask, 1 compiled model, 2.5 MB",
        "480 x 640 (H x W), 1 per run",
        "- a note",
        "- two packages\n  pip uninstall one",
        "opened in 2.50 s; first run of 480 x 640 in 0.250 s; computes in fp16; all of the work on cuda",
        "next: edgemask predict m.onnx IMAGE -o DIR --device cuda",
    ):
        assert text in out, text
    board = Jetson(model="", l4t=None)
    _, out = show(replace(JETSON, jetson=board), monkeypatch, capsys)
    assert "a Jetson, Jetson Linux of an unknown release, of no JetPack that is known here" in out


def test_a_device_that_was_asked_for_and_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(BARE, asked=("cuda", "cpu"))
    code, out = show(found, monkeypatch, capsys, "--device", "cuda", "--device", "cpu")
    assert code == 3
    assert "auto takes" not in out
    code, out = show(found, monkeypatch, capsys, "--device", "cuda", "--json")
    assert code == 3
    assert json.loads(out)["failed"] == ["cuda"]
    code, _ = show(replace(BARE, asked=("cpu", "auto")), monkeypatch, capsys, "--device", "cpu")
    assert code == 0


def test_what_the_machine_says_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = replace(BARE.devices[0], reason="\x1b[2J[bold]gone", remedy="\x07")
    _, out = show(replace(BARE, devices=(bad,)), monkeypatch, capsys)
    assert "\\x1b[2J[bold]gone" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_this_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMASK_CACHE", str(tmp_path / "cache"))
    path = write_toy(tmp_path / "toy.onnx")
    assert main(["doctor", str(path), "--device", "cpu", "--device", "cuda:97", "--json"]) == 3
    record = json.loads(capfd.readouterr().out)
    assert [(one["device"], one["usable"]) for one in record["devices"]] == [("cpu", True), ("cuda:97", False)]
    assert record["devices"][0]["trial"]["open_seconds"] > 0
    assert record["devices"][1]["reason"]
    assert record["devices"][1]["remedy"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--device", "gpu"], "there is no device 'gpu'"), (["none.onnx"], "cannot read none.onnx"), (["a", "b"], "b")],
)
def test_wrong_use_ends_with_2(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert message in capfd.readouterr().err
