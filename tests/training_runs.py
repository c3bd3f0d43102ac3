"""Plans for tests of training in which each anchor and each proposal counts, and none is drawn at random."""

import csv
from pathlib import Path
from typing import Any

from narrow import ARGUMENTS

EVERYTHING: dict[str, Any] = {
    "arguments": ARGUMENTS
    | {
        "rpn_post_nms_top_n_train": 50,
        "rpn_batch_size_per_image": 100_000,
        "box_batch_size_per_image": 1_000,
        "box_positive_fraction": 1.0,
    },
    "epochs": 1,
    "batch_size": 2,
    "warmup_steps": 0,
    "learning_rate": 3e-3,
    "average": 0.5,
    "freeze_norm": True,
}


def rows_of(log: Path) -> list[dict[str, str]]:
    """The rows of a curve."""
    with (log / "curve.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
