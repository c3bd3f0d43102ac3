"""The PyTorch model as a contestant: what torchvision itself gives, for one image and for several."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import tiny_model

from edgemask.benchmark.pytorch import (
    COMPILED_PARTS,
    CompiledContestant,
    EagerContestant,
    HalfContestant,
    Reference,
    check_device,
)
from edgemask.description import spec_of, weights_digest
from edgemask.errors import DeviceUnavailable, UnsupportedModel
from edgemask.reference import ReferenceDetector, configured
from edgemask.scenes import draw_scene

PIXELS = draw_scene(1).image[:120, :150].copy()


@pytest.fixture(scope="module")
def reference() -> Reference:
    loaded = Reference("in memory", None, ("a", "b"))
    loaded.__dict__["model"] = tiny_model()  # as if it had been loaded
    return loaded


@pytest.fixture
def spec(reference: Reference) -> Any:
    return spec_of(reference.model).replace(max_detections=9)


def test_eager_gives_what_the_model_gives(reference: Reference, spec: Any) -> None:
    contestant = EagerContestant(reference, spec, "cpu")
    turn = contestant.turn(PIXELS, paste=True)
    (found,) = contestant._detect([PIXELS])
    assert (contestant.canvas, contestant.at_a_time, contestant.device) == ((96, 128), 1, "torch:cpu")
    assert contestant.sha256 == weights_digest(reference.model)
    model = configured(reference.model, spec)
    with torch.inference_mode():
        (expected,) = model([torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255])
    assert turn.detections == len(found) == 9
    np.testing.assert_array_equal(found.labels, expected["labels"])
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=1e-4)
    # torchvision pastes the masks that stay in their boxes here.
    assert ((expected["masks"][:, 0].numpy() > 0.5) != found.bitmaps()).mean() < 1e-3
    assert min(turn.preprocess, turn.inference, turn.postprocess, turn.paste or math.nan) > 0


def test_several_images_in_a_call(reference: Reference, spec: Any) -> None:
    contestant = EagerContestant(reference, spec, "cpu")
    (alone,) = contestant._detect([PIXELS])
    together = contestant._detect([PIXELS] * 3)
    assert contestant.at_a_time == 3
    for one in together:
        np.testing.assert_array_equal(one.labels, alone.labels)
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-4)


def test_an_unlucky_first_image_does_not_spoil_the_others(reference: Reference, spec: Any) -> None:
    """torchvision keeps the pooling scales of its first image; ours are those of the canvas."""
    contestant = EagerContestant(reference, spec, "cpu")
    contestant.predict([PIXELS[:8]])
    (found,) = contestant._detect([PIXELS])
    expected = ReferenceDetector(reference.model, spec).predict(PIXELS)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def eagerly(compile: Callable[..., Any]) -> Callable[[torch.nn.Module], Any]:
    """torch.compile as the contestant calls it, with a back end that compiles nothing."""
    return lambda module: compile(module, backend="eager")


def test_compiled_gives_what_eager_gives(reference: Reference, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", eagerly(torch.compile))
    contestant = CompiledContestant(reference, spec, "cpu")
    compiled = {name for name, module in contestant._model.named_modules() if hasattr(module, "_orig_mod")}
    assert compiled == {part for part in COMPILED_PARTS if "keypoint" not in part}
    (found,) = contestant._detect([PIXELS])
    (expected,) = EagerContestant(reference, spec, "cpu")._detect([PIXELS])
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_a_compiler_that_fails_names_the_way_out(
    reference: Reference, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.nn.Module):
        def forward(self, *_: object) -> None:
            raise RuntimeError("InvalidCxxCompiler:\n no working C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda _: Broken())
    contestant = CompiledContestant(reference, spec, "cpu")
    with pytest.raises(UnsupportedModel, match=r"(?s)torch\.compile failed: .* no working C\+\+ .*--against"):
        contestant.predict([PIXELS])


def test_half_precision_is_for_gpus(reference: Reference, spec: Any) -> None:
    with pytest.raises(DeviceUnavailable, match="GPU alone"):
        HalfContestant(reference, spec, "cpu")


def test_a_gpu_that_is_not_there() -> None:
    check_device("cpu")
    with pytest.raises(DeviceUnavailable, match="cannot use cuda:93"):
        check_device("cuda:93")


@pytest.mark.cuda
def test_half_precision_on_a_gpu(reference: Reference, spec: Any) -> None:
    contestant = HalfContestant(reference, spec, "cuda")
    (found,) = contestant._detect([PIXELS])
    (expected,) = EagerContestant(reference, spec, "cpu")._detect([PIXELS])
    assert len(found) == len(expected)
    assert contestant.device == "torch:cuda"


@pytest.mark.soak
def test_the_real_compiler(reference: Reference, spec: Any) -> None:
    contestant = CompiledContestant(reference, spec, "cpu")
    (found,) = contestant._detect([PIXELS])
    (expected,) = EagerContestant(reference, spec, "cpu")._detect([PIXELS])
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)
