"""The canvas: sizes, pixels and the way back equal torchvision's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from edgemask.canvas import (
    Placement,
    boxes_to_canvas,
    boxes_to_original,
    eager_size,
    place_on_canvas,
    placement_of,
    resize_bilinear,
)
from edgemask.errors import ImageError, UsageError
from edgemask.spec import ModelSpec


def make_spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {"class_names": ("cell",), "min_size": 256, "max_size": 320}
    return ModelSpec(**(values | changes))


def picture(height: int = 23, width: int = 37, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_fixed_size_is_height_and_width() -> None:
    pytest.importorskip("torch")
    from eager_sizes import torchvision_size

    spec = make_spec(fixed_size=(96, 160))
    assert eager_size(1000, 10, spec) == (96, 160) == torchvision_size(1000, 10, spec)


def test_side_of_no_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match=r"1 x 2000 pixels .* would be resized to 0 x 1333"):
        eager_size(1, 2000, make_spec(min_size=800, max_size=1333))
    with pytest.raises(UsageError, match=r"got \(0, 5\)"):
        eager_size(0, 5, make_spec())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((480, 640), (800, 1066)),
        ((426, 640), (221, 333)),
        ((97, 31), (1000, 319)),
        ((3, 900), (1, 300)),
        ((1, 1), (7, 5)),
        ((300, 200), (300, 131)),
        ((50, 60), (50, 60)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_is_torchs(old: tuple[int, int], new: tuple[int, int], dtype: DTypeLike) -> None:
    torch = pytest.importorskip("torch")
    image: NDArray[Any] = picture(*old).astype(dtype)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, size=new, mode="bilinear", align_corners=False)
    resized = resize_bilinear(image, new)
    assert resized.dtype == np.float32
    assert resized.flags.c_contiguous
    # Measured: 5e-5. A position rounded in float32 after the product gives 7e-3.
    np.testing.assert_allclose(resized, expected[0].permute(1, 2, 0).numpy(), rtol=0, atol=1e-4)


def test_resize_by_hand() -> None:
    image = np.repeat(np.array([[0, 100]], np.uint8)[:, :, None], 3, axis=2)
    assert resize_bilinear(image, (1, 4))[0, :, 0].tolist() == [0, 25, 75, 100]
    with pytest.raises(UsageError, match="not empty"):
        resize_bilinear(image[:0], (1, 1))
    with pytest.raises(UsageError, match=r"got \(0, 1\)"):
        resize_bilinear(image, (0, 1))


@pytest.mark.parametrize("size", [(240, 320), (100, 101), (500, 90)])
def test_dynamic_canvas_is_torchvisions(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    spec, image = make_spec(), picture(*size)
    transform = GeneralizedRCNNTransform(spec.min_size, spec.max_size, [0, 0, 0], [1, 1, 1]).eval()
    expected, _ = transform([torch.from_numpy(image).permute(2, 0, 1) / 255])
    planes, placement = place_on_canvas(image, spec)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    assert placement == Placement(size, expected.image_sizes[0], expected.tensors.shape[-2:], False)
    np.testing.assert_allclose(planes / 255, expected.tensors[0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("original", "canvas", "size", "beyond"),
    [
        ((256, 320), (256, 320), (256, 320), False),
        ((200, 200), (256, 320), (256, 256), False),
        ((200, 200), (320, 192), (192, 192), True),
        ((400, 300), (256, 320), (256, 192), True),  # eager: 320 x 240
        ((300, 400), (256, 64), (48, 64), True),
        ((20, 320), (32, 32), (2, 32), True),
        ((2, 320), (32, 32), (1, 32), True),  # 0.2 pixels high, and yet one
    ],
)
def test_static_canvas(original: tuple[int, int], canvas: tuple[int, int], size: tuple[int, int], beyond: bool) -> None:
    image = np.full((*original, 3), 200, np.uint8)
    planes, placement = place_on_canvas(image, make_spec(canvas=canvas))
    assert placement == Placement(original, size, canvas, beyond)
    expected = np.zeros((3, *canvas), np.float32)
    expected[:, : size[0], : size[1]] = 200
    np.testing.assert_array_equal(planes, expected)


def test_canvas_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="needs 100000 x 100000") as caught:
        place_on_canvas(picture(2, 2), make_spec(min_size=100_000, max_size=100_000))
    assert caught.value.remedy
    with pytest.raises(UsageError, match="float32"):
        place_on_canvas(np.zeros((5, 5, 3), np.float32), make_spec())


def test_boxes_go_back_with_torchvisions_arithmetic() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.transform import resize_boxes

    boxes = np.random.default_rng(0).uniform(0, 800, (500, 4)).astype(np.float32)
    placement = Placement((427, 640), (800, 1199), (800, 1216), False)
    expected = resize_boxes(torch.from_numpy(boxes), placement.size, placement.original_size)
    original = boxes_to_original(boxes, placement)
    assert original.dtype == np.float32
    np.testing.assert_array_equal(original, expected.numpy())
    assert boxes_to_original(boxes[:0], placement).shape == (0, 4)
    with pytest.raises(UsageError, match=r"float32 \[N, 4\], got float64"):
        boxes_to_original(boxes.astype(np.float64), placement)


def test_boxes_to_the_canvas_by_hand() -> None:
    placement = Placement((100, 200), (50, 400), (64, 416), False)
    boxes = np.array([[0, 0, 200, 100], [10, 20, 30, 50]], np.float32)
    assert boxes_to_canvas(boxes, placement).tolist() == [[0, 0, 400, 50], [20, 10, 60, 25]]


@pytest.mark.parametrize("size", [(427, 640), (97, 31), (1000, 1000), (13, 200)])
@pytest.mark.parametrize("canvas", [None, (256, 320)])
def test_boxes_go_to_the_canvas_and_back(size: tuple[int, int], canvas: tuple[int, int] | None) -> None:
    placement = placement_of(size, make_spec(canvas=canvas))
    limits = np.array([size[1], size[0]] * 2, np.float32)
    boxes = (np.random.default_rng(1).uniform(size=(500, 4)) * limits).astype(np.float32)
    placed = boxes_to_canvas(boxes, placement)
    assert placed.dtype == np.float32
    assert (placed <= np.array([placement.size[1], placement.size[0]] * 2) * (1 + 2e-7)).all()
    # Two products, each rounded to float32.
    np.testing.assert_allclose(boxes_to_original(placed, placement), boxes, rtol=3e-7)
    assert placement.size == size or not np.allclose(placed, boxes)


def test_what_are_no_boxes_for_the_canvas() -> None:
    placement = Placement((10, 20), (10, 20), (32, 32), False)
    assert boxes_to_canvas(np.zeros((0, 4), np.float32), placement).shape == (0, 4)
    for boxes, got in (
        (np.zeros((2, 4)), r"float64 \[2, 4\]"),
        (np.zeros((2, 4), np.int64), r"int64 \[2, 4\]"),
        (np.zeros(4, np.float32), r"float32 \[4\]"),
        (np.zeros((2, 5), np.float32), r"float32 \[2, 5\]"),
    ):
        with pytest.raises(UsageError, match=rf"boxes: expected float32 \[N, 4\], got {got}"):
            boxes_to_canvas(boxes, placement)
