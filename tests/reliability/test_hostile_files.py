"""Files that reach for data, code or options from outside: refused in words, with nothing written, read or run."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finding import Finding
from hostile_files import FILES, Hostile
from hostile_weights import Payload
from surveillance import Place, watching

from edgemask.checks import is_control
from edgemask.cli import main
from edgemask.errors import EdgemaskError
from edgemask.runtimes import modelfile

REFUSED, HARMLESS = "refused", "taken without harm"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return prepared(tmp_path, monkeypatch)


def prepared(root: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(root)
    for folder in (place.inside, place.outside, root / "tmp"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(root / "tmp"))
    monkeypatch.chdir(place.inside)
    place.secret.write_bytes(np.zeros(1, np.float32).tobytes())
    shutil.copy(sys.modules["_ctypes"].__file__ or "", place.library)
    return place


def examined(place: Place, hostile: Hostile) -> str:
    """What came of a file: `REFUSED`, `HARMLESS`, or in words what must not be."""
    path = hostile.make(place)
    outcome = HARMLESS
    with watching(place.root, allowed=(place.root / "tmp", *([] if path.is_file() else [path]))) as notes:
        try:
            hostile.read(path)
        except EdgemaskError as error:
            says = re.search(hostile.said or "(?!)", error.problem) and error.remedy
            outcome = REFUSED if says and not any(map(is_control, error.problem)) else f"refused for {error.problem}"
        except BaseException as error:
            outcome = f"raised {error!r}"
    if outcome == HARMLESS and hostile.said is not None:
        outcome = "taken"
    return "; ".join([outcome, *notes]) if notes else outcome


def test_all_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], finding: Finding
) -> None:
    found = {
        name: examined(prepared(tmp_path / str(number), monkeypatch), hostile)
        for number, (name, hostile) in enumerate(FILES.items())
    }
    expected = {name: HARMLESS if hostile.said is None else REFUSED for name, hostile in FILES.items()}
    assert {name: outcome for name, outcome in found.items() if outcome != expected[name]} == {}
    assert not any(map(is_control, "".join(capfd.readouterr()).replace("\n", ""))), "a library printed it"
    refused = list(found.values()).count(REFUSED)
    finding(
        f"{refused} of {refused} refused, {len(found) - refused} of {len(found) - refused} with hostile words in "
        "metadata taken without harm; 0 files written outside, 0 programs run",
        whole=True,
    )


@pytest.mark.parametrize("name", [name for name, hostile in FILES.items() if hostile.said is None])
def test_what_is_taken_is_shown_without_harm(place: Place, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = FILES[name].make(place)
    for words in (["inspect", str(path)], ["inspect", str(path), "--json"]):
        assert main(words) == 0
        shown = capfd.readouterr()
        assert not any(map(is_control, (shown.out + shown.err).replace("\n", "")))


def unpickled(place: Place) -> None:
    torch.save(Payload(place.marker), place.inside / "w.pth")
    torch.load(place.inside / "w.pth", weights_only=False)


def with_dlopen(place: Place) -> None:
    with pytest.raises(OSError, match="missing"):
        ctypes.CDLL(str(place.outside / "missing.so"))


OUTSIDE = ("weights above", "weights by", "weights behind", "weights outside", "an operator", "a compiled model")
# What a payload could do, and a part of the note on it.
DEEDS: dict[str, tuple[Callable[[Place], object], str]] = {
    "writes": (lambda p: (p.outside / "new").write_text("x"), "open for writing"),
    "writes beside": (lambda p: (p.inside / "new").write_text("x"), "open for writing"),
    "writes without Python": (lambda p: np.zeros(9).tofile(os.fspath(p.outside / "new")), "changed"),
    "reads": (lambda p: p.secret.read_bytes(), "open "),
    "reads through a link": (
        lambda p: [(p.inside / "a").symlink_to(p.secret), (p.inside / "a").read_bytes()],
        f"outside{os.sep}secret",
    ),
    "removes": (lambda p: p.secret.unlink(), "os.remove"),
    "renames": (lambda p: p.secret.rename(p.root / "tmp" / "a"), "os.rename"),
    "makes a folder": (lambda p: p.marker.mkdir(), "os.mkdir"),
    "links": (lambda p: (p.inside / "a").hardlink_to(p.secret), "os.link"),
    "links softly": (lambda p: (p.inside / "a").symlink_to("/etc"), "os.symlink"),
    "loads": (with_dlopen, "ctypes.dlopen"),
    "loads a library": (lambda p: ctypes.CDLL(str(p.library)), "loaded"),
    "starts": (lambda p: subprocess.run([sys.executable, "-c", ""], check=True), "subprocess.Popen"),
    "starts a shell": (lambda p: os.system("true"), "os.system"),
    "runs": (lambda p: exec("a = 1"), "exec"),
    "unpickles": (unpickled, "pickle.find_class"),
}


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_noticed(place: Place, name: str) -> None:
    deed, note = DEEDS[name]
    outcome = examined(place, Hostile(lambda place: place.model, lambda _: deed(place), None))
    assert outcome.startswith(f"{HARMLESS}; ")
    assert note in outcome


def test_an_allowed_deed_is_none(place: Place) -> None:
    path = place.root / "tmp" / "new"
    assert examined(place, Hostile(lambda place: place.model, lambda _: path.write_text("x"), None)) == HARMLESS


def test_without_a_check_they_get_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcomes(words: str) -> list[str]:
        names = [name for name in FILES if name.startswith(words)]
        assert names
        return [examined(prepared(tmp_path / name, monkeypatch), FILES[name]) for name in names]

    with monkeypatch.context() as context:
        context.setattr(modelfile, "_refuse_outside", lambda *_: None)
        assert REFUSED not in [outcome for words in OUTSIDE for outcome in outcomes(words)]
    with monkeypatch.context() as context:
        context.setattr(modelfile, "_refuse_nested_functions", lambda *_: None)
        assert outcomes("a function that calls a standard operator") != [REFUSED]
    load: Any = torch.load
    with monkeypatch.context() as context:
        context.setattr(torch, "load", lambda path, **_: load(path, weights_only=False))
        found = outcomes("a pickle")
        assert REFUSED not in found
        assert any("os.mkdir" in outcome for outcome in found)
