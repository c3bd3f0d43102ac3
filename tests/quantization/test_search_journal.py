"""What a search has measured, kept on disk."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgemask.errors import OutputError, UsageError
from edgemask.quantization.layers import Layer
from edgemask.quantization.search_journal import FILE, SearchJournal, key_of

FACTS = {"model": "0" * 64, "recipe": "default"}


def journal(folder: Path, *, fresh: bool = False, **facts: str) -> SearchJournal:
    return SearchJournal(folder, FACTS | facts, fresh=fresh)


def layer(name: str) -> Layer:
    return Layer(name=name, stage="fpn", operator="Conv", weight=name, weights=1, depthwise=False)


def test_what_was_put_is_there_in_the_next_run(tmp_path: Path) -> None:
    values: dict[str, Any] = {"size a": 3, "accuracy b": {"kept": [0.1, None]}, "disturbance c": 1 / 3}
    first = journal(tmp_path / "new" / "folder")
    for key, value in values.items():
        assert first.get(key) is None
        first.put(key, value)
    second = journal(tmp_path / "new" / "folder")
    assert {key: second.get(key) for key in values} == values
    second.put("size a", 4)
    assert journal(tmp_path / "new" / "folder").get("size a") == 4


@pytest.mark.parametrize("cut", range(1, 20, 3))
def test_a_torn_line_is_measured_again(tmp_path: Path, cut: int) -> None:
    first = journal(tmp_path)
    first.put("a", 1)
    first.put("b", 2)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    second = journal(tmp_path)
    assert (second.get("a"), second.get("b")) == (1, None)
    second.put("c", 3)
    third = journal(tmp_path)
    assert (third.get("a"), third.get("b"), third.get("c")) == (1, None, 3)


def test_a_torn_header_is_begun_anew(tmp_path: Path) -> None:
    journal(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    journal(tmp_path).put("a", 1)
    assert journal(tmp_path).get("a") == 1


def test_lines_that_are_none_are_left_out(tmp_path: Path) -> None:
    journal(tmp_path).put("a", 1)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'[]\n{"key": "b"}\nnothing\n{"key": "c", "value": 3}\n')
    found = journal(tmp_path)
    assert (found.get("a"), found.get("b"), found.get("c")) == (1, None, 3)


def test_another_search_is_refused_by_name(tmp_path: Path) -> None:
    journal(tmp_path).put("a", 1)
    with pytest.raises(UsageError, match="is of another search: devices, recipe differ"):
        journal(tmp_path, recipe="minmax", devices="cpu")
    assert journal(tmp_path).get("a") == 1  # it is as it was
    assert journal(tmp_path, fresh=True, recipe="minmax").get("a") is None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    journal(tmp_path)
    header = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(header | {"format_version": "99.0"}) + "\n")
    with pytest.raises(UsageError, match="format_version"):
        journal(tmp_path)


@pytest.mark.parametrize("content", [b"a poem\n", b'{"format": "something"}\n', b"unfinished"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_file_of_something_else_is_never_replaced(tmp_path: Path, content: bytes, fresh: bool) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UsageError, match="is no journal of a search"):
        journal(tmp_path, fresh=fresh)
    assert (tmp_path / FILE).read_bytes() == content


def test_removed(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("mine")
    journal(tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write"):
        journal(tmp_path / "file")


def test_keys() -> None:
    """The same layers in another order are the same choice; names do not run into one another."""
    assert key_of([layer("a"), layer("b")]) == key_of([layer("b"), layer("a")])
    assert len({key_of([]), key_of([layer("a")]), key_of([layer("ab")]), key_of([layer("a"), layer("b")])}) == 4
