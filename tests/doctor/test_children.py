"""A library that crashes, hangs, raises or prints is an answer."""

import time
from pathlib import Path

import pytest

from edgemask.doctor.children import Answer, Question, ask

PROBES = """
import ctypes, os, subprocess, sys, time

def double(number):
    print("noise"); os.write(1, b"more noise\\n")
    return 2 * number

def crash():
    os.write(2, b"the library says goodbye")
    ctypes.string_at(0)

def leave():
    os._exit(7)

def hang(folder):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(os.path.join(folder, "pid"), "w") as file:
        file.write(str(child.pid))
    time.sleep(60)

def fail():
    raise RuntimeError("no such thing\\nsecond line")

def refuse():
    from edgemask.errors import DeviceUnavailable
    raise DeviceUnavailable("not here", "buy one")
"""


@pytest.fixture(autouse=True)
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doctor_probes.py").write_text(PROBES)
    monkeypatch.syspath_prepend(tmp_path)


def question(name: str, seconds: float = 30.0, **arguments: object) -> Question:
    return Question(name=f"doctor_probes:{name}", arguments=arguments, seconds=seconds)


def test_answers_come_in_order_and_past_what_ends_the_process() -> None:
    names = ["double", "fail", "crash", "refuse", "leave", "double"]
    found = ask([question(name, **({"number": 21} if name == "double" else {})) for name in names])
    assert found[0] == found[5] == Answer(value=42)
    assert found[1] == Answer(problem="RuntimeError: no such thing")
    assert found[2] == Answer(problem="crashed with signal 11 (SIGSEGV): the library says goodbye")
    assert found[3] == Answer(problem="not here", remedy="buy one")
    assert found[4] == Answer(problem="ended with exit code 7")


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    before = time.monotonic()
    (found,) = ask([question("hang", seconds=1.5, folder=str(tmp_path))])
    assert found == Answer(problem="no answer within 1.5 s")
    assert time.monotonic() - before < 10
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("a grandchild is left")


def test_modules_of_the_working_folder_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path / "work")
    assert ask([question("double", number=2)]) == [Answer(value=4)]


def test_no_telemetry_goes_out_of_the_child() -> None:
    (found,) = ask([Question(name="importlib:import_module", arguments={"name": "openvino_telemetry"}, seconds=30)])
    assert "openvino_telemetry" in (found.problem or "")
    assert "ModuleNotFoundError" in (found.problem or "")


def test_none_is_asked_where_there_is_no_question() -> None:
    assert ask([]) == []
