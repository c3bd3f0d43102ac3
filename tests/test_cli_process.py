"""How commands end: exit codes, Ctrl-C, a reader that goes away, and a standard output that holds one answer."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from edgemask.cli.answers import working
from edgemask.cli.process import run
from edgemask.errors import DependencyMissing, OutputError, ParityError, UsageError
from edgemask.files import creating, remove_unfinished


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def body() -> NoReturn:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SystemExit(), 0, ""),
        (SystemExit(1), 1, ""),
        (UsageError("--x is 3", "give 4"), 2, "error: --x is 3\ngive 4\n"),
        (ParityError("it differs"), 1, "error: it differs\n"),
        (OutputError("cannot write a\x1b[2Jb"), 3, "error: cannot write a\\x1b[2Jb\n"),
        (MemoryError(), 3, "error: there is too little memory for this\n"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 3, "error: there is too little"),
        (OSError(28, "No space left on device", "m.onnx"), 3, "error: cannot write m.onnx: No space left on device\n"),
        (PermissionError(13, "Permission denied", "m.onnx"), 2, "error: cannot use m.onnx: Permission denied\n"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 3, "error: the Python package torch is not"),
        (KeyError("secret"), 70, "fault in edgemask: KeyError: 'secret'; please report it\nEDGEMASK_TRACEBACK=1 "),
        (OSError("odd"), 70, "fault in edgemask: OSError: odd; please report it\n"),
        (ModuleNotFoundError("No module named 'edgemask.x'", name="edgemask.x"), 70, "fault in edgemask: Module"),
    ],
)
def test_each_exception_has_its_code_and_one_message(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message)
    assert (printed.err == "") == (message == "")
    assert "Traceback" not in printed.err


def test_the_traceback_is_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMASK_TRACEBACK", "1")
    assert run(raising(KeyError("secret"))) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_missing_package_names_its_extra() -> None:
    needs_torch = r"export needs torch, which is not installed\n.*'edgemask\[export\]'"
    with pytest.raises(DependencyMissing, match=needs_torch), working("export", "export"):
        raise ModuleNotFoundError("No module named 'torch.onnx'", name="torch.onnx")
    with pytest.raises(DependencyMissing, match="which cannot be loaded: libcudart"), working("export", "export"):
        raise ImportError("libcudart.so.13: cannot open shared object file", name="torch._C")
    with pytest.raises(ModuleNotFoundError), working("export", "export"):
        raise ModuleNotFoundError("No module named 'edgemask.typo'", name="edgemask.typo")


def test_what_libraries_print_stays_off_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    with working("export", "export"):
        print("from Python")
        os.write(1, b"from a system call\n")
        libc.puts(b"from C")
    print("the answer", flush=True)
    libc.fflush(None)
    printed = capfd.readouterr()
    assert printed.out == "the answer\n"
    assert {"from Python", "from a system call", "from C"} <= set(printed.err.splitlines())


SLOW_COMMAND = """
import sys, time
from pathlib import Path
from edgemask.cli.process import run
from edgemask.files import creating

def body():
    with creating(sys.argv[1]) as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

sys.exit(run(body))
"""


def test_ctrl_c_is_answered_at_once_and_leaves_no_half_file(tmp_path: Path, repository: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")
    command = [sys.executable, "-c", SLOW_COMMAND, str(target)]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 2
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - asked < 2
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_text() == "old"


def test_a_reader_that_goes_away_makes_no_noise(tmp_path: Path, repository: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgemask", "scenes", str(tmp_path), "--count", "1", "--size", "64", "--json"]
    result = subprocess.run(command, cwd=repository, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_unfinished_files_are_known_while_they_are_written(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(creating(tmp_path / "a.json"))
        assert temporary.exists()
        remove_unfinished()
        assert not temporary.exists()
        with pytest.raises(OutputError, match=r"cannot write .*a\.json: No such file"):
            stack.close()
    with creating(tmp_path / "b.json") as temporary:
        temporary.write_text(json.dumps(2))
    remove_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
