"""Peak memory, measured in a process of its own."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contenders import Scripted
from tiny_model import write_tiny
from toy_model import SPEC, write_toy

from edgemask.benchmark.memory import child, gpu_memory, measure_memory, peak_resident
from edgemask.benchmark.opening import FileEntry, ReferenceEntry
from edgemask.benchmark.pytorch import Reference
from edgemask.errors import BrokenOutput
from edgemask.runtimes.options import RuntimeOptions

PIXELS = np.zeros((96, 120, 3), np.uint8)
COLD = RuntimeOptions(cache=False)


def test_a_child_is_not_measured_with_its_parents_memory(tmp_path: Path) -> None:
    """400 MiB that this process once had are not the child's."""
    once = np.ones(50 * 2**20)
    assert (peak_resident() or 0) > 400
    del once
    memory = measure_memory(FileEntry(str(write_toy(tmp_path / "toy.onnx")), "cpu", COLD), PIXELS)
    assert memory is not None
    assert memory.peak is not None
    assert memory.before is not None
    assert 20 < memory.before < memory.peak < 400
    assert memory.gpu is None


def test_what_the_child_does_with_the_pytorch_model(tmp_path: Path) -> None:
    checkpoint, _ = write_tiny(tmp_path)
    reference = Reference(str(checkpoint), None, SPEC.class_names)
    entry = ReferenceEntry("eager", reference, SPEC.replace(min_size=96, max_size=160), "cpu", 1, PIXELS)
    (tmp_path / "job.json").write_text(json.dumps(entry.job()))
    np.save(tmp_path / "image.npy", PIXELS)
    child(str(tmp_path))
    answer = json.loads((tmp_path / "memory.json").read_text())
    assert answer["peak"] >= answer["before"] > 0
    assert answer["gpu"] is None


@pytest.mark.soak
def test_a_child_with_the_pytorch_model(tmp_path: Path) -> None:
    checkpoint, _ = write_tiny(tmp_path)
    reference = Reference(str(checkpoint), None, SPEC.class_names)
    spec = SPEC.replace(min_size=96, max_size=160)
    memory = measure_memory(ReferenceEntry("eager", reference, spec, "cpu", 1, PIXELS), PIXELS)
    assert memory is not None
    assert (memory.peak or 0) > 150  # torch alone
    assert "model" not in vars(reference)  # it was loaded there, not here


def test_an_export_cannot_be_taken_apart_from_what_is_exported() -> None:
    reference = Reference("absent", None, SPEC.class_names)
    assert measure_memory(ReferenceEntry("torchvision-onnx", reference, SPEC, "cpu", 1, PIXELS), PIXELS) is None


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BrokenOutput, match=r"(?s)ended with 1: .*absent\.onnx.*--memory"):
        measure_memory(FileEntry(str(tmp_path / "absent.onnx"), "cpu", COLD), PIXELS)


def driver(processes: list[Any]) -> SimpleNamespace:
    """NVIDIA's management library on a machine with one GPU."""
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: processes,
        NVMLError=RuntimeError,
    )


def test_gpu_memory_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=300 * 2**20)
    other = SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=7)
    monkeypatch.setitem(sys.modules, "pynvml", driver([other, own]))
    assert gpu_memory(Scripted("a", device="cuda:0")) == 300
    assert gpu_memory(Scripted("a", device="cpu")) is None
    # In a container the driver knows the process by another number.
    monkeypatch.setitem(sys.modules, "pynvml", driver([other]))
    assert gpu_memory(Scripted("a", device="tensorrt:0")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_memory(Scripted("a", device="cuda:0")) is None
