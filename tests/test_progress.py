"""Progress: a bar on a terminal, plain lines elsewhere."""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edgemask import progress as module
from edgemask.progress import Progress, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """For the body of a test: pytest puts its own standard error in place after the fixtures."""
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def run(progress: Progress, **options: int) -> list[int]:
    done = []
    for item in progress([10, 20, 30], "train", **options):
        done.append(item)
        progress.note(f"loss {item / 100}")
    return done


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY", seconds)
    assert run(Progress()) == [10, 20, 30]
    shown = capsys.readouterr()
    assert shown.out == "", "standard output belongs to the answer"
    lines = ["train: 1 of 3 loss 0.1", "train: 2 of 3 loss 0.2", "train: 3 of 3 loss 0.3"]
    assert shown.err.splitlines() == (lines if seconds == 0 else [])


def test_lines_begin_where_a_run_was_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY", 0.0)
    run(Progress(), total=8, start=5)
    assert capsys.readouterr().err.splitlines()[0] == "train: 6 of 8 loss 0.1"


def test_lines_without_a_total(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY", 0.0)
    progress = Progress()
    progress.note("of something before")
    assert list(progress(iter("ab"), "read")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["read: 1", "read: 2"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = open_terminal(monkeypatch)
    assert run(Progress()) == [10, 20, 30]
    shown = plain(terminal.getvalue())
    assert "train" in shown
    assert "3/3" in shown
    assert "loss 0.3" in shown
    assert capsys.readouterr().out == ""


def test_a_bar_begins_where_a_run_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    run(Progress(), total=8, start=5)
    shown = plain(terminal.getvalue())
    assert "5/8" in shown
    assert "8/8" in shown
    assert "0/8" not in shown


@pytest.mark.parametrize("on_terminal", [True, False])
def test_items_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch, on_terminal: bool) -> None:
    """A generator that shows progress must not run ahead of the work."""
    if on_terminal:
        open_terminal(monkeypatch)
    taken = []

    def items() -> Iterator[int]:
        for item in range(3):
            taken.append(item)
            yield item

    work = Progress()(items(), "read", total=3)
    assert taken == []
    for item in work:
        assert taken[-1] == item
    assert taken == [0, 1, 2]


def test_an_error_ends_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    work = Progress()(iter([1 / 4, 1 / 2, "no number"]), "read", total=3)
    with pytest.raises(TypeError):
        sum(work)
    work.close()  # type: ignore[attr-defined]
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l"), "the cursor is shown again"


def still_waiting() -> bool:
    """Whether a thread of ours is there; rich's own ends a moment after its bar."""
    return any(thread.name == "edgemask waiting" for thread in threading.enumerate())


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "nothing was shown in 5 s"
        time.sleep(0.002)


def test_a_line_now_and_then_while_a_call_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY", 0.01)
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        with waiting("building \x1b[31mm.onnx"):
            wait_until(lambda: stream.getvalue().count("\n") >= 2)
    lines = stream.getvalue().splitlines()
    assert set(lines) == {"building \\x1b[31mm.onnx: 0 s"}
    time.sleep(0.03)
    assert stream.getvalue().splitlines() == lines, "it goes on after the end"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_short_call_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    terminal = open_terminal(monkeypatch) if on_terminal else None
    start = time.monotonic()
    with waiting("compiling"):
        pass
    assert time.monotonic() - start < 0.4, "the end waited for the next line"
    assert not still_waiting()
    shown = capsys.readouterr()
    assert (shown.out, shown.err, terminal.getvalue() if terminal else "") == ("", "", "")


def test_a_spinner_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_SPIN_AFTER", 0.0)
    terminal = open_terminal(monkeypatch)
    with waiting("compiling m[bold].onnx"):
        wait_until(lambda: "0:00:00" in plain(terminal.getvalue()))
    assert "compiling m[bold].onnx" in plain(terminal.getvalue())
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l"), "the cursor is shown again"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("on_terminal", [True, False])
def test_an_error_passes_and_ends_the_waiting(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, on_terminal: bool
) -> None:
    monkeypatch.setattr(module, "_SPIN_AFTER", 0.0)
    if on_terminal:
        open_terminal(monkeypatch)
    with pytest.raises(type(error)) as caught, waiting("compiling"):
        raise error
    assert caught.value is error
    assert not still_waiting()


def test_nobody_listens_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY", 0.0)
    asked = threading.Event()

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            asked.set()
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with waiting("compiling"):
        assert asked.wait(5)
