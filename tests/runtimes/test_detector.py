"""`edgemask.load` and `Detector`: every kind of source, batches, and what a detector refuses."""

import inspect
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from spawned import open_model, scores_of
from toy_model import SCORES, SPEC, busy_proto, toy_proto, write_toy

import edgemask
from edgemask import Detections
from edgemask.errors import EdgemaskError, ForkedProcessError, ImageError, UsageError
from edgemask.runtimes import Detector, write_model
from edgemask.runtimes.detector import Source
from edgemask.scenes import draw_scene

DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
SQUARE = draw_scene(0, size=64).image
WIDE = draw_scene(1, size=96).image[:48]  # resized to 64 x 128
BOXES = [[4, 4, 28, 60], [36, 4, 60, 60]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "m.onnx")


@pytest.fixture(scope="module", params=DEVICES)
def detector(path: Path, request: pytest.FixtureRequest) -> Iterator[Detector]:
    with edgemask.load(path, device=request.param) as detector:
        yield detector


@pytest.fixture(scope="module", params=DEVICES)
def busy(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Detector]:
    path = tmp_path_factory.mktemp("busy") / "m.onnx"
    write_model(busy_proto(), SPEC, path)
    with edgemask.load(path, device=request.param) as detector:
        yield detector


def same(one: Detections, other: Detections) -> bool:
    assert one.masks is not None
    assert other.masks is not None
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [(one.boxes, other.boxes), (one.masks, other.masks)]
    pairs += [(one.scores, other.scores), (one.labels, other.labels)]
    return one.image_size == other.image_size and all(np.array_equal(a, b) for a, b in pairs)


def test_device_is_a_keyword() -> None:
    parameter = inspect.signature(edgemask.load).parameters["device"]
    assert (parameter.kind, parameter.default) == (parameter.KEYWORD_ONLY, "auto")


def test_one_image(detector: Detector) -> None:
    found = detector.predict(SQUARE)
    assert isinstance(found, Detections)
    assert found.image_size == (64, 64)
    assert found.boxes.tolist() == BOXES
    assert found.scores.tolist() == pytest.approx(SCORES)
    assert found.labels.tolist() == [1, 2]
    assert found.masks is not None
    assert found.masks.shape == (2, 4, 4)
    assert detector.spec == SPEC


@pytest.mark.parametrize(("size", "ratio"), [((128, 128), 2.0), ((32, 32), 0.5), ((64, 128), 1.0)])
def test_boxes_are_in_pixels_of_the_original(detector: Detector, size: tuple[int, int], ratio: float) -> None:
    found = detector.predict(np.zeros((*size, 3), np.uint8))
    assert found.image_size == size
    assert found.boxes.tolist() == (ratio * np.array(BOXES)).tolist()


def test_every_kind_of_source_gives_the_same(busy: Detector, tmp_path: Path) -> None:
    expected = busy.predict(WIDE)
    Image.fromarray(WIDE).save(tmp_path / "a.png")
    sources: list[Source] = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(WIDE), WIDE[:, ::-1][:, ::-1]]
    assert all(same(busy.predict(source), expected) for source in sources)
    assert all(same(found, expected) for found in busy.predict(sources))
    assert not same(busy.predict(WIDE[::-1]), expected), "the detections depend on the image"


def test_a_list_or_tuple_gives_a_list(busy: Detector) -> None:
    sources = [SQUARE, WIDE, SQUARE[::-1]]
    expected = [busy.predict(source) for source in sources]
    for several in (sources, tuple(sources)):
        found = busy.predict(several)
        assert isinstance(found, list)
        assert len(found) == 3
        assert all(map(same, found, expected))
    assert busy.predict([]) == []
    assert busy.predict(()) == []
    assert [len(one) for one in busy.predict([SQUARE])] == [2]


def test_exif_orientation_is_applied(busy: Detector, tmp_path: Path) -> None:
    picture = Image.fromarray(WIDE)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert same(busy.predict(tmp_path / "a.png"), busy.predict(np.rot90(WIDE, -1).copy()))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ((SQUARE for _ in range(2)), UsageError, "got builtins.generator"),
        ({"a": SQUARE}, UsageError, "got builtins.dict"),
        (None, UsageError, "got builtins.NoneType"),
        (b"bytes", UsageError, "got builtins.bytes"),
        (np.stack([SQUARE, SQUARE]), UsageError, "pass a list of images"),
        (SQUARE.astype(np.float32), UsageError, "got float32"),
        (SQUARE[:, :, 0], UsageError, "repeat a grey image"),
        (Path("nothing.png"), ImageError, "nothing.png: .*no such file"),
        ([SQUARE, "nothing.png"], ImageError, "nothing.png: .*no such file"),
        ([[SQUARE]], UsageError, "got builtins.list"),
        (np.zeros((1, 2000, 3), np.uint8), ImageError, "0 x 128"),
    ],
)
def test_what_is_no_image(detector: Detector, source: Any, error: type[EdgemaskError], message: str) -> None:
    with pytest.raises(error, match=message):
        detector.predict(source)
    assert len(detector.predict(SQUARE)) == 2, "the detector is as good as before"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["boxes", "scores", "masks"])
def test_outputs_that_are_no_numbers(tmp_path: Path, name: str, value: float) -> None:
    proto = toy_proto()
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == f"{name}/value")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[-1] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    write_model(proto, SPEC, tmp_path / "m.onnx")
    with (
        edgemask.load(tmp_path / "m.onnx", device="cpu") as detector,
        pytest.raises(EdgemaskError, match=f"gave {name} that are not numbers on cpu"),
    ):
        detector.predict(SQUARE)


def images_of(*shape: int, dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("images", "sizes", "message"),
    [
        (images_of(1, 3, 64, 64, dtype=np.float64), [[64, 64]], "images: expected float32 .*got float64"),
        (images_of(1, 3, 64, 64, dtype=np.uint8), [[64, 64]], "images: expected float32 .*got uint8"),
        (images_of(3, 64, 64), [[64, 64]], "images: expected float32 of 4 dimensions"),
        (images_of(0, 3, 64, 64), [[64, 64]], "not empty"),
        ([[1.0]], [[64, 64]], r"images: expected .*, got list \[1, 1\]"),
        (images_of(2, 3, 64, 64), [[64, 64]] * 2, r"images: expected \[1, 3, 64, 64\], got \[2, 3, 64, 64\]"),
        (images_of(1, 4, 64, 64), [[64, 64]], r"images: expected \[1, 3, 64, 64\], got \[1, 4, 64, 64\]"),
        (images_of(1, 3, 60, 65), [[60, 65]], r"images: expected \[1, 3, 64, 96\], got \[1, 3, 60, 65\]"),
        (images_of(1, 3, 64, 64), [[64, 64]] * 2, r"image_sizes: expected \[1, 2\], got \[2, 2\]"),
        (images_of(1, 3, 64, 64), [[65, 64]], "image_sizes: expected heights and widths within the canvas"),
        (images_of(1, 3, 64, 64), [[64, 0]], "image_sizes: expected heights and widths within the canvas"),
        (images_of(1, 3, 64, 64), [[64.0, 64.0]], "image_sizes: expected int64 .*got float64"),
    ],
)
def test_run_refuses_what_does_not_fit_the_graph(detector: Detector, images: Any, sizes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        detector.run(images, np.array(sizes))


def test_run_of_a_fixed_canvas(tmp_path: Path) -> None:
    write_model(toy_proto(), SPEC.replace(canvas=(64, 96)), tmp_path / "m.onnx")
    with edgemask.load(tmp_path / "m.onnx", device="cpu") as detector:
        sizes = np.array([[64, 64]], np.int64)
        assert len(detector.run(images_of(1, 3, 64, 96), sizes)["boxes"]) == 2
        with pytest.raises(UsageError, match=r"images: expected \[1, 3, 64, 96\], got \[1, 3, 64, 64\]"):
            detector.run(images_of(1, 3, 64, 64), sizes)


def test_a_closed_detector_says_so(path: Path) -> None:
    with edgemask.load(path, device="cpu") as detector:
        assert isinstance(detector, Detector)
    with pytest.raises(UsageError, match="this detector was closed"):
        detector.predict(SQUARE)
    detector.close()
    assert (detector.device, detector.spec) == ("cpu", SPEC)


def test_an_error_within_the_block_closes_too(path: Path) -> None:
    with pytest.raises(KeyError), edgemask.load(path, device="cpu") as detector:
        raise KeyError
    with pytest.raises(UsageError, match="closed"):
        detector.predict(SQUARE)


def test_a_spawned_pool_works(tmp_path: Path) -> None:
    write_model(busy_proto(), SPEC, tmp_path / "m.onnx")
    images = [draw_scene(index, size=64).image for index in range(6)]
    with edgemask.load(tmp_path / "m.onnx", device="cpu") as detector:
        expected = [detector.predict(image).scores.tolist() for image in images]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, initializer=open_model, initargs=(tmp_path / "m.onnx",)) as pool:
            assert list(pool.map(scores_of, images, timeout=60)) == expected


def predict_in_child(detector: Detector, answers: Connection) -> None:
    try:
        detector.predict(SQUARE)
        answers.send(None)
    except Exception as error:
        answers.send(error)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_and_does_not_hang(detector: Detector) -> None:
    detector.predict(SQUARE)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=predict_in_child, args=(detector, theirs), daemon=True)
    child.start()
    try:
        assert ours.poll(10), "the child hangs"
        error = ours.recv()
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
    assert isinstance(error, ForkedProcessError)
    assert error.exit_code == 2
    assert f"belongs to process {os.getpid()}, not to its forked child {child.pid}" in error.problem
    assert "spawn" in str(error.remedy)
    assert len(detector.predict(SQUARE)) == 2, "the parent's is as good as before"
