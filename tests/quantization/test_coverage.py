"""What is on the images of a calibration, and what they are refused for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import noise, smooth, written
from PIL import Image

from edgemask.detections import Detections
from edgemask.errors import CalibrationError
from edgemask.images import IMAGE_SUFFIXES, load_image
from edgemask.quantization.coverage import LEAST_CORRELATION, Coverage, image_warnings, look_at, neighbour_correlation
from edgemask.runs import file_digest
from edgemask.scenes import draw_scene
from edgemask.semantic import SemanticMap
from edgemask.spec import ModelSpec

SPEC = ModelSpec(class_names=("dot", "line"), min_size=64, max_size=128)


def detections(*objects: tuple[float, int, float, float]) -> Detections:
    """Of (score, label, width, height)."""
    return Detections(
        boxes=np.array([[5, 5, 5 + width, 5 + height] for _, _, width, height in objects], np.float32).reshape(-1, 4),
        scores=np.array([score for score, *_ in objects], np.float32),
        labels=np.array([label for _, label, *_ in objects], np.int64),
        image_size=(500, 500),
    )


def test_counts_sure_objects_by_class_and_size() -> None:
    coverage = Coverage(SPEC)
    coverage.add(detections((0.9, 1, 31, 33), (0.8, 1, 32, 32), (0.5, 2, 96, 95), (0.49, 2, 10, 10)))
    coverage.add(detections())
    coverage.add(detections((0.7, 1, 96, 96)))
    assert coverage.objects == 4
    assert coverage.by_class == {"dot": 3, "line": 1}
    assert coverage.by_size == {"small": 1, "medium": 2, "large": 1}
    assert list(coverage.warnings()) == []


def test_names_what_was_never_seen() -> None:
    coverage = Coverage(SPEC)
    coverage.add(detections((0.9, 2, 50, 50), (0.3, 1, 5, 5)))
    assert list(coverage.warnings()) == [
        "no object of 1 class was found on the images: dot",
        "no small and no large object was found on the images",
    ]
    many = Coverage(SPEC.replace(class_names=[f"c{number}" for number in range(1, 13)], category_ids=()))
    many.add(detections((0.9, 2, 10, 10), (0.9, 2, 40, 40), (0.9, 2, 100, 100)))
    shown = "c1, c3, c4, c5, c6, c7, c8, c9 and 3 more"
    assert list(many.warnings()) == [f"no object of 11 classes was found on the images: {shown}"]


def test_counts_pixels_of_a_semantic_model() -> None:
    coverage = Coverage(SPEC.replace(tasks=("semantic",)))
    labels = np.zeros((4, 5), np.uint8)
    labels[1, :3] = 2
    for _ in range(12):
        coverage.add(SemanticMap(labels, np.ones((4, 5), np.float32)))
    coverage.check()
    assert (coverage.objects, coverage.by_class, coverage.by_size) == (0, {"dot": 0, "line": 36}, {})
    assert list(coverage.warnings()) == ["no pixel of 1 class was found on the images: dot"]


@pytest.mark.parametrize(("blind", "seeing", "refused"), [(10, 0, True), (9, 0, False), (19, 1, True), (18, 2, False)])
def test_refuses_images_on_which_nothing_is_found(blind: int, seeing: int, refused: bool) -> None:
    coverage = Coverage(SPEC)
    for count, found in ((blind, detections()), (seeing, detections((0.06, 1, 9, 9)))):
        for _ in range(count):
            coverage.add(found)
    if refused:
        with pytest.raises(CalibrationError, match=f"the model finds nothing on {blind} of {blind + seeing} images"):
            coverage.check()
    else:
        coverage.check()


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    paths = written(tmp_path, [smooth(0), smooth(1)])
    assert look_at(paths) == tuple(map(file_digest, paths))


def test_pictures_are_told_from_noise(tmp_path: Path) -> None:
    for index in range(4):
        assert neighbour_correlation(draw_scene(index, size=128).image) > LEAST_CORRELATION + 0.2
        assert neighbour_correlation(noise(index)) < 0.1
    normal = np.random.default_rng(0).normal(128, 40, (160, 160, 3)).clip(0, 255).astype(np.uint8)
    for quality in (95, 75, 50, 20):
        Image.fromarray(normal).save(tmp_path / "noise.jpg", quality=quality)
        assert neighbour_correlation(np.array(Image.open(tmp_path / "noise.jpg"))) < LEAST_CORRELATION - 0.05
    # Lines across the whole picture go together along themselves alone.
    lines = np.repeat(noise(0, (1, 64)), 64, 0)
    assert neighbour_correlation(lines) == neighbour_correlation(lines.transpose(1, 0, 2)) == pytest.approx(1)
    assert neighbour_correlation(np.full((9, 9, 3), 200, np.uint8)) == 0
    assert neighbour_correlation(np.zeros((1, 1, 3), np.uint8)) == 0


@pytest.mark.data
@pytest.mark.parametrize("folder", ["coco/val", "nuclei/val"])
def test_photographs_and_microscope_images_are_no_noise(shared_data: Path, folder: str) -> None:
    paths = sorted(path for path in (shared_data / folder).iterdir() if path.suffix in IMAGE_SUFFIXES)[:20]
    assert len(paths) == 20
    assert min(neighbour_correlation(load_image(path)) for path in paths) > LEAST_CORRELATION + 0.2


def plain(seed: int) -> NDArray[np.uint8]:
    return np.full((30, 30, 3), seed, np.uint8)


@pytest.mark.parametrize("make", [noise, plain])
def test_refuses_noise_and_single_colours(tmp_path: Path, make: Callable[[int], NDArray[np.uint8]]) -> None:
    pictures = [smooth(seed) for seed in range(18)] + [make(seed) for seed in range(3)]
    paths = written(tmp_path, pictures)
    assert len(look_at(paths[:-1])) == 20
    with pytest.raises(CalibrationError, match=r"3 of 21 images are noise, or of one colour: 018\.png, 019\.png, 020"):
        look_at(paths)


def test_refuses_no_images_and_broken_ones(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="there are no images"):
        look_at([])
    paths = written(tmp_path, [smooth(seed) for seed in range(8)])
    paths[1].write_bytes(b"text")
    with pytest.raises(CalibrationError, match=r"^1 of 8 images cannot be used: .*001\.png: no sound JPEG") as caught:
        look_at(paths)
    assert caught.value.remedy == "mend or remove them"
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(CalibrationError, match=r"^7 of 8 images cannot be used: .*005\.png.*; and 2 more"):
        look_at(paths)


def test_warns_of_few_images_and_of_one_many_times() -> None:
    digests = [f"{number:064x}" for number in range(100)]
    assert list(image_warnings(digests)) == []
    assert list(image_warnings(digests[:99])) == ["99 images are few to take ranges from: give 100 or more"]
    assert list(image_warnings(digests[:1])) == ["1 image is few to take ranges from: give 100 or more"]
    assert list(image_warnings(digests[:1] * 100)) == ["all 100 images are the same"]
