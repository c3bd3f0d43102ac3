"""The folder in which a quantization keeps what it has measured, so that it can go on after an interruption."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from edgemask.errors import ModelFileError, OutputError, UsageError
from edgemask.quantization.calibration import Calibration, calibrate
from edgemask.quantization.search_journal import SearchJournal
from edgemask.runs import file_digest
from edgemask.runtimes import ModelFile

_CALIBRATION = "calibration.npz"
_REFERENCE = "reference"  # folder of what the reference found


class WorkFolder:
    """What is kept of a quantization under way: results of the reference, the calibration, what the search measured.

    Args:
        path: the folder; None: nothing is kept.
        resume: go on with what it holds, rather than begin anew.

    Raises:
        UsageError: nothing is there to go on with.
        OutputError: the folder cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume: bool) -> None:
        self._path = None if path is None else Path(path)
        self.resume = resume
        self._journal: SearchJournal | None = None
        self._calibration: Path | None = None
        if resume and (self._path is None or not self._path.is_dir()):
            where = "" if self._path is None else f" in {self._path}"
            raise UsageError(f"nothing is kept{where} to go on with", "leave out --resume to begin anew")

    @property
    def reference(self) -> Path | None:
        """Where the reference's results are kept."""
        return None if self._path is None else self._path / _REFERENCE

    def calibrate(self, model: ModelFile, tensors: Sequence[str], images: Sequence[Path], device: str) -> Calibration:
        """Calibrates, or takes the calibration of the same model on the same images that is kept.

        Raises:
            CalibrationError, OutputError and more: see `edgemask.quantization.calibration.calibrate`.
        """
        if self._path is None:
            return calibrate(model, tensors, images, device=device)
        self._calibration = path = self._path / f"{model.digest[:16]}.{_CALIBRATION}"
        if self.resume and (kept := _kept(path, tensors, images)) is not None:
            return kept
        counted = calibrate(model, tensors, images, device=device)
        _make(self._path)
        counted.save(path)
        return counted

    def journal(self, **facts: str) -> SearchJournal | None:
        """Opens the journal of the search; `facts` say what all of its measurements depend on.

        Raises:
            UsageError: the folder holds the journal of another search, and it is to go on.
            OutputError: it cannot be written.
        """
        if self._path is None:
            return None
        self._journal = SearchJournal(self._path, facts, fresh=not self.resume)
        return self._journal

    def remove(self) -> None:
        """Removes what this work has kept, and the folder, if nothing else is in it: the work is done."""
        if self._path is None:
            return
        if self._journal is not None:
            self._journal.remove()
        if self._calibration is not None:
            self._calibration.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's own is in it
            self._path.rmdir()


def _kept(path: Path, tensors: Sequence[str], images: Sequence[Path]) -> Calibration | None:
    try:
        kept = Calibration.load(path)
    except ModelFileError:  # none, or torn
        return None
    digests = "\n".join(sorted(file_digest(image) for image in images))
    same = kept.facts.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    return kept if same and set(tensors) <= kept.histograms.keys() else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", "name another place with -o") from error
