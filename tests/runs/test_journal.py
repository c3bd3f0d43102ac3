"""RunWriter: gives back what was put, continues no other run, and touches no file but its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs.examples import POSED, SEMANTIC, SPEC, STAGES, arrays, detections, digest, entry, facts, semantic_map

from edgemask.detections import Detections
from edgemask.errors import ModelFileError, OutputError, UsageError
from edgemask.runs import RunEntry, RunWriter, StoredRun
from edgemask.spec import ModelSpec

EXAMPLES = {
    "masks": (SPEC, entry(3)),
    "no objects": (SPEC, entry(0)),
    "all": (SPEC, entry(2, proposals=np.float32([[0, 0, 5, 5]]), stages=STAGES)),
    "no stages": (SPEC, entry(1, stages={}, proposals=np.zeros((0, 4), np.float32))),
    "keypoints": (POSED, entry(found=detections(4, keypoints=17))),
    "semantic": (SEMANTIC, entry(found=semantic_map())),
    "views": (SPEC, entry(found=detections(6)[::2], stages={"turned": np.arange(6).reshape(2, 3).T})),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "report" / "reference"


@pytest.fixture
def journal(folder: Path) -> Iterator[RunWriter]:
    with RunWriter.open(folder, facts()) as writer:
        yield writer


@pytest.mark.parametrize("name", EXAMPLES)
def test_gives_back_what_was_put(folder: Path, name: str) -> None:
    spec, given = EXAMPLES[name]
    with RunWriter.open(folder, facts(spec=spec)) as writer:
        assert writer.get("a.png", digest(1)) is None
        writer.put("a.png", digest(1), given)
    with RunWriter.open(folder, facts(spec=spec, date="2027-01-01")) as again:
        kept = again.get("a.png", digest(1))
        assert again.facts.date == facts().date, "the date when it began"
    assert kept is not None
    assert arrays(kept) == arrays(given)


def test_an_image_is_its_name_and_its_bytes(journal: RunWriter) -> None:
    images = [("a.png", digest(1)), ("a.png", digest(2)), ("b.png", digest(1))]
    for seed, image in enumerate(images):
        journal.put(*image, entry(2, seed))
    assert [arrays(journal.get(*image) or entry()) for image in images] == [arrays(entry(2, seed)) for seed in range(3)]
    assert journal.get("b.png", digest(2)) is None
    journal.put(*images[0], entry(1, 9))
    assert arrays(journal.get(*images[0]) or entry()) == arrays(entry(1, 9)), "the last one put counts"


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", "a/b.png", ".", "Öl 🚀.png", "a" * 1000])
def test_names_choose_no_path(journal: RunWriter, name: str) -> None:
    before = {path for path in journal.folder.parents[1].rglob("*") if journal.folder not in path.parents}
    journal.put(name, digest(1), entry(1))
    assert journal.get(name, digest(1)) is not None
    assert {path for path in journal.folder.parents[1].rglob("*") if journal.folder not in path.parents} == before
    assert len(list(journal.folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("image", "spec", "given", "problem"),
    [
        (("", digest(1)), SPEC, entry(), "name: expected text of 1 to 1000"),
        (("a\x1b.png", digest(1)), SPEC, entry(), r"'a\x1b.png'"),
        (("a\udcff.png", digest(1)), SPEC, entry(), "name: expected text"),
        (("a" * 1001, digest(1)), SPEC, entry(), "name: expected text"),
        (("a", "1"), SPEC, entry(), "digest: expected 64 lower-case hexadecimal digits, got '1'"),
        (("a", digest(1)), SEMANTIC, entry(), "found: expected what a model for semantic gives"),
        (("a", digest(1)), SPEC, entry(found=semantic_map()), "found: expected what a model for boxes and masks gives"),
        (
            ("a", digest(1)),
            SPEC,
            entry(found=detections(1, keypoints=2)),
            "found: expected masks, as the model's tasks",
        ),
        (("a", digest(1)), POSED, entry(), "found: expected keypoints"),
    ],
)
def test_put_refuses(folder: Path, image: tuple[str, str], spec: ModelSpec, given: RunEntry, problem: str) -> None:
    with RunWriter.open(folder, facts(spec=spec)) as writer:
        with pytest.raises(UsageError) as caught:
            writer.put(*image, given)
        assert problem in str(caught.value)
        assert [path.name for path in folder.iterdir()] == ["journal.json"]


def test_labels_beyond_the_classes_are_refused(folder: Path) -> None:
    found = detections(1)
    given = entry(found=Detections(found.boxes, found.scores, np.array([3]), found.masks, image_size=found.image_size))
    with RunWriter.open(folder, facts()) as writer:
        with pytest.raises(UsageError, match="labels: expected at most 2, the number of classes, got 3"):
            writer.put("a", digest(1), given)
        assert writer.get("a", digest(1)) is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"sha256": "f" * 64}, "sha256: '01234"),
        ({"device": "cuda:0"}, "device: 'torch', now 'cuda:0'"),
        ({"spec": SPEC.replace(score_threshold=0.5)}, "spec.score_threshold: 0.05, now 0.5"),
    ],
)
def test_another_run_is_not_continued(journal: RunWriter, changes: dict[str, Any], difference: str) -> None:
    journal.put("a.png", digest(1), entry())
    journal.close()
    before = {path.name: path.read_bytes() for path in journal.folder.iterdir()}
    with pytest.raises(UsageError) as caught:
        RunWriter.open(journal.folder, facts(**changes))
    assert "is of another run" in caught.value.problem
    assert difference in caught.value.problem
    assert "begin anew" in (caught.value.remedy or "")
    assert {path.name: path.read_bytes() for path in journal.folder.iterdir()} == before


def test_fresh_removes_what_it_wrote_and_nothing_else(journal: RunWriter) -> None:
    journal.put("a.png", digest(1), entry())
    journal.close()
    theirs = ["report.html", "entry-1.npz", f"entry-{digest(1)}.npz.bak", "run.npz", f"entry-{digest(1)}"]
    for name in theirs:
        (journal.folder / name).write_bytes(b"mine")
    (journal.folder / f"entry-{digest(2)}.npz").mkdir()
    (journal.folder / f".entry-{digest(1)}.npz.x1.part").write_bytes(b"half of one that was killed")
    with RunWriter.open(journal.folder, facts(device="cuda:0"), fresh=True) as anew:
        assert anew.get("a.png", digest(1)) is None
        assert anew.facts.device == "cuda:0"
    assert {path.name for path in journal.folder.iterdir()} == {*theirs, f"entry-{digest(2)}.npz", "journal.json"}
    assert all((journal.folder / name).read_bytes() == b"mine" for name in theirs)
    with RunWriter.open(journal.folder, facts(device="cuda:0")):
        pass  # the facts are the new ones


@pytest.mark.parametrize("text", [b"", b"{}", b"[1", b'{"format": "theirs"}', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_journal_of_something_else_is_left_alone(folder: Path, text: bytes, fresh: bool) -> None:
    folder.mkdir(parents=True)
    (folder / "journal.json").write_bytes(text)
    (folder / f"entry-{digest(1)}.npz").write_bytes(b"theirs")
    with pytest.raises(UsageError, match=r"journal\.json that is not of edgemask\nname another folder"):
        RunWriter.open(folder, facts(), fresh=fresh)
    assert (folder / "journal.json").read_bytes() == text
    assert (folder / f"entry-{digest(1)}.npz").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"format_version": "2.0"}, "format_version: expected 1.0 or an older major", "update edgemask here"),
        ({"format_version": 1}, "format_version: expected major.minor, got 1", "begin anew"),
        ({"facts": {}}, "facts: expected all fields", "begin anew"),
        ({"facts": facts().to_record() | {"spec": 1}}, "specification", "begin anew"),
    ],
)
def test_a_broken_journal(journal: RunWriter, changes: dict[str, Any], problem: str, remedy: str) -> None:
    journal.close()
    path = journal.folder / "journal.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFileError) as caught:
        RunWriter.open(journal.folder, facts())
    assert "journal.json: " in caught.value.problem
    assert problem in caught.value.problem
    assert remedy in (caught.value.remedy or "")
    with RunWriter.open(journal.folder, facts(), fresh=True):
        pass


def test_a_newer_minor_format_is_read(journal: RunWriter) -> None:
    journal.close()
    path = journal.folder / "journal.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": "1.7", "new": [1]}))
    with RunWriter.open(journal.folder, facts()) as again:
        assert again.facts == facts()


def test_a_folder_is_open_once_at_a_time(journal: RunWriter) -> None:
    with pytest.raises(UsageError, match="reference is in use\nwait for the other run"):
        RunWriter.open(journal.folder, facts(), fresh=True)
    journal.put("a.png", digest(1), entry())
    journal.close()
    with RunWriter.open(journal.folder, facts()) as again:
        assert again.get("a.png", digest(1)) is not None


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match=r"cannot write .*file"):
            RunWriter.open(folder, facts())


def test_packs_what_was_asked_for_in_this_order(journal: RunWriter, tmp_path: Path) -> None:
    for number, name in enumerate("cab"):
        journal.put(name, digest(number), entry(1, number))
    journal.close()
    with RunWriter.open(journal.folder, facts()) as again:
        with pytest.raises(UsageError, match="a run without images cannot be stored"):
            again.pack(tmp_path / "run.npz")
        assert not (tmp_path / "run.npz").exists()
        again.put("d", digest(3), entry(0))
        for image in (("b", digest(2)), ("c", digest(0)), ("c", digest(9)), ("b", digest(2))):
            again.get(*image)
        again.pack(tmp_path / "run.npz")
        again.pack(str(tmp_path / "again.npz"))
    with StoredRun.open(tmp_path / "run.npz") as run:
        assert run.names == ("d", "b", "c")
    assert (tmp_path / "run.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
