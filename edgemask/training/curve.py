"""What a run tells while it goes on: a row for each epoch, as CSV, for TensorBoard, and with a picture."""

import csv
import importlib.util
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemask.datasets import CocoDataset
from edgemask.drawing import draw, side_by_side
from edgemask.files import creating, write_image
from edgemask.images import load_image
from edgemask.masks import import_supervision
from edgemask.reference import ReferenceDetector

CSV_FILE = "curve.csv"
_SHOWN = 4  # images in a picture


class Curve:
    """Rows of finished epochs, and sums over the steps of the one that is under way; part of a run's state."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._since = time.monotonic()

    def add(self, losses: Mapping[str, float]) -> None:
        """Counts a step, by its losses."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def end_epoch(self, **facts: float) -> dict[str, float]:
        """Makes a row of the facts and the mean of each loss, and begins the next one."""
        now = time.monotonic()
        means = {name: total / self._steps for name, total in self._sums.items()}
        row = {"epoch": len(self.rows) + 1, **facts, **means, "seconds": now - self._since}
        self.rows.append(row)
        self._sums, self._steps, self._since = {}, 0, now
        return row

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        return {"rows": self.rows, "sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a state was taken."""
        self.rows, self._sums, self._steps = list(state["rows"]), dict(state["sums"]), int(state["steps"])


class Log:
    """A folder with the curve of a run, and pictures of what the model finds after each epoch.

    `curve.csv` has a row for each epoch, `epoch-001.jpg` the first images of a data set with what is found on them at
    a score of 0.5. Where the package tensorboard is installed, the same goes to its event files.

    Args:
        folder: is made where it is not there.
        dataset: whose first images are shown.
        class_names: of the model, in label order.

    Raises:
        DependencyMissing: supervision is not installed.
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: str | Path, dataset: CocoDataset, class_names: Sequence[str]) -> None:
        import_supervision()  # needed after the first epoch only, and better missed at once
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = list(dataset.annotations.images.values())[:_SHOWN]
        self._names = [str(entry["file_name"]) for entry in entries]
        self._images = [load_image(dataset.path(entry)) for entry in entries]
        self._class_names = class_names
        self._board: Any = None

    def write(self, rows: Sequence[Mapping[str, float]], detector: ReferenceDetector) -> None:
        """Writes the rows of all epochs so far, and the picture of the last one."""
        with creating(self._folder / CSV_FILE) as temporary:
            temporary.write_text(_csv(rows), encoding="utf-8")
        found = [draw(image, detector.predict(image), self._class_names) for image in self._images]
        picture = side_by_side(found, self._names)
        epoch = int(rows[-1]["epoch"])
        write_image(self._folder / f"epoch-{epoch:03d}.jpg", picture)
        if self._board is None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            # What a run that was killed wrote of this epoch does not count.
            self._board = SummaryWriter(str(self._folder), purge_step=epoch)
        if self._board is not None:
            for name, value in rows[-1].items():
                if name != "epoch":
                    self._board.add_scalar(name, value, epoch)
            self._board.add_image("detections", picture, epoch, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Ends the event files."""
        if self._board is not None:
            self._board.close()


def _csv(rows: Sequence[Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return text.getvalue()
