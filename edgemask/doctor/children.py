"""Questions to native libraries, asked in a process of their own: one that dies or hangs is an answer too."""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemask.checks import printable
from edgemask.errors import EdgemaskError

# A program of one line: multiprocessing would run the caller's own main module again.
_CHILD = "from edgemask.doctor.children import child; child()"
_LEAVING = 5.0  # seconds in which a process that says no more has ended
_WORDS = 300  # characters at most of what a dying process said


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A function and what it is called with.

    Attributes:
        name: of its module and its own, with a colon between; it returns what JSON can hold.
        arguments: by name, plain values.
        seconds: to wait for the answer.
    """

    name: str
    arguments: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question came to: a value, or a problem and perhaps its remedy."""

    value: Any = None
    problem: str | None = None
    remedy: str | None = None


def ask(questions: Sequence[Question]) -> list[Answer]:
    """Asks one after the other in one process; after one that ended it, the others are asked in a new one."""
    answers: list[Answer] = []
    while len(answers) < len(questions):
        answers += _ask_until_it_ends(questions[len(answers) :])
    return answers


def _ask_until_it_ends(questions: Sequence[Question]) -> list[Answer]:
    """At least one answer: where the process ended, the last of them says how."""
    answers: list[Answer] = []
    # The child finds what its parent found, wherever that was started.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD],  # no module of the working folder in a library's place
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            bufsize=0,
            start_new_session=True,  # so that what it starts itself ends with it
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        lines: queue.Queue[bytes] = queue.Queue()
        reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            for question in questions:
                job = json.dumps({"name": question.name, "arguments": dict(question.arguments)})
                answer = _answer(process, job, lines, question.seconds)
                answers.append(answer or Answer(problem=_ending(process, words)))
                if process.returncode is not None:
                    break
        finally:
            _end(process)
            reader.join(_LEAVING)
    return answers


def _answer(process: "subprocess.Popen[bytes]", job: str, lines: "queue.Queue[bytes]", seconds: float) -> Answer | None:
    """The child's answer; None where it ended without one. One that takes too long is ended."""
    assert process.stdin is not None
    try:
        process.stdin.write(job.encode() + b"\n")
        process.stdin.flush()
        line = lines.get(timeout=seconds)
    except BrokenPipeError:
        line = b""
    except queue.Empty:
        _end(process)
        return Answer(problem=f"no answer within {seconds:g} s")
    if not line:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)
        if process.returncode is None:  # it has closed its standard output, and lives
            _end(process)
        return None
    return Answer(**json.loads(line))


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _read_lines(stream: Any, lines: "queue.Queue[bytes]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _ending(process: "subprocess.Popen[bytes]", words: Any) -> str:
    code = process.returncode
    if code < 0:
        names = {number.value: f" ({number.name})" for number in signal.Signals}
        how = f"crashed with signal {-code}{names.get(-code, '')}"
    else:
        how = f"ended with exit code {code}"
    words.seek(0)
    said = words.read().decode(errors="replace").strip().splitlines()
    return f"{how}: {printable(said[-1])[:_WORDS]}" if said else how


def child() -> None:
    """What that process does: a line of JSON for each that it is given, until nobody gives any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    # OpenVINO's own import would report to its makers otherwise, from a process that it forks among our threads.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    waiting: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    while True:
        job = json.loads(waiting.get())
        answers.write(json.dumps(_called(job["name"], job["arguments"])) + "\n")
        answers.flush()


def _listen(waiting: "queue.Queue[str]") -> None:
    """Passes jobs on; ends the process with its parent, whatever library is at work."""
    for line in sys.stdin:
        waiting.put(line)
    os._exit(0)


def _called(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    module, _, function = name.partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), function)(**arguments)}
    except EdgemaskError as error:
        return {"problem": error.problem, "remedy": error.remedy}
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        return {"problem": f"{type(error).__name__}: {first}"[:_WORDS]}
