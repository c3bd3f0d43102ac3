"""RunWriter after an interruption: nothing is lost but the image in work, and only what is whole counts."""

import itertools
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs.examples import arrays, detections, digest, entry, facts
from test_files import full_disk

from edgemask.errors import ModelFileError, OutputError
from edgemask.runs import RunWriter, StoredRun

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "report" / "reference"


@pytest.fixture
def journal(folder: Path) -> Iterator[RunWriter]:
    with RunWriter.open(folder, facts()) as writer:
        yield writer


def test_an_entry_of_another_run_does_not_count(journal: RunWriter, tmp_path: Path) -> None:
    with RunWriter.open(tmp_path / "other", facts(sha256="f" * 64)) as other:
        other.put("a.png", digest(1), entry())
        (made,) = other.folder.glob("entry-*")
    (journal.folder / made.name).write_bytes(made.read_bytes())
    assert journal.get("a.png", digest(1)) is None


def test_an_entry_under_the_wrong_name_does_not_count(journal: RunWriter) -> None:
    journal.put("a.png", digest(1), entry(1))
    (first,) = journal.folder.glob("entry-*")
    journal.put("b.png", digest(2), entry(2))
    (second,) = set(journal.folder.glob("entry-*")) - {first}
    second.write_bytes(first.read_bytes())
    assert journal.get("b.png", digest(2)) is None


def test_a_broken_entry_is_done_again(journal: RunWriter, tmp_path: Path) -> None:
    journal.put("a.png", digest(1), entry())
    (path,) = journal.folder.glob("entry-*")
    whole = path.read_bytes()
    for broken in (b"", whole[:-1], whole[: len(whole) // 2], whole[:3000] + b"\0\0\0" + whole[3003:]):
        path.write_bytes(broken)
        assert journal.get("a.png", digest(1)) is None
        with pytest.raises(ModelFileError, match=f"{path.name}: .*\nrun again with the same journal"):
            journal.pack(tmp_path / "run.npz")
    assert not (tmp_path / "run.npz").exists()
    journal.put("a.png", digest(1), entry())
    assert path.read_bytes() == whole


def test_a_full_disk_keeps_what_was_there(journal: RunWriter, tmp_path: Path) -> None:
    journal.put("a.png", digest(1), entry(1))
    (tmp_path / "run.npz").write_bytes(b"old")
    with full_disk(1000):
        with pytest.raises(OutputError):
            journal.put("a.png", digest(1), entry(2))
        with pytest.raises(OutputError):
            journal.pack(tmp_path / "run.npz")
    assert arrays(journal.get("a.png", digest(1)) or entry()) == arrays(entry(1))
    assert (tmp_path / "run.npz").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["report", "run.npz"]


KILLED = """
import sys
from pathlib import Path
from runs.examples import digest, entry, facts
from edgemask.runs import RunWriter

writer = RunWriter.open(Path(sys.argv[1]), facts())
for number in range(10_000):
    if writer.get(f"{number}.png", digest(number)) is None:
        writer.put(f"{number}.png", digest(number), entry(100, number % 7))
        print(number, flush=True)
"""


def test_killed_at_any_instant(folder: Path, tmp_path: Path) -> None:
    """Two processes are killed while they write; each put that returned is there, and the run is as if none was."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    last = -1
    for count in (3, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            done = [int(line) for line in itertools.islice(process.stdout, count)]
            time.sleep(0.0013 * count)  # somewhere within the next one
            process.send_signal(signal.SIGKILL)
            done += [int(line) for line in process.stdout]
        # One may have been kept and not printed any more.
        assert done[0] - last in {1, 2}, "the second one goes on where the first one was"
        assert done == list(range(done[0], done[-1] + 1))
        last = done[-1]
    with RunWriter.open(folder, facts()) as writer:
        kept = [writer.get(f"{number}.png", digest(number)) for number in range(last + 3)]
        assert all(found is not None for found in kept[: last + 1])
        assert not [path for path in folder.iterdir() if path.suffix == ".part"]
        for number, found in enumerate(kept):
            if found is None:
                writer.put(f"{number}.png", digest(number), entry(100, number % 7))
        writer.pack(tmp_path / "killed.npz")
    with RunWriter.open(tmp_path / "whole", facts()) as writer:
        for number in range(last + 3):
            writer.put(f"{number}.png", digest(number), entry(100, number % 7))
        writer.pack(tmp_path / "whole.npz")
    with StoredRun.open(tmp_path / "killed.npz") as killed, StoredRun.open(tmp_path / "whole.npz") as whole:
        assert sorted(killed.names) == sorted(whole.names)
        for number, name in enumerate(whole.names):
            assert arrays(killed.get(name, digest(number))) == arrays(whole.get(name, digest(number)))


def test_memory_holds_one_image(journal: RunWriter, tmp_path: Path) -> None:
    size = detections(300).masks.nbytes  # type: ignore[union-attr]
    for number in range(10):
        journal.put(f"{number}.png", digest(number), entry(300, number))
    tracemalloc.start()
    try:
        journal.pack(tmp_path / "run.npz")
        with StoredRun.open(tmp_path / "run.npz") as run:
            for number in range(10):
                run.get(f"{number}.png", digest(number))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * size, "of ten"
