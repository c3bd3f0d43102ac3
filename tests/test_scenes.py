"""Scenes: what the sample model learns from must be what it says it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask import scenes as module
from edgemask.datasets import CocoDataset, read_annotations
from edgemask.errors import OutputError, UsageError
from edgemask.masks import rle_to_bitmap
from edgemask.scenes import CLASS_NAMES, MIN_VISIBLE, Scene, draw_scene, mask_extent, scenes, write_scenes

COUNT = 100


@pytest.fixture(scope="module")
def drawn() -> Iterator[list[tuple[Scene, list[NDArray[np.bool_]]]]]:
    """Scenes of the full size, each with its objects as they were drawn, before others covered them."""
    shapes: list[NDArray[np.bool_]] = []
    place = module._place

    def recording(*arguments: Any, **options: Any) -> Any:
        placed = place(*arguments, **options)
        if placed is not None:
            shapes.append(placed[0] >= 0.5)
        return placed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_place", recording)
        found = []
        for index in range(COUNT):
            shapes.clear()
            found.append((draw_scene(index, seed=3), list(shapes)))
        yield found


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    in_order = list(scenes(4, seed=7, size=96))
    for index in (3, 0, 2):
        again = draw_scene(index, seed=7, size=96)
        np.testing.assert_array_equal(again.image, in_order[index].image)
        np.testing.assert_array_equal(again.masks, in_order[index].masks)
        np.testing.assert_array_equal(again.labels, in_order[index].labels)
    assert not np.array_equal(draw_scene(0, seed=8, size=96).image, in_order[0].image)
    assert not np.array_equal(in_order[0].image, in_order[1].image)


def test_what_a_scene_holds(drawn: list[tuple[Scene, list[NDArray[np.bool_]]]]) -> None:
    for scene, _ in drawn:
        assert scene.image.shape == (320, 320, 3)
        assert scene.image.dtype == np.uint8
        assert scene.masks.shape == (len(scene.labels), 320, 320)
        assert scene.masks.dtype == np.bool_
        assert scene.labels.dtype == np.int64
        assert 1 <= len(scene.labels) <= module.MAX_OBJECTS
        assert scene.masks.sum(0).max() == 1, "masks share a pixel"
    labels = np.concatenate([scene.labels for scene, _ in drawn])
    assert set(labels) == set(range(1, len(CLASS_NAMES) + 1))
    assert np.bincount(labels)[1:].min() > len(labels) / 10, "each class comes often enough to be learnt"
    assert {len(scene.labels) for scene, _ in drawn} == set(range(1, module.MAX_OBJECTS + 1))


def test_objects_are_of_the_sizes_promised(drawn: list[tuple[Scene, list[NDArray[np.bool_]]]]) -> None:
    longest = [max(mask_extent(shape)[2:]) for _, shapes in drawn for shape in shapes]
    # A side of 12.0 that begins inside a pixel may cover half of no more than 11.
    assert min(longest) >= 11
    assert max(longest) <= 200
    assert np.quantile(longest, 0.1) < 40
    assert np.quantile(longest, 0.9) > 100


def test_every_object_is_mostly_visible(drawn: list[tuple[Scene, list[NDArray[np.bool_]]]]) -> None:
    shares = [
        mask.sum() / shape.sum() for scene, shapes in drawn for mask, shape in zip(scene.masks, shapes, strict=True)
    ]
    assert min(shares) >= MIN_VISIBLE
    assert max(shares) == 1


def test_half_of_the_scenes_have_covered_objects(drawn: list[tuple[Scene, list[NDArray[np.bool_]]]]) -> None:
    covered = [
        any(mask.sum() < shape.sum() for mask, shape in zip(scene.masks, shapes, strict=True))
        for scene, shapes in drawn
    ]
    assert 0.4 < np.mean(covered) < 0.6


def test_objects_stand_out(drawn: list[tuple[Scene, list[NDArray[np.bool_]]]]) -> None:
    """Images and masks belong together: the mean colour inside differs from that around."""
    differences = []
    for scene, _ in drawn[:30]:
        for mask in scene.masks:
            x, y, width, height = mask_extent(mask)
            window = np.s_[max(y - 4, 0) : y + height + 4, max(x - 4, 0) : x + width + 4]
            around = scene.image[window][~scene.masks.any(0)[window]]
            if len(around) > 50:
                differences.append(np.abs(scene.image[mask].mean(0) - around.mean(0)).max())
    assert np.median(differences) > 40


def test_empty_scene() -> None:
    scene = draw_scene(0, objects=0, size=64)
    assert scene.masks.shape == (0, 64, 64)
    assert scene.labels.shape == (0,)
    assert scene.image.std() > 0


def test_number_of_objects_can_be_chosen() -> None:
    assert [len(draw_scene(index, objects=2, size=128).labels) for index in range(5)] == [2] * 5


@pytest.mark.parametrize("arguments", [{"size": 31}, {"index": -1}, {"seed": -1}, {"objects": -1}])
def test_numbers_that_cannot_be_meant(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=str(min(arguments.values()))):
        draw_scene(**{"index": 0, **arguments})


def test_written_scenes_read_back_as_drawn(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "new" / "data", 5, seed=2, size=96)
    found = read_annotations(path)
    assert found.class_names == CLASS_NAMES
    dataset = CocoDataset(path.parent / "images", found)
    assert len(dataset) == 5
    for index, scene in enumerate(scenes(5, seed=2, size=96)):
        image, target = dataset[index]
        np.testing.assert_array_equal(target["masks"].numpy(), scene.masks)
        np.testing.assert_array_equal(target["labels"].numpy(), scene.labels)
        entries = found.objects[index + 1]
        for entry, mask, box in zip(entries, scene.masks, target["boxes"].tolist(), strict=True):
            np.testing.assert_array_equal(rle_to_bitmap(entry["segmentation"]), mask)
            assert entry["area"] == mask.sum()
            x, y, width, height = entry["bbox"]
            assert box == [x, y, x + width, y + height]
        loss = np.abs(image.permute(1, 2, 0).numpy() * 255 - scene.image).mean()
        assert loss < 12, "JPEG loses a little, not a picture"


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_scenes(tmp_path / name, 2, seed=4, size=64)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file in the way")
    with pytest.raises(OutputError, match="data"):
        write_scenes(tmp_path / "data", 1, size=64)


def test_mask_extent() -> None:
    mask = np.zeros((10, 12), np.bool_)
    mask[3, 4] = mask[6, 9] = True
    assert mask_extent(mask) == [4, 3, 6, 4]
