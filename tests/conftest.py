"""What every test can rely on: one thread, no network, and a reason for each skip."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before anything loads torch or numpy: the workers of pytest-xdist would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As `import edgemask` does, which comes second where a test imports onnxruntime too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell starts what runs in its background with interrupts ignored, for its children too; tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("EDGEMASK_DATA") or REPOSITORY.parent / "shared" / "data")


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: edgemask and what it loads must not go online, so a test that tries fails here."""
    if event != "socket.connect":
        return
    address = arguments[1]
    host = address[0] if isinstance(address, tuple) else None  # a path is a socket on this machine
    if host is not None and host not in {"127.0.0.1", "::1", "localhost"}:
        raise RuntimeError(f"network connection to {address!r} within a test")


sys.addaudithook(refuse_network)


def missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no NVIDIA GPU that torch can use"


def missing_openvino() -> str | None:
    found = importlib.util.find_spec("openvino")
    return None if found else "openvino is not installed: pip install 'edgemask[openvino]'"


def missing_data() -> str | None:
    return None if SHARED_DATA.is_dir() else f"no folder {SHARED_DATA}: name it by EDGEMASK_DATA"


REQUIREMENTS: dict[str, Callable[[], str | None]] = {
    "cuda": missing_gpu,
    "openvino": missing_openvino,
    "data": missing_data,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in REQUIREMENTS.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """pytest-xdist says that a worker has died, and not of what."""
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if error is None or process is None:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    print(f"\n{node.gateway.id}: process {process.pid} ended with {process.returncode} (minus a signal's number)")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled models of the tests are kept apart from those of whoever runs them."""
    os.environ["EDGEMASK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with `nuclei` and `coco`; the test is skipped where it is absent."""
    if reason := missing_data():
        pytest.skip(reason)
    return SHARED_DATA
