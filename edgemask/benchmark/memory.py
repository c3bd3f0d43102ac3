"""Peak memory of a contestant, by itself in a process of its own."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.benchmark.contestants import Contestant, Picture
from edgemask.benchmark.opening import Entry, entry_of, torch_threads
from edgemask.benchmark.records import Memory
from edgemask.errors import BrokenOutput, EdgemaskError
from edgemask.files import scratch

_RUNS = 3  # a runtime's arena has its size after the first; a compiled piece, after the second
_MEBIBYTE = 2**20
# A program of one line: multiprocessing would run the caller's own main module again.
_CHILD = "import sys; from edgemask.benchmark.memory import child; child(sys.argv[1])"


def measure_memory(entry: Entry, pixels: Picture) -> Memory | None:
    """Opens a contestant in a new process and runs it there.

    Args:
        entry: who.
        pixels: uint8 [H, W, 3] RGB.

    Returns:
        What the process took; None where the contestant cannot be taken apart from how it is made.

    Raises:
        BrokenOutput: the process did not come to an end as it should.
    """
    job = entry.job()
    if job is None:
        return None
    with scratch() as root:
        (root / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.save(root / "image.npy", pixels)
        result = _run([sys.executable, "-P", "-c", _CHILD, str(root)])
        try:
            return Memory(**json.loads((root / "memory.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            words = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            problem = f"the process that measures memory ended with {result.returncode}: {words[:300]}"
            raise BrokenOutput(problem, "leave out --memory") from error


def child(folder: str) -> None:
    """What that process does; its answer is a file, since libraries may print."""
    root = Path(folder)
    job: dict[str, Any] = json.loads((root / "job.json").read_text(encoding="utf-8"))
    pixels: Picture = np.load(root / "image.npy")
    before = peak_resident()
    try:
        memory = _measured(entry_of(job, pixels), job.get("threads"), pixels, before)
    except EdgemaskError as error:
        sys.exit(error.problem)
    (root / "memory.json").write_text(json.dumps(memory), encoding="utf-8")


def peak_resident() -> float | None:
    """Largest resident set of this process so far, MiB; None where the system does not tell.

    Linux starts a new process with the peak of its parent in `ru_maxrss`, not in `VmHWM`.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 / _MEBIBYTE if found else None


def gpu_memory(contestant: Contestant) -> float | None:
    """MiB of GPU memory that this process holds: by NVIDIA's management library, or of PyTorch, by PyTorch.

    None where no GPU is used, or neither is there to ask.
    """
    if not re.search("cuda|tensorrt", contestant.device):
        return None
    held = _by_driver()
    if held is None and contestant.device.startswith("torch:"):
        import torch

        held = int(torch.cuda.max_memory_reserved(contestant.device.removeprefix("torch:")))
    return None if held is None else held / _MEBIBYTE


def _by_driver() -> int | None:
    """Bytes on all GPUs; in a container the driver may know this process by another number, and says nothing."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        processes = [one for handle in handles for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return None
    own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return sum(own) if own and None not in own else None


def _measured(entry: Entry, threads: int | None, pixels: Picture, before: float | None) -> dict[str, float | None]:
    def run() -> dict[str, float | None]:
        contestant = entry.open()
        for _ in range(_RUNS):
            contestant.predict([pixels])
        answer = {"peak": peak_resident(), "before": before, "gpu": gpu_memory(contestant)}
        contestant.close()
        return answer

    if threads is None:  # of a file, which its options tell
        return run()
    with torch_threads(threads):
        return run()


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # The child finds what its parent found, wherever that was started.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
