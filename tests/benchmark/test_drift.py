"""What the machine tells of itself, and what is noted of it."""

import os
from pathlib import Path

import pytest
from contenders import result

from edgemask.benchmark.drift import conditions, drift_notes
from edgemask.benchmark.records import Conditions, ScenarioResult

QUIET = Conditions(load=0.2, megahertz=2600, celsius=50)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    write(tmp_path / "proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2000.5\n\nprocessor : 1\ncpu MHz\t\t: 3000.5\n")
    return tmp_path


def test_clock_of_a_machine_that_only_counts(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.126, 1, 1))
    assert conditions(system) == Conditions(load=0.13, megahertz=2500, celsius=None)


def test_clock_and_heat_of_a_board(system: Path) -> None:
    for number, kilohertz in enumerate((1_500_000, 1_700_000)):
        write(system / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq", f"{kilohertz}\n")
    # One zone is off, one cannot be read as a number.
    for number, text in enumerate(("48500\n", "61000\n", "-256000\n", "no data\n")):
        write(system / f"sys/class/thermal/thermal_zone{number}/temp", text)
    found = conditions(system)
    assert (found.megahertz, found.celsius) == (1600, 61)


def test_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert conditions(tmp_path) == Conditions(None, None, None)
    assert list(drift_notes(Conditions(None, None, None), Conditions(None, None, None), [result()], 2)) == []


def test_a_quiet_machine_is_not_noted() -> None:
    after = Conditions(load=2.1, megahertz=2400, celsius=80)
    assert list(drift_notes(QUIET, after, [result(drift=1.09)], 2)) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Conditions(0.7, 2600, None), QUIET, "was not idle before: its load was 0.7"),
        (
            QUIET,
            Conditions(2.8, 2600, None),
            "others used the machine, too: at the end its load was 2.8, of which 2 ours",
        ),
        (QUIET, Conditions(2.0, 2200, None), "clock fell from 2600 to 2200 MHz"),
    ],
)
def test_a_machine_that_changes_is_noted(before: Conditions, after: Conditions, words: str) -> None:
    (note,) = drift_notes(before, after, [result()], 2)
    assert words in note


def test_a_contestant_that_becomes_slower_is_noted() -> None:
    scenario = ScenarioResult("single-stream", 1, 900, 64, 600, 600, 90, 21.0, 40, 20.0, drift=1.31)
    slow = result("slow.onnx", drift=1.2, scenario=scenario)
    assert list(drift_notes(QUIET, QUIET, [result(), slow], 2)) == [
        "slow.onnx on cpu became slower: its last tenth of turns took 1.20 times as long as the first",
        "slow.onnx on cpu became slower: its last tenth of queries took 1.31 times as long as the first",
    ]
