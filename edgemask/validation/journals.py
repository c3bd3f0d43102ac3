"""Results kept on disk while the work goes on: for the next device, for a stored run, and after an interruption."""

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgemask.errors import UsageError
from edgemask.files import scratch
from edgemask.runs import RunEntry, RunFacts, RunWriter
from edgemask.validation.images import UsableImage
from edgemask.validation.sides import Boxes, Picture, RunSide, Side, Stages


@dataclass
class JournaledSide(Side):
    """A side whose results are kept on disk; what is there already is not looked for again.

    Attributes:
        side: what finds something where nothing is kept yet.
        journal: where results are kept.
        must_keep: whether it is an error that a result cannot be kept.
        resumed: how many of them were there before.
        with_stages: for how many images, the first ones, the tensors of the stages are kept too.
    """

    side: Side
    journal: RunWriter
    must_keep: bool
    with_stages: int = 0
    resumed: int = 0

    def __post_init__(self) -> None:
        self.facts, self.spec, self.notes = self.side.facts, self.side.spec, self.side.notes
        self.alone = self.side.alone

    def look(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> RunEntry:
        """See `Side.look`."""
        kept = self.journal.get(image.name, image.digest)
        if kept is not None and (kept.stages is not None or not self.with_stages):
            self.resumed += 1
            self.with_stages = max(0, self.with_stages - 1)
            return kept
        entry = self.side.look(image, pixels, proposals)
        if self.with_stages:
            self.with_stages -= 1
            stages = self.side.stages(image, pixels, proposals)
            entry = replace(entry, stages=stages)
        try:
            self.journal.put(image.name, image.digest, entry)
        except UsageError:  # no result that the model can have: the comparison says what is wrong with the candidate
            if self.must_keep:
                raise
        return entry

    def propose(self, image: UsableImage, pixels: Picture) -> Boxes | None:
        """See `Side.propose`."""
        kept = self.journal.get(image.name, image.digest)
        return self.side.propose(image, pixels) if kept is None else kept.proposals

    def stages(self, image: UsableImage, pixels: Picture, proposals: Boxes | None) -> Stages | None:
        """See `Side.stages`."""
        return self.side.stages(image, pixels, proposals)


class Journals:
    """The journals of a validation, one for each side.

    Args:
        folder: where they are kept; None: where nobody finds them again.
        fresh: begin anew where there are some.
        stack: closes them.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, *, fresh: bool, stack: contextlib.ExitStack) -> None:
        self._folder = None if folder is None else Path(folder)
        self._fresh, self._stack = fresh, stack
        self._writers: list[RunWriter] = []

    @property
    def is_lasting(self) -> bool:
        """Whether they outlive an interruption."""
        return self._folder is not None

    def side(self, name: str, side: Side, *, must_keep: bool = False, with_stages: int = 0) -> Side:
        """The side with a journal; a stored run needs none.

        Args:
            name: of the journal.
            side: what finds something.
            must_keep: whether it is an error that a result cannot be kept.
            with_stages: for how many images the tensors of the stages are kept too.

        Raises:
            UsageError: there is a journal of another model, and it is not to begin anew.
        """
        if isinstance(side, RunSide):
            return side
        folder = self._folder or self._stack.enter_context(scratch())
        journal = RunWriter.open(folder / name, _facts(side), fresh=self._fresh)
        self._writers.append(self._stack.enter_context(journal))
        return JournaledSide(side, journal, must_keep, with_stages)

    def remove(self) -> None:
        """Removes all of them: the work is done."""
        for writer in self._writers:
            writer.remove()
        if self._folder is not None:
            with contextlib.suppress(OSError):  # something of the user's own is in it
                self._folder.rmdir()


def _facts(side: Side) -> RunFacts:
    """What a stored run says about the side that it is of.

    Raises:
        UsageError: a side whose weights nobody can know again.
    """
    return RunFacts.of(
        kind="onnx" if side.facts.kind == "onnx" else "pytorch",
        name=os.path.basename(side.facts.name),
        device=side.facts.device,
        sha256=side.facts.sha256,
        spec=side.spec,
    )
