"""From a trained checkpoint to objects on a picture: export, verify, load, predict, draw.

    python samples/export_and_predict.py [IMAGE] [--checkpoint MODEL.safetensors] [--device cpu] [-o FOLDER]

Without an image it draws a scene; without a checkpoint it takes the sample model that comes with the package.
"""

import argparse
from importlib import resources
from pathlib import Path

import edgemask
from edgemask.checkpoints import load_checkpoint
from edgemask.drawing import draw
from edgemask.export import export_onnx
from edgemask.files import write_image
from edgemask.images import load_image
from edgemask.scenes import draw_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("image", nargs="?")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sample"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    with resources.as_file(resources.files("edgemask") / "assets" / "sample.safetensors") as packaged:
        model, spec = load_checkpoint(options.checkpoint or packaged)
    # Runs the file and compares it with PyTorch before it says that it is done.
    report = export_onnx(model, options.output / "model.onnx", spec=spec)
    print(f"{report.path}: {report.nodes} operators, {report.bytes / 1e6:.1f} MB, {report.seconds:.0f} s")

    pixels = draw_scene(0, seed=1).image if options.image is None else load_image(options.image)
    with edgemask.load(report.path, device=options.device) as detector:
        print(f"on {detector.device}", *(f"not on {reason}" for reason in detector.refusals), sep="\n")
        found = detector.predict(pixels)
    for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
        print(f"{spec.label_name(label)} {score:.4f}", *(f"{value:.4f}" for value in box))
    write_image(options.output / "picture.png", draw(pixels, found, spec.class_names))
    print(options.output / "picture.png")


if __name__ == "__main__":
    main()
