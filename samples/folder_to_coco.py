"""Runs a folder of images, several at a time, and writes what was found as COCO results.

    python samples/folder_to_coco.py MODEL.onnx FOLDER [RESULTS.json]

Images are read, run and finished at the same time, and only a few are in memory. Those of one canvas go through the
graph together where the file takes batches: `edgemask export ... --batch dynamic`.
"""

import json
import sys
import time
from pathlib import Path

import edgemask
from edgemask.images import IMAGE_SUFFIXES


def main(model: str, folder: str, output: str = "out/results.json") -> None:
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    results = []
    with edgemask.load(model) as detector:
        start = time.perf_counter()
        stream = detector.stream(paths, batch=detector.spec.batch or 4)
        for number, (path, (_, found)) in enumerate(zip(paths, stream, strict=True), start=1):
            entries = found.to_coco(number, detector.spec.category_ids)
            results.extend(entry | {"file_name": path.name} for entry in entries)
        seconds = time.perf_counter() - start
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(results), encoding="utf-8")
    print(
        f"{output}: {len(results)} objects in {len(paths)} images, {len(paths) / seconds:.1f} images/s", detector.device
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
