"""Boxes of somebody else, for a model that takes its proposals: read from a file of COCO results."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import number, several
from edgemask.errors import DatasetError

_box = several(number(-1e9, 1e9), 4, 4)


def read_proposals(path: str | Path, files: Sequence[Path]) -> list[NDArray[np.float32]]:
    """Reads the boxes for each image.

    Args:
        path: a JSON list of COCO results, as `edgemask predict --coco` writes them; of each, `bbox` (x, y, width,
            height) in pixels and `file_name` are read.
        files: the images; a `file_name` may hold the last folders of the path too.

    Returns:
        float32 [N, 4] xyxy for each image, in pixels; without an entry in the file, [0, 4].

    Raises:
        DatasetError: no such file, not such a list, no box in it for any of the images, or boxes that may be those of
            two of them.
    """
    try:
        entries = json.loads(Path(path).read_bytes())
        boxes = defaultdict(list)
        for entry in entries:
            left, top, width, height = _box("bbox", entry["bbox"])
            boxes[Path(entry["file_name"]).parts].append([left, top, left + width, top + height])
    except OSError as error:
        raise DatasetError(f"cannot read proposals {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path} is no list of boxes: {type(error).__name__} {error}",
            "expected COCO results with bbox and file_name, as `edgemask predict --coco` writes them",
        ) from error
    owners: dict[tuple[str, ...], Path] = {}
    found = []
    for file in map(Path.absolute, files):
        name = next((file.parts[start:] for start in range(len(file.parts)) if file.parts[start:] in boxes), ())
        if name and owners.setdefault(name, file) != file:
            raise DatasetError(
                f"the boxes of {Path(*name)} in {path} may be those of {owners[name]} or of {file}",
                "write the folders into file_name too",
            )
        found.append(np.array(boxes[name] if name else [], np.float32).reshape(-1, 4))
    if files and not any(map(len, found)):
        raise DatasetError(f"{path} has no box for {files[0]} or any other image", "check the file_name entries")
    return found
