r"""What a search has measured, on disk, so that one that was interrupted measures nothing twice.

`search.jsonl` has a JSON object on each line: on the first `format`, `format_version` and the facts of what is searched
for; on each of the others the `key` of a measurement and its `value`. A line is written at once and whole, and one that
an interruption tore is done again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgemask.checks import printable
from edgemask.errors import OutputError, UsageError
from edgemask.quantization.layers import Layer
from edgemask.runs.archives import parse_json
from edgemask.runs.records import FORMAT_VERSION, check_format

FILE = "search.jsonl"
_FORMAT = "edgemask.search"
_SIZE_LIMIT = 64 << 20  # bytes: some 10,000 measurements


class SearchJournal:
    """Keeps measurements by their key.

    Args:
        folder: where; it is made where there is none.
        facts: texts by name, of what is searched for and how: what all measurements depend on.
        fresh: begin anew where there is one.

    Raises:
        UsageError: the folder holds the journal of another search, or a file of this name that is none.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], facts: Mapping[str, str], *, fresh: bool) -> None:
        self._path = Path(folder) / FILE
        self._known: dict[str, Any] = {}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._lines()
            if whole and not fresh:
                self._continue(whole, dict(facts))
                with self._path.open("rb+") as file:  # cuts off a torn line, to which the next one would be joined
                    file.truncate(sum(map(len, whole)))
            else:
                header = {"format": _FORMAT, "format_version": FORMAT_VERSION, "facts": dict(facts)}
                self._path.write_bytes(_line(header))
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, key: str) -> Any:
        """What was kept under a key; None where nothing was."""
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keeps JSON values under a key.

        Raises:
            OutputError: the file cannot be written.
        """
        self._known[key] = value
        try:
            with self._path.open("ab") as file:
                file.write(_line({"key": key, "value": value}))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Removes the file: the search is done."""
        self._path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        """The lines that were written whole.

        Raises:
            UsageError: a file that is no journal of a search, which is never replaced.
        """
        if not self._path.exists():
            return []
        if self._path.is_file() and self._path.stat().st_size <= _SIZE_LIMIT:
            lines = self._path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            if not lines or _is_header(whole[:1]):
                return whole
        raise UsageError(
            f"{printable(str(self._path))} is no journal of a search", "name another folder for the journal"
        )

    def _continue(self, lines: list[bytes], facts: dict[str, str]) -> None:
        header = parse_json(FILE, lines[0])
        check_format(header, _FORMAT)
        begun = header.get("facts")
        names = sorted(name for name in facts if not isinstance(begun, dict) or begun.get(name) != facts[name])
        if names:
            raise UsageError(
                f"the journal {printable(str(self._path))} is of another search: {', '.join(names)} differ",
                "go on with the same model, recipe, images and devices, or begin anew, without resuming",
            )
        for line in lines[1:]:
            try:
                entry = parse_json(FILE, line)
                self._known[str(entry["key"])] = entry["value"]
            except (UsageError, KeyError):  # written by hand, or by a failing disk: it is measured again
                continue

    def _unwritable(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(f"cannot write {printable(str(self._path))}: {reason}", "name another folder")


def key_of(layers: Iterable[Layer]) -> str:
    """A name for a choice of layers."""
    names = "\n".join(sorted(layer.name for layer in layers))
    return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _is_header(lines: list[bytes]) -> bool:
    try:
        return parse_json(FILE, lines[0]).get("format") == _FORMAT
    except (UsageError, IndexError):
        return False
