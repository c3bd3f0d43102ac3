"""SIGINT and SIGTERM at any moment of any command: gone within two seconds, with the exit code that shells expect."""

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from finding import Finding
from interrupting import COMMANDS, edgemask, prepare, stopped

LIMIT = 2.0  # seconds from the signal to the end
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# Ignores both, and answers too late: for the controls.
DEAF = [sys.executable, "-c", "import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(2)"]
NATIVE = """
import sys, time, numpy
from edgemask.cli.process import run
print("ready", flush=True)
big = numpy.random.default_rng(0).random((3000, 3000))
sys.exit(run(lambda: [numpy.linalg.svd(big) for _ in range(100)]))
"""


def faults(
    words: list[str], folder: Path, moments: int, limit: float = LIMIT, seed: int = 0
) -> tuple[list[str], int, float]:
    """Sends a command signals at moments from its start to its usual end, SIGINT and SIGTERM in turns.

    Returns:
        What went wrong; how often the command was really stopped; the longest that it took.
    """
    begin = time.monotonic()
    whole = stopped(words, folder, None, 0)
    usual = time.monotonic() - begin
    wrong, hit, longest = list[str](), 0, 0.0
    for turn, moment in enumerate(np.random.default_rng(seed).uniform(0, usual, moments)):
        number = list(CODES)[turn % 2]
        ended = stopped(words, folder, number, float(moment))
        parts = [str(path) for place in ("out", "tmp") for path in (folder / place).rglob("*.part")]
        sound = ended.code in {CODES[number], whole.code} or ended.before_the_command
        hit += ended.code == CODES[number]
        longest = max(longest, ended.seconds)
        if not sound or ended.seconds > limit or parts or ("Traceback" in ended.words and not ended.before_the_command):
            wrong.append(f"{number.name} after {moment:.2f} s: {ended} {parts}")
    return wrong, hit, longest


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
def test_within_a_native_call(tmp_path: Path, number: signal.Signals) -> None:
    ended = stopped([sys.executable, "-c", NATIVE], tmp_path, number, 2.0)
    assert ended.code == CODES[number]
    assert ended.seconds < LIMIT
    assert "Traceback" not in ended.words


def test_who_does_not_listen_is_seen(tmp_path: Path) -> None:
    wrong, hit, _ = faults(DEAF, tmp_path, 2, limit=0.2)
    assert (len(wrong), hit) == (2, 0)


def test_a_background_job_of_nohup_is_not_stopped(tmp_path: Path) -> None:
    """A signal that was ignored at the start stays ignored."""
    prepare(tmp_path, "scenes")
    ignoring = (
        "import signal, subprocess, sys\nsignal.signal(2, signal.SIG_IGN)\nsys.exit(subprocess.call(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", ignoring, *edgemask("scenes")]
    assert stopped(words, tmp_path, signal.SIGINT, 0.7).code == 0
