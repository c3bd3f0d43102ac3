"""How many processors this process may use, which in a container are fewer than the machine has; and their rest."""

import os
import time
from pathlib import Path, PurePosixPath

SYSTEM_FILES = Path("/")
_REST_SECONDS = 0.02


def thread_count(system: Path = SYSTEM_FILES) -> int:
    """Processors that this process may use: by its affinity, and by the CPU quota of its control groups.

    A quota of 1.5 processors is 2 threads: each waits a quarter of the time, one alone would leave a third unused.

    Args:
        system: where `proc` and `sys` lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(system)
    return affinity if quota is None else max(1, min(affinity, -int(-quota // 1)))


def cpu_quota(system: Path = SYSTEM_FILES) -> float | None:
    """Processors' worth of time that the control groups allow, of both versions; None without a limit.

    Source: the kernel's documents on cgroup-v2 (`cpu.max`) and on CFS bandwidth control (`cpu.cfs_quota_us`).

    Args:
        system: where `proc` and `sys` lie.
    """
    limits = [limit for folder in control_groups("cpu", system) if (limit := _quota_in(folder)) is not None]
    return min(limits, default=None)


def control_groups(controller: str, system: Path = SYSTEM_FILES) -> list[Path]:
    """Folders of this process's control groups for a controller, from its own up to the root; a limit may be in any.

    Args:
        controller: `cpu` or `memory`.
        system: where `proc` and `sys` lie.
    """
    root = system / "sys/fs/cgroup"
    folders = [root, root / controller]  # of a container that sees its own groups only
    for line in _text(system / "proc/self/cgroup").splitlines():
        number, names, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not names:
            base = root
        elif controller in names.split(","):
            base = root / names if (root / names).is_dir() else root / controller
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        folders += [base / parent for parent in (group, *group.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _quota_in(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()  # version 2: microseconds in each period, or `max`
    if not words:
        words = [*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()]
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def let_threads_rest() -> None:
    """Waits, before something is timed that takes turns with something else.

    A library's worker threads spin for some milliseconds behind a run, waiting for more work, and slow down whoever
    comes next: PyTorch behind ONNX Runtime took 70 ms in place of 47.
    """
    time.sleep(_REST_SECONDS)
