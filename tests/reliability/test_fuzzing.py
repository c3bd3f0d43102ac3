"""What reads files of strangers, fuzzed: what was found before is replayed, and some more is tried each time."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import fuzz_planted
import pytest
from finding import Finding

CORPUS = Path(__file__).parent / "corpus"
NAMES = ("model", "spec", "image")
LARGEST_CORPUS = 200 * 1024  # bytes of all files
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python and processor"
)


def fuzzed(repository: Path, name: str, *limit: str, corpus: Path = CORPUS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repository / "scripts" / "fuzz.py", name, *limit, "--corpus", corpus]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_before(name: str) -> None:
    """A finding fails here again by its error."""
    files = sorted((CORPUS / name).iterdir())
    assert files
    target = importlib.import_module(f"fuzz_{name}")
    for data in [*target.seeds(), *(path.read_bytes() for path in files)]:
        target.run(data)


def test_the_corpus_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(NAMES)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < LARGEST_CORPUS


@needs_atheris
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [("--runs", "500"), pytest.param(("--seconds", "300"), marks=pytest.mark.soak)])
def test_nothing_more_is_found(repository: Path, name: str, limit: tuple[str, str], finding: Finding) -> None:
    done = fuzzed(repository, name, *limit)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Done "))
    finding(f"{int(line.split()[1]):,} inputs in {limit[1]} s, no new finding", where=name)


@needs_atheris
def test_a_planted_fault_is_found(repository: Path, tmp_path: Path) -> None:
    done = fuzzed(repository, "planted", "--runs", "50000", corpus=tmp_path)
    assert done.returncode != 0
    (found,) = (tmp_path / "planted").glob("finding-*")
    assert found.read_bytes().startswith(b"em!")
    with pytest.raises(KeyError):
        fuzz_planted.run(found.read_bytes())
