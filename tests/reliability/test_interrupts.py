"""SIGINT and SIGTERM at any moment of any command: gone within two seconds, with the exit code that shells expect."""

import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from finding import Finding
from interrupting import COMMANDS, NEVER_OVER, edgemask, prepare, stopped

LIMIT = 2.0  # seconds from the signal to the end
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# For the controls: one ignores signals, one takes its time, one leaves things behind.
FAULTY = {
    "deaf": "signal.signal(2, signal.SIG_IGN)",
    "late": "signal.signal(2, lambda *_: (time.sleep(0.5), os._exit(130)))",
    "untidy": "signal.signal(2, lambda *_: os._exit(130)); open('out/a.part', 'w')",
}
NATIVE = """
import sys, time, numpy
from edgemask.cli.process import run

def body():
    big = numpy.random.default_rng(0).random((3000, 3000))
    print("ready", flush=True)
    for _ in range(100):
        numpy.linalg.svd(big)

sys.exit(run(body))
"""
LEAVING = """
import atexit, sys, time
from edgemask.cli import main

def linger():
    print("ready", flush=True)
    time.sleep(60)

atexit.register(linger)
sys.argv = ["edgemask", "--help"]
sys.exit(main())
"""


def faults(
    words: list[str], folder: Path, moments: int, limit: float = LIMIT, seed: int = 0
) -> tuple[list[str], int, float]:
    """Sends a command signals at moments from its start to its usual end, SIGINT and SIGTERM in turns.

    Returns:
        What went wrong, or was left after one more run; how often the command was really stopped; the longest that it
        took.
    """
    begin = time.monotonic()
    assert stopped(words, folder, None, 0).code in {0, 1}
    usual = time.monotonic() - begin
    wrong, hit, longest = list[str](), 0, 0.0
    for turn, moment in enumerate(np.random.default_rng(seed).uniform(0, usual, moments)):
        number = list(CODES)[turn % 2]
        shutil.rmtree(folder / NEVER_OVER, ignore_errors=True)
        ended = stopped(words, folder, number, float(moment))
        # Ended by the signal itself, of which shells make the same code: Python is starting, or the work is done.
        sound = ended.code in {CODES[number], -number, 0, 1} or ended.before_the_command
        hit += ended.code == CODES[number]
        longest = max(longest, ended.seconds)
        if not sound or ended.seconds > limit or ("Traceback" in ended.words and not ended.before_the_command):
            wrong.append(f"{number.name} after {moment:.2f} s: {ended}")
    shutil.rmtree(folder / NEVER_OVER, ignore_errors=True)
    stopped(words, folder, None, 0)
    return wrong + left(folder), hit, longest


def left(folder: Path) -> list[str]:
    """Files that nobody meant to keep. Sockets of `multiprocessing` and the cache of PyTorch are theirs."""
    found = [*(folder / "out").rglob("*.part"), *(folder / "tmp").glob("*")]
    return [str(path) for path in found if not path.name.startswith(("pymp-", "torchinductor_"))]


@pytest.mark.parametrize(
    ("command", "moments"),
    [
        ("scenes", 3),
        *(pytest.param(command, 20, marks=pytest.mark.soak) for command in COMMANDS),
    ],
)
def test_a_command_leaves_at_once(tmp_path: Path, command: str, moments: int, finding: Finding) -> None:
    prepare(tmp_path, command)
    wrong, hit, longest = faults(edgemask(command), tmp_path, moments)
    assert wrong == []
    finding(f"{moments} of {moments} ({hit} at work), after {longest:.1f} s at most", where=command)


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("program", [NATIVE, LEAVING], ids=["in a native call", "as Python takes itself down"])
def test_within_code_that_cannot_be_asked(tmp_path: Path, program: str, number: signal.Signals) -> None:
    ended = stopped([sys.executable, "-c", program], tmp_path, number, 0.3, ready=True)
    assert ended.code == CODES[number]
    assert ended.seconds < LIMIT
    assert "Traceback" not in ended.words


@pytest.mark.parametrize("fault", FAULTY)
def test_each_fault_is_seen(tmp_path: Path, fault: str) -> None:
    (tmp_path / "out").mkdir()
    program = f"import os, signal, time\n{FAULTY[fault]}\ntime.sleep(1)"
    assert len(faults([sys.executable, "-c", program], tmp_path, 1, limit=0.3)[0]) == 1


def test_a_background_job_of_nohup_is_not_stopped(tmp_path: Path) -> None:
    """A signal that was ignored at the start stays ignored."""
    prepare(tmp_path, "scenes")
    ignoring = (
        "import signal, subprocess, sys\nsignal.signal(2, signal.SIG_IGN)\nsys.exit(subprocess.call(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", ignoring, *edgemask("scenes")]
    assert stopped(words, tmp_path, signal.SIGINT, 0.7).code == 0
