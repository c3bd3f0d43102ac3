"""StoredRun: a run in one file, read image by image."""

import os
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from edgemask.checks import printable, refuse
from edgemask.errors import DatasetError
from edgemask.runs.archives import ArrayArchive
from edgemask.runs.entries import RunEntry
from edgemask.runs.facts import RunFacts
from edgemask.runs.records import FORMAT_VERSION, ImageRecord, check_format, sound

FORMAT = "edgemask.run"
INDEX = "run"
REMEDY = "store the run again, with --save-run"


class StoredRun:
    """What a detector found on a set of images: stands for the detector where this cannot run.

    A file that is not sound is a ModelFileError, since it takes the place of a model; an image that the run did not see
    is a DatasetError. Only the index and one image at a time are in memory. Use it in a `with` statement, or close it.

    Attributes:
        facts: which model the run is of.
        names: of its images, in the order of the run.
    """

    facts: RunFacts
    names: Sequence[str]

    def __init__(self, path: str | os.PathLike[str], archive: ArrayArchive, index: dict[str, Any]) -> None:
        self.facts = RunFacts.from_record(index.get("facts"))
        self._path = path
        self._archive = archive
        self._records = _records(index.get("images"))
        self._by_name: dict[str, dict[str, int]] = defaultdict(dict)
        for number, record in enumerate(self._records):
            if record.digest in self._by_name[record.name]:
                refuse("images", "each image once", record.name)
            self._by_name[record.name][record.digest] = number
        self.names = tuple(record.name for record in self._records)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a file that `RunWriter.pack` wrote.

        Raises:
            ModelFileError: there is no such file, it is no sound run, or of a newer major format.
        """
        with sound(path, REMEDY):
            archive = ArrayArchive(path)
            try:
                index = archive.read_json(INDEX)
                check_format(index, FORMAT)
                return cls(path, archive, index)
            except BaseException:
                archive.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    def get(self, name: str, digest: str) -> RunEntry:
        """Reads what was found on an image.

        Args:
            name: of the image, as the run called it.
            digest: sha256 of the image's file; see `file_digest`.

        Raises:
            DatasetError: the run did not see this image, or saw another one of this name.
            ModelFileError: what the file holds of it is not sound.
        """
        known = self._by_name.get(name)
        if known is None:
            raise DatasetError(
                f"the stored run {printable(os.fspath(self._path))} has no image {printable(name)}",
                "give the images that it was made on, or store it again with these",
            )
        if digest not in known:
            raise DatasetError(
                f"{printable(name)} is another image than the stored run {printable(os.fspath(self._path))} saw: "
                f"sha256 {printable(digest)[:64]}, there {next(iter(known))}",
                "give the images that it was made on, or store it again with these",
            )
        with sound(self._path, REMEDY):
            return self._records[known[digest]].read(self._archive, self.facts.spec, prefix_of(known[digest]))


def prefix_of(number: int) -> str:
    """Returns where the arrays of an image lie, by its place in the run."""
    return f"{number:06}/"


def index_of(facts: RunFacts, records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Returns the JSON values of the index."""
    images = [record.to_json() for record in records]
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "facts": facts.to_record(), "images": images}


def _records(value: Any) -> tuple[ImageRecord, ...]:
    if not isinstance(value, list):
        refuse("images", "a list", value)
    return tuple(map(ImageRecord.from_json, value))
