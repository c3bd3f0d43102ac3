"""INT8 within a budget: the fastest file that keeps 99 % of every AP on your images; if there is none, no file.

    python samples/quantize_within_budget.py MODEL.onnx TRAINING VALIDATION ANNOTATIONS [INT8.onnx [BUDGET]]

TRAINING is a folder of 100 or more images from which ranges are taken, VALIDATION one of images that are annotated, in
COCO format. BUDGET is the share of AP that may be lost, 0.01 if it is left out.
"""

import sys
from pathlib import Path

import edgemask
from edgemask.quantization import quantize


def main(
    model: str, training: str, validation: str, annotations: str, output: str = "out/int8.onnx", budget: str = "0.01"
) -> None:
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    report = quantize(
        model, output, training, images=validation, annotations=annotations, max_drop=float(budget), time_limit=60
    )
    if report.search.accuracy is not None:
        for kept in report.search.accuracy.kept:
            print(f"{kept.device}: {kept.what} {kept.reference:.4f} -> {kept.own:.4f}, {kept.allowed:.1%} may be lost")
    report.raise_for_failure()  # the report says what the best candidate loses, and where

    before, after = (Path(path).stat().st_size / 1e6 for path in (model, output))
    print(f"{output}: {before:.1f} MB -> {after:.1f} MB")
    with edgemask.load(output) as detector:
        images = sorted(path for path in Path(validation).iterdir() if path.is_file())
        print(f"{images[0]}: {detector.predict(images[0])} by {detector.device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
