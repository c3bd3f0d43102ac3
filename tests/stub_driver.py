"""A stand-in for the NVIDIA driver's library, which the real loader loads, and Python processes beside it.

It shows GPUs and answers the questions of `edgemask.runtimes.nvidia`; CUDA does not start on it.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return number("STUB_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("STUB_VERSION", 99000); return 0; }
int cuDeviceGetCount(int *count) { *count = number("STUB_COUNT", 2); return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, "Stub GPU", length);
    return number("STUB_NAME", 0);
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8ull << 30; return 0; }
int cuTensorMapEncodeTiled(void) { return 999; }
"""
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
LOADER_SECONDS = 60  # of a process that hangs


def compiled_driver(folder: Path) -> Path:
    """A folder with the stand-in as libcuda.so.1; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for a stand-in of the driver")
    source = folder / "stub.c"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


def packages_without(folder: Path, *hidden: str) -> Path:
    """A folder with links to all installed packages but some, such as `openvino` or `nvidia/cudnn`."""
    for entry in SITE_PACKAGES.iterdir():
        inside = [name.partition("/")[2] for name in hidden if name.partition("/")[0] == entry.name]
        if not inside:
            (folder / entry.name).symlink_to(entry)
        elif all(inside):
            (folder / entry.name).mkdir()
            for part in entry.iterdir():
                if part.name not in inside:
                    (folder / entry.name / part.name).symlink_to(part)
    return folder


def in_process(script: str, *arguments: Any, driver: Path | None, packages: Path | None = None, **setting: str) -> Any:
    """Runs Python with a driver of ours, and gives what the script printed last, as JSON.

    Args:
        script: Python source.
        arguments: of the script.
        driver: the folder of `compiled_driver`.
        packages: the folder of `packages_without`, in place of what is installed.
        setting: further environment variables.
    """
    repository = Path(__file__).resolve().parents[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STUB_", "LD_"))} | setting
    if driver is not None:
        environment["LD_LIBRARY_PATH"] = str(driver)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [repository, *([packages] if packages else [])]))
    # Without `site`, what is installed is found through PYTHONPATH alone.
    command = [sys.executable, *(["-S"] if packages else []), "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LOADER_SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])
