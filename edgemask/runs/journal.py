"""RunWriter: a run in progress as a folder, which an interruption leaves whole."""

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from edgemask.checks import printable, refuse
from edgemask.errors import ModelFileError, OutputError, UsageError
from edgemask.files import creating
from edgemask.runs.archives import COMPRESSION_LEVEL, ArrayArchive, parse_json, write_arrays, write_json
from edgemask.runs.entries import RunEntry
from edgemask.runs.facts import RunFacts
from edgemask.runs.records import FORMAT_VERSION, ImageRecord, arrays_of, check_format, sound
from edgemask.runs.stored import INDEX, index_of, prefix_of

FACTS_FILE = "journal.json"
FORMAT = "edgemask.run-journal"

_ENTRY = "entry"
_ENTRY_FILE = re.compile(r"entry-[0-9a-f]{64}\.npz")
_UNFINISHED_FILE = re.compile(r"\.(entry-[0-9a-f]{64}\.npz|journal\.json)\..+\.part")
_FACTS_LIMIT = 8 << 20  # bytes; a spec has at most 1 MiB


class RunWriter:
    """Keeps what is found on each image the moment it is found; see `RunWriter.open`.

    A folder is open once at a time. Use it in a `with` statement, or close it.

    Attributes:
        folder: where.
        facts: which model the run is of; of a run that is continued, with the date when it began.
    """

    folder: Path
    facts: RunFacts

    def __init__(self, folder: Path, facts: RunFacts, lock: contextlib.ExitStack) -> None:
        self.folder = folder
        self.facts = facts
        self._lock = lock
        self._fingerprint = facts.fingerprint()
        self._touched: dict[tuple[str, str], None] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], facts: RunFacts, *, fresh: bool = False) -> Self:
        """Begins a run, or continues the one that the folder holds.

        The folder is made where there is none; files in it that are not of a journal stay as they are.

        Args:
            folder: of the journal.
            facts: which model the run is of.
            fresh: begin anew where there is a run already: its files are removed, and no others.

        Raises:
            UsageError: the folder holds another run, or a `journal.json` of something else, or it is open already.
            ModelFileError: the journal there is not sound, or of a newer major format.
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        with contextlib.ExitStack() as stack:
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _lock(folder, stack)
                _remove(folder, _UNFINISHED_FILE)
                text = _facts_text(folder)
                if text is not None and fresh:
                    _identify(folder, text)
                    _remove(folder, _ENTRY_FILE)
            if text is None or fresh:
                _begin(folder, facts)
            else:
                facts = _continued(folder, text, facts)
            return cls(folder, facts, stack.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the folder to others; what was put stays."""
        self._lock.close()

    def put(self, name: str, digest: str, entry: RunEntry) -> None:
        """Keeps what was found on an image, whole or not at all; what was kept of it before is replaced.

        Args:
            name: of the image, for people; two images may share it.
            digest: sha256 of the image's file; see `file_digest`.
            entry: what was found.

        Raises:
            UsageError: a name or digest that is none, or an entry that the model of this run cannot have given.
            OutputError: the file cannot be written.
        """
        record = ImageRecord.of(name, digest, entry, self.facts.spec)
        with creating(self._path(name, digest)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            write_json(archive, _ENTRY, {"run": self._fingerprint, "image": record.to_json()})
            write_arrays(archive, arrays_of(entry))
        self._touched[name, digest] = None

    def get(self, name: str, digest: str) -> RunEntry | None:
        """Returns what was kept of an image, or None: nothing, or nothing sound, so that it is to be done again."""
        try:
            _, entry = self._read(name, digest)
        except (UsageError, ModelFileError):
            return None
        self._touched[name, digest] = None
        return entry

    def pack(self, path: str | os.PathLike[str]) -> None:
        """Writes the run as one file for `StoredRun`, whole or not at all; one image at a time is in memory.

        It holds the images that were put or got since the journal was opened, in this order: what the folder has of
        images that are no longer asked for stays out.

        Raises:
            UsageError: there is no image, or more than the index of one file holds.
            ModelFileError: an entry is missing or not sound.
            OutputError: the file cannot be written.
        """
        if not self._touched:
            raise UsageError("a run without images cannot be stored", "put or get its images first")
        records = []
        with (
            creating(Path(path)) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive,
        ):
            for number, (name, digest) in enumerate(self._touched):
                with sound(self._path(name, digest), "run again with the same journal: the image is done anew"):
                    record, entry = self._read(name, digest)
                write_arrays(archive, arrays_of(entry), prefix_of(number))
                records.append(record)
            write_json(archive, INDEX, index_of(self.facts, records))

    def remove(self) -> None:
        """Removes the run: its work is done. Files that are not the journal's stay, and with them the folder.

        Raises:
            OutputError: a file cannot be removed.
        """
        with _writing(self.folder):
            _remove(self.folder, _ENTRY_FILE)
            (self.folder / FACTS_FILE).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _path(self, name: str, digest: str) -> Path:
        identity = f"{digest}\0{name}".encode("utf-8", "surrogatepass")
        return self.folder / f"entry-{hashlib.sha256(identity).hexdigest()}.npz"

    def _read(self, name: str, digest: str) -> tuple[ImageRecord, RunEntry]:
        with ArrayArchive(self._path(name, digest)) as archive:
            kept = archive.read_json(_ENTRY)
            # A file that was put there by hand may be of another run.
            if kept.get("run") != self._fingerprint:
                refuse("run", self._fingerprint, kept.get("run"))
            record = ImageRecord.from_json(kept.get("image"))
            if (record.name, record.digest) != (name, digest):
                refuse("image", name, record.name)
            return record, record.read(archive, self.facts.spec)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {printable(str(folder))}: {reason}", "name another folder") from error


def _facts_text(folder: Path) -> bytes | None:
    """What the facts' file holds, or None where there is none."""
    path = folder / FACTS_FILE
    if not path.is_file() or path.stat().st_size > _FACTS_LIMIT:
        return b"" if path.exists() else None
    return path.read_bytes()


def _identify(folder: Path, text: bytes) -> dict[str, object]:
    """Reads the facts' file as far as to see that it is ours; nothing else is ever replaced."""
    with contextlib.suppress(UsageError):
        record = parse_json(FACTS_FILE, text)
        if record.get("format") == FORMAT:
            return record
    raise UsageError(
        f"{printable(str(folder))} has a {FACTS_FILE} that is not of edgemask", "name another folder for the journal"
    )


def _begin(folder: Path, facts: RunFacts) -> None:
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, "facts": facts.to_record()}
    with creating(folder / FACTS_FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")


def _continued(folder: Path, text: bytes, facts: RunFacts) -> RunFacts:
    """Returns the facts of the run that the folder holds, once it is seen to be the same run."""
    record = _identify(folder, text)
    remedy = "begin anew, without resuming, or name another folder"
    with sound(folder / FACTS_FILE, remedy):
        check_format(record, FORMAT)
        begun = RunFacts.from_record(record.get("facts"))
    if differences := begun.differences(facts):
        raise UsageError(
            f"the journal {printable(str(folder))} is of another run: {'; '.join(differences)}",
            f"go on with the same model and settings, {remedy}",
        )
    return begun


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Holds the folder, where the system and its file system can, until the stack is closed or the process ends."""
    try:
        import fcntl
    except ImportError:
        return
    handle = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        problem = f"the journal {printable(str(folder))} is in use"
        raise UsageError(problem, "wait for the other run to end, or name another folder") from error
    except OSError:  # some network file systems have no locks
        return


def _remove(folder: Path, names: re.Pattern[str]) -> None:
    for path in folder.iterdir():
        if names.fullmatch(path.name) and path.is_file():
            path.unlink()
