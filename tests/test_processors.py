"""How many processors a process may use: affinity, and the quotas of control groups of both versions."""

import os
from pathlib import Path

import pytest

from edgemask.processors import control_groups, cpu_quota, thread_count


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


VERSION_2 = {"proc/self/cgroup": "0::/docker/a\n", "sys/fs/cgroup/docker/a/cpu.max": "150000 100000\n"}
VERSION_1 = {
    "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/docker/a\n0::/\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "300000\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("files", "quota", "threads"),
    [
        pytest.param({}, None, 8, id="nothing of it"),
        pytest.param(VERSION_2, 1.5, 2, id="version 2"),
        pytest.param(VERSION_2 | {"sys/fs/cgroup/docker/cpu.max": "50000 100000"}, 0.5, 1, id="of the group above"),
        pytest.param(VERSION_2 | {"sys/fs/cgroup/docker/a/cpu.max": "max 100000"}, None, 8, id="no limit"),
        pytest.param(
            VERSION_2 | {"sys/fs/cgroup/docker/a/cpu.max": "1600000 100000"}, 16.0, 8, id="more than there are"
        ),
        pytest.param(VERSION_2 | {"sys/fs/cgroup/docker/a/cpu.max": "many"}, None, 8, id="unreadable"),
        pytest.param(VERSION_2 | {"sys/fs/cgroup/docker/a/cpu.max": "1 0"}, None, 8, id="a period of 0"),
        pytest.param(VERSION_1, 3.0, 3, id="version 1"),
        pytest.param(
            VERSION_1 | {"sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "-1"}, None, 8, id="version 1, no limit"
        ),
        pytest.param({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0, 2, id="a container that sees its own group"),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            1.0,
            1,
            id="the same in version 1",
        ),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None, threads: int) -> None:
    system = write(tmp_path, files)
    assert cpu_quota(system) == quota
    assert thread_count(system) == threads


def test_groups_of_a_controller(tmp_path: Path) -> None:
    system = write(tmp_path, VERSION_1 | {"sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "1"})
    groups = tmp_path / "sys/fs/cgroup"
    assert control_groups("memory", system) == [groups, groups / "memory"], "this process is in no group of memory"
    assert groups / "cpu,cpuacct/docker/a" in control_groups("cpu", system)


def test_this_machine() -> None:
    assert 1 <= thread_count() <= 8
