"""What the system's files tell, read from files of other machines."""

from pathlib import Path

from edgemask.doctor.machine import in_container, memory, processor

X86 = """processor\t: 0
model name\t: Some(R) Processor
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Some(R) Processor
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_int8
"""
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd aes asimddp i8mm\n"
MEMINFO = "MemTotal:        8000000 kB\nMemFree:  12 kB\nMemAvailable:    6000000 kB\nHugePages_Total:       0\n"


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_processors_of_both_kinds(tmp_path: Path) -> None:
    found = processor(write(tmp_path / "x86", proc__cpuinfo=X86))
    assert (found.name, found.count) == ("Some(R) Processor", 2)
    assert found.features == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    arm = write(tmp_path / "arm", proc__cpuinfo=ARM)
    (arm / "proc/device-tree").mkdir()
    (arm / "proc/device-tree/model").write_text("NVIDIA Jetson AGX Orin\0")
    found = processor(arm)
    assert (found.name, found.count) == ("NVIDIA Jetson AGX Orin", 1)
    assert found.features == ("asimd", "asimddp", "i8mm")
    assert found.threads >= 1


def test_limit_of_memory_in_either_version_of_control_groups(tmp_path: Path) -> None:
    free = memory(write(tmp_path / "free", proc__meminfo=MEMINFO))
    assert (free.total, free.available, free.limit) == (8_192_000_000, 6_144_000_000, None)
    second = write(tmp_path / "v2", proc__meminfo=MEMINFO, proc__self__cgroup="0::/box/job\n")
    write(second / "sys/fs/cgroup", **{"memory.max": "max\n"})
    write(second / "sys/fs/cgroup/box", **{"memory.max": "2000000000\n"})
    write(second / "sys/fs/cgroup/box/job", **{"memory.max": "3000000000\n"})
    assert memory(second).limit == 2_000_000_000
    first = write(tmp_path / "v1", proc__meminfo=MEMINFO, proc__self__cgroup="4:memory:/docker/1\n")
    write(first / "sys/fs/cgroup/memory", **{"memory.limit_in_bytes": "9223372036854771712\n"})
    assert memory(first).limit is None
    write(first / "sys/fs/cgroup/memory/docker/1", **{"memory.limit_in_bytes": "1000000000\n"})
    assert memory(first).limit == 1_000_000_000


def test_containers_are_seen(tmp_path: Path) -> None:
    assert not in_container(write(tmp_path / "host", proc__1__cgroup="0::/init.scope\n"))
    assert in_container(write(tmp_path / "docker", **{".dockerenv": ""}))
    assert in_container(write(tmp_path / "podman", **{"run__.containerenv": ""}))
    assert in_container(write(tmp_path / "pod", proc__1__cgroup="4:memory:/kubepods/burstable/pod1\n"))


def test_a_system_without_these_files_is_no_error(tmp_path: Path) -> None:
    found = processor(tmp_path)
    assert found.features == ()
    assert found.count >= 1
    nothing = memory(tmp_path)
    assert (nothing.total, nothing.available, nothing.limit) == (None, None, None)
    assert not in_container(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_bytes(b"MemTotal: \xff kB\nMemAvailable\n: 5\n")
    assert memory(tmp_path).total is None
