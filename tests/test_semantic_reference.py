"""The PyTorch reference of semantic models gives torchvision's own results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from narrow_semantic import narrow_deeplab, narrow_fcn, narrow_spec  # noqa: E402
from torchvision.models.segmentation import FCN  # noqa: E402

from edgemask.canvas import eager_size, place_on_canvas  # noqa: E402
from edgemask.errors import ImageError  # noqa: E402
from edgemask.scenes import draw_scene  # noqa: E402
from edgemask.semantic import SemanticMap  # noqa: E402
from edgemask.semantic_reference import SemanticReference  # noqa: E402

SIZES = ((96, 96), (100, 131), (90, 150), (320, 200))
PIXELS = draw_scene(2, seed=1, size=128).image[:96]


def image(size: tuple[int, int]) -> NDArray[np.uint8]:
    return draw_scene(size[1], seed=9).image[: size[0], : size[1]]


@pytest.fixture(scope="module")
def model() -> FCN:
    return narrow_fcn()


@pytest.fixture(scope="module")
def reference(model: FCN) -> SemanticReference:
    return SemanticReference(model, narrow_spec())


def assert_equal(found: SemanticMap, other: SemanticMap) -> None:
    np.testing.assert_array_equal(found.labels, other.labels)
    np.testing.assert_array_equal(found.scores, other.scores)


@pytest.mark.parametrize("build", [narrow_fcn, narrow_deeplab])
@pytest.mark.parametrize("size", [(96, 96), (96, 160), (128, 96)])
def test_equals_calling_the_model(build: Callable[[], Any], size: tuple[int, int]) -> None:
    """On an image that needs neither resize nor padding."""
    model, pixels = build(), image(size)
    spec = narrow_spec(image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.25))
    found = SemanticReference(model, spec).segment(pixels)
    mean, deviation = (torch.tensor(value).view(1, 3, 1, 1) for value in (spec.image_mean, spec.image_std))
    with torch.inference_mode():
        canvas = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 - mean) / deviation
        logits = model(canvas)["out"]
    scores, labels = logits.softmax(1)[0].max(0)
    assert len(found.present) > 3
    np.testing.assert_array_equal(found.labels, labels.numpy())
    np.testing.assert_array_equal(found.scores, scores.numpy())


@pytest.mark.parametrize("size", SIZES)
def test_the_result_lies_on_the_original(model: FCN, reference: SemanticReference, size: tuple[int, int]) -> None:
    pixels = image(size)
    found = reference.segment(pixels)
    assert found.image_size == size
    images = reference.resize(pixels)
    with torch.inference_mode():
        logits = model(images.tensors)["out"][:, :, : images.image_sizes[0][0], : images.image_sizes[0][1]]
    expected = torch.nn.functional.interpolate(logits.argmax(1)[None].float(), size=size, mode="nearest-exact")[0, 0]
    assert (found.labels == expected.numpy()).mean() > 0.99
    assert not (found.labels[:, ::-1] == expected.numpy()).mean() > 0.9, "the check can see where things lie"


@pytest.mark.parametrize("size", SIZES)
def test_a_static_canvas_is_padded_with_zeros(model: FCN, size: tuple[int, int]) -> None:
    spec = narrow_spec(canvas=(192, 224))
    images = SemanticReference(model, spec).resize(image(size))
    height, width = eager_size(*size, spec)
    assert images.image_sizes == [(height, width)]
    assert tuple(images.tensors.shape) == (1, 3, 192, 224)
    assert not images.tensors[..., height:, :].any()
    assert not images.tensors[..., :, width:].any()
    placed, _ = place_on_canvas(image(size), spec)
    inside = images.tensors[0, :, :height, :width].numpy()
    mean, deviation = (np.array(values)[:, None, None] for values in (spec.image_mean, spec.image_std))
    np.testing.assert_allclose((inside * deviation + mean) * 255, placed[:, :height, :width], atol=1e-3)


def test_the_canvas_matters_and_is_the_specs() -> None:
    """Part of DeepLab's head pools over the whole canvas; so the reference must run on the canvas of the file."""
    model, pixels = narrow_deeplab(), image((96, 96))
    dynamic, tight, wide = (
        SemanticReference(model, narrow_spec(canvas=canvas)).segment(pixels) for canvas in (None, (96, 96), (160, 160))
    )
    assert_equal(dynamic, tight)
    assert not np.array_equal(dynamic.scores, wide.scores)


def test_what_does_not_fit_the_canvas_gets_a_larger_one(model: FCN, reference: SemanticReference) -> None:
    small = SemanticReference(model, narrow_spec(canvas=(96, 96)))
    assert_equal(small.segment(image((90, 150))), reference.segment(image((90, 150))))


def test_fixed_size_is_height_and_width(model: FCN) -> None:
    fixed = SemanticReference(model, narrow_spec(fixed_size=(64, 128)))
    assert fixed.resize(PIXELS).image_sizes == [(64, 128)]
    assert fixed.segment(PIXELS).image_size == PIXELS.shape[:2]


def test_the_model_is_left_as_it_was() -> None:
    model = narrow_fcn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    SemanticReference(model, narrow_spec()).segment(PIXELS)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sources(reference: SemanticReference, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    for source in (path, str(path), Image.fromarray(PIXELS)):
        assert_equal(reference.segment(source), reference.segment(PIXELS))
    with pytest.raises(ImageError, match=r"absent\.png"):
        reference.segment(tmp_path / "absent.png")
