"""The main job on the sample model: export, parity proof, prediction on each runtime, pictures."""

import contextlib
import importlib.resources
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemask.detections import Detections
from edgemask.drawing import draw, side_by_side
from edgemask.errors import DeviceUnavailable, ModelFileError, UsageError
from edgemask.files import creating, write_image
from edgemask.parity import TOLERANCES, ParityReport, compare
from edgemask.progress import progress
from edgemask.report import to_json
from edgemask.scenes import draw_scene

if TYPE_CHECKING:
    from edgemask.spec import ModelSpec

SCENE_SEED = 999_331  # a series that no data set of `edgemask scenes` is likely to be drawn from
DEVICES = {"cpu": "ONNX Runtime", "openvino:CPU": "OpenVINO"}
PICTURES = 6
WARM_UP = 2  # images before times are taken: the first runs choose kernels and allocate
# Rows and columns kept of a square scene, in percent: other shapes than the exporter saw.
_CROPS = ((100, 100), (75, 100), (100, 60), (100, 100))

Picture = NDArray[np.uint8]


class _Predictor(Protocol):
    def predict(self, source: Picture) -> Detections: ...


@dataclass(frozen=True, slots=True)
class RuntimeResult:
    """How the exported file does on one runtime.

    Attributes:
        name: the runtime.
        device: where it ran.
        milliseconds: median time of one image, with resize.
        parity: compared with PyTorch; None where the runtime is not usable here ...
        refusal: ... for this reason.
    """

    name: str
    device: str
    milliseconds: float | None
    parity: ParityReport | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did and found.

    `milliseconds` is PyTorch's median time of one image, with resize; `passed` says whether every runtime that is
    usable here does what PyTorch does.
    """

    checkpoint: str
    model: str
    scenes: str
    pictures: tuple[str, ...]
    images: int
    detections: int
    bytes: int
    nodes: int
    export_seconds: float
    milliseconds: float
    runtimes: tuple[RuntimeResult, ...]
    seconds: float
    passed: bool


def run_demo(
    output: str | Path,
    *,
    images: int = 24,
    checkpoint: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DemoReport:
    """Exports the sample model and proves on fresh scenes that it does on every runtime what it does in PyTorch.

    Args:
        output: folder for everything that is written: `sample.safetensors`, `sample.onnx`, `scenes/`, `pictures/`
            and `summary.json`.
        images: number of scenes, at least 2; the last one has no object.
        checkpoint: another model than the packaged one.
        say: told what comes next, in a line.

    Returns:
        The record that `summary.json` holds.

    Raises:
        UsageError: too few images.
        ModelFileError: the package came without its sample model.
        DeviceUnavailable: neither runtime is usable here.
        DependencyMissing: a package is not installed.
    """
    from edgemask.checkpoints import load_model
    from edgemask.export import export_onnx
    from edgemask.reference import ReferenceDetector

    if images < 2:
        raise UsageError(f"{images} images are too few for a demo", "give at least 2")
    started = time.monotonic()
    output = Path(output)
    for folder in ("scenes", "pictures"):
        _empty(output / folder)
    sample, path = output / "sample.safetensors", output / "sample.onnx"
    with _checkpoint(checkpoint) as source, creating(sample) as temporary:
        shutil.copyfile(source, temporary)
    say(f"exporting {sample}")
    model, spec = load_model(str(sample))
    report = export_onnx(model, path, spec=spec, verify=False)
    pixels = fresh_scenes(images)
    names = [f"scene-{index:02d}.png" for index in range(images)]
    for name, image in zip(names, pixels, strict=True):
        write_image(output / "scenes" / name, image)
    say(f"detecting on {images} fresh scenes: PyTorch, {', '.join(DEVICES.values())}")
    expected, milliseconds = _predict(ReferenceDetector(model, report.spec), pixels, "PyTorch")
    runtimes, found = _run_devices(path, names, pixels, expected)
    pictures = _draw_sheets(output / "pictures", names, pixels, {"PyTorch": expected, **found}, report.spec)
    record = DemoReport(
        checkpoint=str(sample),
        model=str(path),
        scenes=str(output / "scenes"),
        pictures=pictures,
        images=images,
        detections=sum(map(len, expected)),
        bytes=report.bytes,
        nodes=report.nodes,
        export_seconds=report.seconds,
        milliseconds=milliseconds,
        runtimes=runtimes,
        seconds=time.monotonic() - started,
        passed=all(runtime.parity is None or runtime.parity.passed for runtime in runtimes),
    )
    with creating(output / "summary.json") as temporary:
        temporary.write_text(to_json(record) + "\n", encoding="utf-8")
    return record


def fresh_scenes(count: int) -> list[Picture]:
    """Scenes that no model has seen, uint8 [H, W, 3] RGB of several shapes; the last one has no object."""
    pictures = []
    for index in range(count):
        image = draw_scene(index, seed=SCENE_SEED, objects=0 if index == count - 1 else None).image
        rows, columns = (side * share // 100 for side, share in zip(image.shape[:2], _CROPS[index % 4], strict=True))
        pictures.append(np.ascontiguousarray(image[:rows, :columns]))
    return pictures


@contextlib.contextmanager
def _checkpoint(path: str | Path | None) -> Iterator[Path]:
    """The file given, or the packaged one, which may lie in an archive."""
    if path is not None:
        if not Path(path).is_file():
            raise ModelFileError(f"there is no checkpoint {path}", "check the path")
        yield Path(path)
        return
    packaged = importlib.resources.files("edgemask") / "assets" / "sample.safetensors"
    if not packaged.is_file():
        raise ModelFileError("this edgemask came without its sample model", "install it again")
    with importlib.resources.as_file(packaged) as unpacked:
        yield unpacked


def _empty(folder: Path) -> None:
    """Makes a folder, and removes the pictures that an earlier demo left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("scene-*.png"):
        picture.unlink()


def _predict(detector: _Predictor, pixels: Sequence[Picture], title: str) -> tuple[list[Detections], float]:
    """Detections of every image, and the median time of one in milliseconds."""
    for image in pixels[:WARM_UP]:
        detector.predict(image)
    found, times = [], []
    for image in progress(pixels, title):
        started = time.perf_counter()
        found.append(detector.predict(image))
        times.append(1000 * (time.perf_counter() - started))
    return found, statistics.median(times)


def _run_devices(
    path: Path, names: Sequence[str], pixels: Sequence[Picture], expected: Sequence[Detections]
) -> tuple[tuple[RuntimeResult, ...], dict[str, list[Detections]]]:
    """Runs the exported file on every device of the demo and compares; gives the detections by runtime too."""
    from edgemask import load

    results: list[RuntimeResult] = []
    found: dict[str, list[Detections]] = {}
    for device, name in DEVICES.items():
        try:
            detector = load(path, device=device)
        except DeviceUnavailable as error:
            results.append(RuntimeResult(name, device, None, None, str(error).replace("\n", ": ")))
            continue
        with detector:
            found[name], milliseconds = _predict(detector, pixels, name)
        spec = detector.spec
        pairs = zip(names, expected, found[name], strict=True)
        parity = compare(pairs, TOLERANCES[spec.precision], max_detections=spec.max_detections)
        results.append(RuntimeResult(name, detector.device, milliseconds, parity, None))
    if not found:
        reasons = "; ".join(str(result.refusal) for result in results)
        raise DeviceUnavailable(f"no runtime is usable here: {reasons}", "pip install 'edgemask[cpu,openvino]'")
    return tuple(results), found


def _draw_sheets(
    folder: Path,
    names: Sequence[str],
    pixels: Sequence[Picture],
    found: dict[str, list[Detections]],
    spec: "ModelSpec",
) -> tuple[str, ...]:
    """Writes the first scenes with the results of each runtime side by side; gives the paths."""
    written = []
    for index in range(min(PICTURES, len(pixels))):
        panels = [draw(pixels[index], results[index], spec.class_names) for results in found.values()]
        write_image(folder / names[index], side_by_side(panels, list(found)))
        written.append(str(folder / names[index]))
    return tuple(written)
