"""From a trained checkpoint to objects on a picture: export, verify, load, predict, draw.

    python samples/export_and_predict.py [MODEL.safetensors [IMAGE [FOLDER]]]

Without a checkpoint it takes the sample model that comes with the package, without an image a scene that it draws.
"""

import sys
from pathlib import Path

import edgemask
from edgemask.checkpoints import load_checkpoint
from edgemask.drawing import draw
from edgemask.export import export_onnx
from edgemask.files import write_image
from edgemask.images import load_image
from edgemask.scenes import draw_scene

PACKAGED = Path(edgemask.__file__).parent / "assets" / "sample.safetensors"


def main(checkpoint: str | Path = PACKAGED, image: str = "", folder: str = "out/sample") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    model, spec = load_checkpoint(checkpoint)
    # Runs the file and compares it with PyTorch before it says that it is done.
    report = export_onnx(model, Path(folder) / "model.onnx", spec=spec)
    print(f"{report.path}: {report.nodes} operators, {report.bytes / 1e6:.1f} MB, {report.seconds:.0f} s")

    pixels = load_image(image) if image else draw_scene(0, seed=1).image
    with edgemask.load(report.path) as detector:
        print(f"on {detector.device}", *(f"not on {reason}" for reason in detector.refusals), sep="\n")
        found = detector.predict(pixels)
    for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
        print(f"{spec.label_name(label)} {score:.4f}", *(f"{value:.4f}" for value in box))
    write_image(Path(folder) / "picture.png", draw(pixels, found, spec.class_names))
    print(Path(folder) / "picture.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
