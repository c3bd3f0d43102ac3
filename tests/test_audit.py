"""The audit of the pinned packages: a hole is named, and a package that was not looked up never counts as sound."""

from collections.abc import Iterator
from types import ModuleType

import pytest
from script_files import script_module

SOUND = {"name": "pillow", "version": "13.0.0", "vulns": []}
HOLED = {"name": "onnx", "version": "1.20", "vulns": [{"id": "CVE-1", "fix_versions": ["1.21"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


@pytest.fixture(scope="module")
def audit() -> Iterator[ModuleType]:
    with script_module("scripts/audit.py") as module:
        yield module


@pytest.mark.parametrize(
    ("dependencies", "said"),
    [
        ([SOUND, SOUND], "2 of 2 packages audited, 0 known holes"),
        ([SOUND, UNKNOWN], "1 of 2 packages audited, 0 known holes"),
        ([SOUND, HOLED], "onnx 1.20: CVE-1, mended in 1.21\n2 of 2 packages audited, 1 known holes"),
        ([UNKNOWN, UNKNOWN], "no audit: the vulnerability database cannot be reached; only the floors hold"),
        ([], "no audit: the vulnerability database cannot be reached; only the floors hold"),
    ],
)
def test_what_is_said(audit: ModuleType, dependencies: list[object], said: str) -> None:
    assert audit.summary(dependencies) == said


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 of 1 packages audited"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X", "fix_versions": []}]}]}', 1, "a 1: X"),
        ("no JSON", 0, "no audit: pip-audit gave no answer"),
    ],
)
def test_how_it_ends(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
    said: str,
) -> None:
    class Done:
        stdout = answer

    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: Done)
    try:
        audit.main()
        ended = 0
    except SystemExit as leaving:
        ended = int(leaving.code or 0)
    assert ended == code
    assert capsys.readouterr().out.startswith(said)
