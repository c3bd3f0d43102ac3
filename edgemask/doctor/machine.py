"""What the system's own files tell about processor, memory and container; nothing here is fatal."""

import os
import platform
import re
from pathlib import Path

from edgemask.doctor.records import Memory, Processor
from edgemask.processors import SYSTEM_FILES, control_groups, thread_count

# Vector and matrix instructions that ONNX Runtime and OpenVINO have faster code for, in Linux's words.
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm")
_KIBIBYTE = 2**10
_CONTAINERS = ("docker", "containerd", "kubepods", "libpod", "lxc")


def processor(system: Path = SYSTEM_FILES) -> Processor:
    """The CPU, by `/proc/cpuinfo`.

    Args:
        system: where `proc` and `sys` lie.
    """
    text = text_of(system / "proc/cpuinfo")
    found = {name.strip().lower(): value.strip() for name, _, value in map(_halves, reversed(text.splitlines()))}
    flags = set(found.get("flags", found.get("features", "")).split())
    name = found.get("model name") or device_tree_model(system) or platform.processor() or platform.machine()
    return Processor(
        name=name,
        architecture=platform.machine(),
        features=tuple(feature for feature in FEATURES if feature in flags),
        count=len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or os.cpu_count() or 1,
        threads=thread_count(system),
    )


def memory(system: Path = SYSTEM_FILES) -> Memory:
    """Main memory, by `/proc/meminfo` and the control groups, of both versions.

    Args:
        system: where `proc` and `sys` lie.
    """
    sizes = {
        name: int(words[0]) * _KIBIBYTE
        for name, _, value in map(_halves, text_of(system / "proc/meminfo").splitlines())
        if (words := value.split()) and words[0].isdigit()
    }
    total = sizes.get("MemTotal")
    limits = [
        int(word)
        for folder in control_groups("memory", system)
        for file in ("memory.max", "memory.limit_in_bytes")
        if (word := text_of(folder / file).strip()).isdigit()
    ]
    limit = min(limits, default=None)
    if limit is not None and total is not None and limit >= total:  # version 1 writes no limit as a huge one
        limit = None
    return Memory(total=total, available=sizes.get("MemAvailable"), limit=limit)


def in_container(system: Path = SYSTEM_FILES) -> bool:
    """Whether this process runs in a container, as far as its files tell.

    Args:
        system: the root of the file system.
    """
    if (system / ".dockerenv").exists() or (system / "run/.containerenv").exists():
        return True
    return any(name in text_of(system / "proc/1/cgroup") for name in _CONTAINERS)


def device_tree_model(system: Path = SYSTEM_FILES) -> str:
    """The board's name on a machine with a device tree; empty elsewhere.

    Args:
        system: where `proc` lies.
    """
    return text_of(system / "proc/device-tree/model").strip("\0 \n")


def text_of(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def _halves(line: str) -> tuple[str, str, str]:
    return line.partition(":")
