"""Choosing images, and naming those that cannot be used before any work."""

from pathlib import Path

import pytest
from coloured import SPEC, write_folder
from PIL import Image

from edgemask.errors import DatasetError, UsageError
from edgemask.evaluation import read_truth
from edgemask.validation.images import check_categories, check_images, choose_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def test_choosing(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    images = folder / "images"
    everything = [f"{index}.png" for index in range(5)]
    assert [image.name for image in choose_images(images)] == everything
    assert [image.identity for image in choose_images(images, document)] == [40, 41, 42, 43, 44]
    assert [image.name for image in choose_images(images, document, limit=2)] == everything[:2]
    paths = [images / "3.png", str(images / "1.png")]
    assert [image.path.name for image in choose_images(paths)] == ["3.png", "1.png"]
    assert [image.identity for image in choose_images(paths, document)] == [43, 41]
    assert [image.identity for image in choose_images(images / "2.png", document)] == [42]


def test_paths_are_named_by_their_files_where_that_is_enough(folder: Path) -> None:
    images = [folder / "images" / "1.png", folder / "images" / "2.png", folder / "other" / "1.png"]
    assert [image.name for image in choose_images(images[:2])] == ["1.png", "2.png"]
    assert [image.name for image in choose_images(images)] == [str(images[0]), "2.png", str(images[2])]


def test_drawing_some(folder: Path) -> None:
    drawn = [choose_images(folder / "images", limit=3, seed=seed) for seed in range(20)]
    assert drawn[4] == choose_images(folder / "images", limit=3, seed=4)
    assert {len({image.name for image in some}) for some in drawn} == {3}
    assert all([image.name for image in some] == sorted(image.name for image in some) for some in drawn)
    assert {image.name for some in drawn for image in some} == {f"{index}.png" for index in range(5)}
    assert len(choose_images(folder / "images", limit=9, seed=1)) == 5
    with pytest.raises(UsageError, match="draws some of the images"):
        choose_images(folder / "images", seed=1)


def test_what_cannot_be_chosen(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    (folder / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "stranger.png")
    with pytest.raises(DatasetError, match=r"no image in .*empty"):
        choose_images(folder / "empty")
    with pytest.raises(DatasetError, match=r"no folder .*absent"):
        choose_images(folder / "absent")
    with pytest.raises(DatasetError, match=r"stranger\.png is not in the annotations"):
        choose_images([folder / "stranger.png"], document)
    with pytest.raises(UsageError, match="expected 1 or more"):
        choose_images(folder / "images", limit=0)
    del document["images"][1]["file_name"]
    with pytest.raises(DatasetError, match="image 41 of the annotations has no file_name"):
        choose_images(folder / "images", document)


def test_sound_images(folder: Path) -> None:
    checked = check_images(choose_images(folder / "images"), SPEC)
    assert [image.size for image in checked.usable[:3]] == [(64, 64), (64, 100), (80, 60)]
    assert [image.identity for image in checked.usable] == [1, 2, 3, 4, 5]
    assert len({image.digest for image in checked.usable}) == 5
    assert (checked.too_large, checked.unreadable) == ((), ())
    annotated = check_images(choose_images(folder / "images", read_truth(folder / "annotations.json")), SPEC)
    assert [image.identity for image in annotated.usable] == [40, 41, 42, 43, 44]


def test_bad_images_are_counted_and_named(folder: Path) -> None:
    images = folder / "images"
    (images / "1.png").write_bytes(b"no picture")
    whole = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(whole[: len(whole) // 2])
    chosen = choose_images(images)
    (images / "3.png").unlink()
    with pytest.raises(DatasetError, match=r"3 of 5 images cannot be used: 1\.png: .*; 2\.png: .*; 3\.png: ") as caught:
        check_images(chosen, SPEC)
    assert "--skip-bad-images" in str(caught.value.remedy)
    checked = check_images(chosen, SPEC, skip_bad=True)
    assert [image.name for image in checked.usable] == ["0.png", "4.png"]
    assert [name for name, _ in checked.unreadable] == ["1.png", "2.png", "3.png"]


def test_no_image_left_is_no_comparison(folder: Path) -> None:
    for path in (folder / "images").glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="5 of 5 images cannot be used"):
        check_images(choose_images(folder / "images"), SPEC, skip_bad=True)


def test_an_image_too_narrow_for_the_model_is_named(folder: Path) -> None:
    Image.new("RGB", (2000, 1)).save(folder / "images" / "2.png")
    with pytest.raises(DatasetError, match=r"2\.png: image of 1 x 2000 pixels"):
        check_images(choose_images(folder / "images"), SPEC)


def test_another_image_than_the_annotated_one_is_named(folder: Path) -> None:
    Image.new("RGB", (9, 7)).save(folder / "images" / "2.png")
    chosen = choose_images(folder / "images", read_truth(folder / "annotations.json"))
    with pytest.raises(DatasetError, match=r"2\.png: it has \(7, 9\) pixels .* the annotations say \(80, 60\)"):
        check_images(chosen, SPEC)


def test_images_too_large_for_the_canvas_are_named(folder: Path) -> None:
    checked = check_images(choose_images(folder / "images"), SPEC.replace(canvas=(128, 96)))
    assert checked.too_large == ("1.png",)
    assert [image.name for image in checked.usable] == ["0.png", "2.png", "3.png", "4.png"]


def test_categories_must_be_the_models(folder: Path) -> None:
    document = read_truth(folder / "annotations.json")
    check_categories(document, SPEC)
    check_categories(document | {"categories": document["categories"][:1]}, SPEC)
    check_categories(document, SPEC.replace(class_names=("class_1", "class_2", "class_3")))
    with pytest.raises(DatasetError, match=r"category 5 'dark', the model has 'blue'"):
        check_categories(document, SPEC.replace(class_names=("red", "blue", "pale")))
    with pytest.raises(DatasetError, match=r"category 90 'pale', the model has no such id; its ids are 3, 5, 6"):
        check_categories(document, SPEC.replace(category_ids=(3, 5, 6)))
