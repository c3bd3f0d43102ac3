"""The whole of it, on this machine and on one with a driver that crashes."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy_model import write_toy

from edgemask.doctor import Diagnosis, diagnose, examination
from edgemask.doctor.children import Answer, Question
from edgemask.doctor.devices import model_facts, placement_of, trial
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.report import to_json
from edgemask.runtimes import DEVICES, RuntimeOptions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answering(monkeypatch: pytest.MonkeyPatch, **answers: Answer) -> list[Question]:
    """Puts answers in place of those of this machine, by the name of the question; returns what was asked."""
    asked: list[Question] = []
    usual = {"nvidia": Answer(problem="not asked"), "native_libraries": Answer(value=[])}

    def ask(questions: Sequence[Question]) -> list[Answer]:
        asked.extend(questions)
        names = [question.name.partition(":")[2] for question in questions]
        return [answers.get(name, usual.get(name, Answer())) for name in names]

    monkeypatch.setattr(examination, "ask", ask)
    return asked


def test_this_machine_with_a_model(tmp_path: Path, cache: Path) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    found = diagnose(path, ["cpu"])
    (cpu,) = found.devices
    assert (cpu.device, cpu.automatic, cpu.usable, cpu.reason) == ("cpu", True, True, None)
    assert cpu.trial is not None
    assert cpu.trial.open_seconds > 0
    assert cpu.trial.run_seconds > 0
    assert cpu.trial.image == (480, 640)
    assert (cpu.trial.placement, cpu.trial.placed_well) == ("time: 100% on CPUExecutionProvider", True)
    assert (found.asked, found.failed, found.chosen) == (("cpu",), (), None)
    assert found.model is not None
    assert (found.model.opset, found.model.precision, found.model.batch) == (18, "fp32", 1)
    assert found.packages["numpy"] == np.__version__
    assert found.processor.threads <= found.processor.count
    assert found.memory.total is None or found.memory.total > 2**28
    assert (found.cache.folder, found.cache.models) == (str(cache), 0)
    assert {library.name for library in found.libraries} == {"CUDA", "cuDNN", "TensorRT"}
    assert json.loads(to_json(found))["devices"][0]["trial"]["image"] == [480, 640]


def test_a_driver_that_crashes_costs_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a driver with")
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text("int cuInit(unsigned flags) { return *(volatile int *)0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = diagnose(devices=["cpu"])
    assert found.nvidia.problem == "the NVIDIA driver could not be asked: crashed with signal 11 (SIGSEGV)"
    assert found.devices[0].usable
    assert {library.name for library in found.libraries} == {"CUDA", "cuDNN", "TensorRT"}


def test_every_device_is_looked_at_and_the_model_tried_where_it_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    fields = {"open_seconds": 1.0, "run_seconds": 2.0, "image": [480, 640]}
    asked = answering(monkeypatch, check=Answer(value="x"), trial=Answer(value=fields))
    found = diagnose(path)
    assert [one.device for one in found.devices] == [entry.name for entry in DEVICES]
    assert all(one.usable and one.trial is not None for one in found.devices)
    assert found.chosen == "cuda"
    limits = {str(one.arguments["device"]): one.seconds for one in asked if one.name.endswith(":trial")}
    assert limits["cpu"] == examination.TRIAL_LIMIT
    assert limits["tensorrt"] == examination.ENGINE_LIMIT


def test_a_model_that_hangs_or_is_refused_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    answering(monkeypatch, trial=Answer(problem="no answer within 120 s"))
    found = diagnose(path, ["cuda:1", "auto", "openvino"])
    assert found.asked == ("cuda:1", "auto", "openvino:CPU")
    assert [one.device for one in found.devices] == ["cuda", "openvino:GPU", "openvino:CPU", "cpu", "cuda:1"]
    assert {one.reason for one in found.devices} == {"no answer within 120 s"}
    assert {one.remedy for one in found.devices} == {"try another device"}
    assert found.failed == found.asked
    answering(monkeypatch, trial=Answer(problem="cuda cannot\nrun it", remedy="export again"))
    (cuda,) = diagnose(path, ["cuda"]).devices
    assert (cuda.reason, cuda.remedy) == ("cuda cannot run it", "export again")


def test_parts_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Answer(problem="crashed with signal 6 (SIGABRT)")
    missing = Answer(problem="ModuleNotFoundError: No module named 'onnx'")
    answering(
        monkeypatch, nvidia=broken, native_libraries=broken, onnxruntime_build=broken, openvino_devices=broken,
        check=missing,
    )  # fmt: skip
    found = diagnose(devices=["auto"])
    assert found.openvino == ()
    assert {library.problem for library in found.libraries} == {broken.problem}
    assert {one.reason for one in found.devices} == {"No module named 'onnx'"}
    assert "edgemask[cpu]" in (found.devices[0].remedy or "")
    assert found.failed == ("auto",)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no device 'gpu'"):
        diagnose(devices=["gpu"])
    with pytest.raises(ModelFileError, match="cannot read"):
        diagnose(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="options are for opening a model"):
        diagnose(options=RuntimeOptions(threads=1))


def test_a_model_is_tried_with_the_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = answering(monkeypatch, trial=Answer(problem="no"))
    path = write_toy(tmp_path / "toy.onnx")
    diagnose(path, ["cpu"], options=RuntimeOptions(threads=1, cache=tmp_path, library={"session.x": "1"}))
    (question,) = (one for one in asked if one.name.endswith(":trial"))
    options = json.loads(json.dumps(question.arguments))["options"]  # as it goes to the child
    assert RuntimeOptions(**options) == RuntimeOptions(threads=1, cache=str(tmp_path), library={"session.x": "1"})


def test_facts_and_trial_of_a_model(tmp_path: Path) -> None:
    facts = model_facts(write_toy(tmp_path / "toy.onnx"))
    assert facts.bytes == (tmp_path / "toy.onnx").stat().st_size
    assert facts.canvas is None
    assert "--shape HxW" in facts.notes[0]
    assert trial(str(tmp_path / "toy.onnx"), "cpu", {})["run_seconds"] > 0
    with pytest.raises(UsageError, match="precision: expected file on cpu"):
        trial(str(tmp_path / "toy.onnx"), "cpu", {"precision": "fp16"})


def test_placement_in_a_line() -> None:
    cpu = SimpleNamespace(provider="CPUExecutionProvider", share=0.25, arithmetic="")
    cuda = SimpleNamespace(provider="CUDAExecutionProvider", share=0.75, arithmetic="float16")
    rest = SimpleNamespace(provider="CUDAExecutionProvider", share=0.1, arithmetic="float32")
    told = SimpleNamespace(ok=True, problems=(), providers=(cuda, cpu), operators=(cuda, rest, cpu))
    assert placement_of(SimpleNamespace(placement=lambda: told)) == {
        "placement": "time: 75% on CUDAExecutionProvider, 25% on CPUExecutionProvider",
        "placed_well": True,
        "precision": "float16 and float32",
    }
    told.ok, told.problems, told.operators = False, ("not on cuda: 4 RoiAlign on CPUExecutionProvider",), (cpu,)
    found = placement_of(SimpleNamespace(placement=lambda: told))
    assert found["placement"] == "not on cuda: 4 RoiAlign on CPUExecutionProvider"
    assert (found["placed_well"], found["precision"]) == (False, None)

    def refuse() -> None:
        raise DeviceUnavailable("no profile\nhere", "none")

    assert placement_of(SimpleNamespace(placement=refuse)) == {
        "placement": "where its parts run is not known: no profile here"
    }


def test_a_diagnosis_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    found = diagnose()
    assert isinstance(found, Diagnosis)
    with pytest.raises(AttributeError):
        found.python = "4"  # type: ignore[misc]
