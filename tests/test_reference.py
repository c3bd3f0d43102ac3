"""The PyTorch reference: torchvision's own results, on the canvas of the file, whatever image came first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from families import FAMILIES  # noqa: E402
from narrow import narrow  # noqa: E402

from edgemask.canvas import eager_size, place_on_canvas  # noqa: E402
from edgemask.description import spec_of  # noqa: E402
from edgemask.detections import Detections  # noqa: E402
from edgemask.errors import ImageError, UsageError  # noqa: E402
from edgemask.models import build  # noqa: E402
from edgemask.parity import TOLERANCES, compare  # noqa: E402
from edgemask.reference import ReferenceDetector, pooling_scales  # noqa: E402
from edgemask.scenes import draw_scene  # noqa: E402

NARROW = (12, 256)  # of which torchvision infers the wrong pooling scales
# Of images padded by more than a factor of 1.4, such as 61 x 150, torchvision infers the wrong ones too.
SIZES = ((96, 96), (100, 131), (90, 150), (320, 200))


def small_model(**settings: Any) -> Any:
    torch.manual_seed(3)
    sizes = {"widths": (8, 16, 16, 16), "pyramid_channels": 16, "head_width": 16, "min_size": 96, "max_size": 160}
    return build("maskrcnn_compact_fpn", 3, **(sizes | settings))


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


def image(size: tuple[int, int]) -> NDArray[np.uint8]:
    return draw_scene(size[1], seed=9).image[: size[0], : size[1]]


def by_torchvision(model: Any, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Calls the model as torchvision means it."""
    with torch.inference_mode():
        (found,) = model([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255])
    return {name: value.numpy() for name, value in found.items()}


def assert_equal(found: Detections, other: Detections) -> None:
    for name in ("boxes", "scores", "labels", "masks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_equals_calling_the_model(size: tuple[int, int]) -> None:
    model, pixels = small_model(), image(size)
    found = ReferenceDetector(model, spec_of(model)).predict(pixels)
    expected = by_torchvision(small_model(), pixels)
    assert len(found) > 20
    np.testing.assert_array_equal(found.boxes, expected["boxes"])
    np.testing.assert_array_equal(found.scores, expected["scores"])
    np.testing.assert_array_equal(found.labels, expected["labels"])
    pasted = expected["masks"][:, 0]
    differs = (found.bitmaps() != (pasted > 0.5)) & (np.abs(pasted - 0.5) >= 2e-6)
    assert not differs.any()
    assert found.image_size == size


def test_no_image_spoils_the_next(model: Any) -> None:
    spec = spec_of(model)
    used = ReferenceDetector(model, spec)
    first = used.predict(image(NARROW))
    for size in SIZES:
        assert_equal(used.predict(image(size)), ReferenceDetector(model, spec).predict(image(size)))
    assert_equal(used.predict(image(NARROW)), first)
    # What is guarded against: torchvision's own model keeps the scales of the narrow image.
    warm = small_model()
    by_torchvision(warm, image(NARROW))
    fresh = by_torchvision(small_model(), image(SIZES[0]))
    assert not np.array_equal(by_torchvision(warm, image(SIZES[0]))["scores"], fresh["scores"])


def test_pooling_scales_come_from_the_canvas(model: Any) -> None:
    detector = ReferenceDetector(model, spec_of(model))
    detector.predict(image(NARROW))
    for pooler in (detector.model.roi_heads.box_roi_pool, detector.model.roi_heads.mask_roi_pool):
        assert pooler.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
        assert (pooler.map_levels.k_min, pooler.map_levels.k_max) == (2, 5)
    maps = {str(level): torch.zeros(1, 1, 96 >> level, 160 >> level) for level in range(2, 7)}
    pooler.featmap_names = ["2", "3"]
    assert pooling_scales(pooler, maps, (96, 160)) == [1 / 4, 1 / 8]


@pytest.mark.parametrize("size", [*SIZES, NARROW])
def test_a_static_canvas_is_padded_with_zeros(model: Any, size: tuple[int, int]) -> None:
    spec = spec_of(model).replace(canvas=(192, 224))
    images = ReferenceDetector(model, spec).resize(image(size))
    height, width = eager_size(*size, spec)
    assert images.image_sizes == [(height, width)]
    assert tuple(images.tensors.shape) == (1, 3, 192, 224)
    assert not images.tensors[..., height:, :].any()
    assert not images.tensors[..., :, width:].any()
    placed, _ = place_on_canvas(image(size), spec)
    inside = images.tensors[0, :, :height, :width].numpy()
    mean, deviation = (np.array(values)[:, None, None] for values in (spec.image_mean, spec.image_std))
    np.testing.assert_allclose((inside * deviation + mean) * 255, placed[:, :height, :width], atol=1e-3)


def test_the_canvas_matters_and_is_the_specs(model: Any) -> None:
    """Padding moves the results a little; so the reference must run on the canvas of the file."""
    pixels, spec = image((96, 96)), spec_of(model)
    dynamic, tight = (
        ReferenceDetector(model, spec.replace(canvas=canvas)).predict(pixels) for canvas in (None, (96, 96))
    )
    wide = ReferenceDetector(model, spec.replace(canvas=(160, 160))).predict(pixels)
    assert_equal(dynamic, tight)
    assert not np.array_equal(dynamic.scores, wide.scores)


def test_thresholds_and_sizes_are_the_specs(model: Any) -> None:
    pixels, spec = image((100, 131)), spec_of(model)
    assert len(ReferenceDetector(model, spec.replace(max_detections=7)).predict(pixels)) == 7
    everything = ReferenceDetector(model, spec).predict(pixels)
    middle = float(everything.scores[len(everything) // 2])
    above = ReferenceDetector(model, spec.replace(score_threshold=middle)).predict(pixels)
    assert 0 < len(above) < len(everything)
    assert (above.scores > middle).all()
    few = ReferenceDetector(model, spec.replace(max_proposals=3)).predict(pixels)
    assert 0 < len(few) <= 6  # each of three proposals may be of either class
    fixed = ReferenceDetector(model, spec.replace(fixed_size=(64, 128)))
    assert fixed.resize(pixels).image_sizes == [(64, 128)]
    assert ReferenceDetector(model, spec.replace(min_size=64, max_size=80)).resize(pixels).image_sizes == [(61, 80)]


def test_the_model_is_left_as_it_was() -> None:
    model = small_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spec = spec_of(model).replace(max_detections=5, min_size=64, canvas=(192, 192))
    ReferenceDetector(model, spec).predict(image((96, 96)))
    assert model.training
    assert model.roi_heads.box_roi_pool.scales is None
    assert model.roi_heads.detections_per_img == 100
    assert model.transform.min_size == (96,)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_masks() -> None:
    model = small_model()
    model.roi_heads.mask_roi_pool = model.roi_heads.mask_head = model.roi_heads.mask_predictor = None
    spec = spec_of(model)
    assert spec.tasks == ("boxes",)
    found = ReferenceDetector(model, spec).predict(image((96, 96)))
    assert len(found) > 20
    assert found.masks is None


def test_its_own_proposals_given_back(model: Any) -> None:
    """On an image that is not resized nothing is rounded on the way."""
    detector, pixels = ReferenceDetector(model, spec_of(model)), image((96, 96))
    own = detector.propose(pixels)
    expected = detector.predict(pixels)
    assert len(expected) > 20
    assert_equal(detector.predict(pixels, proposals=own), expected)
    fewer = detector.predict(pixels, proposals=own[:1])
    assert 0 < len(fewer) <= 2
    assert_equal(detector.predict(pixels), expected)


@pytest.mark.parametrize("size", [(64, 64), (100, 131), (240, 180)])
def test_its_own_proposals_of_a_resized_image(size: tuple[int, int]) -> None:
    model, pixels = narrow(), image(size)
    detector = ReferenceDetector(model, spec_of(model).replace(canvas=(192, 192)))
    expected = detector.predict(pixels)
    found = detector.predict(pixels, proposals=detector.propose(pixels))
    report = compare([("image", expected, found)], TOLERANCES["fp32"])
    report.raise_for_failure()
    assert report.matched >= 5


# The width of the last, 104 pixels, comes back from the canvas as 104.00001.
@pytest.mark.parametrize("size", [*SIZES, NARROW, (97, 104)])
def test_proposals_lie_inside_the_image(model: Any, size: tuple[int, int]) -> None:
    boxes = ReferenceDetector(model, spec_of(model)).propose(image(size))
    assert boxes.dtype == np.float32
    assert len(boxes) > 60
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= np.array([size[1], size[0]])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    surest = ReferenceDetector(model, spec_of(model).replace(max_proposals=5)).propose(image(size))
    np.testing.assert_array_equal(boxes[:5], surest)


def test_no_proposals_and_what_are_none(model: Any) -> None:
    detector, pixels = ReferenceDetector(model, spec_of(model)), image((96, 96))
    found = detector.predict(pixels, proposals=np.zeros((0, 4), np.float32))
    assert len(found) == 0
    assert found.masks is not None
    with pytest.raises(UsageError, match=r"boxes: expected float32 \[N, 4\], got float64 \[1, 4\]"):
        detector.predict(pixels, proposals=np.ones((1, 4)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(128, 128), (100, 150), (200, 160)])
def test_keypoints_are_torchvisions(size: tuple[int, int]) -> None:
    model: Any = FAMILIES["keypoint_resnet"].build()
    spec = spec_of(model)
    assert (spec.tasks, spec.num_keypoints) == (("boxes", "keypoints"), 5)
    found = ReferenceDetector(model, spec).predict(image(size))
    expected = by_torchvision(model, image(size))
    assert len(found) == 30
    assert found.keypoints is not None
    for name, key in {"boxes": "boxes", "keypoints": "keypoints", "keypoint_scores": "keypoints_scores"}.items():
        np.testing.assert_array_equal(getattr(found, name), expected[key], err_msg=name)
    low, high = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    inside = (found.keypoints[..., :2] >= low) & (found.keypoints[..., :2] <= high)
    assert inside.all(), "in pixels of the image, as the boxes are"


def test_no_detection(model: Any) -> None:
    found = ReferenceDetector(model, spec_of(model).replace(score_threshold=1.0)).predict(image((96, 96)))
    assert len(found) == 0
    assert found.masks is not None
    assert found.bitmaps().shape == (0, 96, 96)


def test_sources(model: Any, tmp_path: Path) -> None:
    detector, pixels = ReferenceDetector(model, spec_of(model)), image((96, 96))
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    for source in (path, str(path), Image.fromarray(pixels)):
        assert_equal(detector.predict(source), detector.predict(pixels))
    with pytest.raises(ImageError, match=r"absent\.png"):
        detector.predict(tmp_path / "absent.png")
