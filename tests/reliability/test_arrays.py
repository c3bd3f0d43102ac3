"""Arrays of every kind are taken for what they are, or refused; none gives a wrong result in silence."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from enduring import DEVICES, RUNTIMES, ModelOf, Picture, Predictor, result_bytes, scenes
from finding import Finding
from numpy.typing import NDArray

import edgemask
from edgemask.detections import Detections
from edgemask.errors import UsageError
from edgemask.runtimes import Detector

Array = NDArray[Any]
Run = Callable[[Array, Array], dict[str, Array]]
PICTURE = scenes(3)[2]
FLOATS = PICTURE.astype(np.float32)


def with_value(value: float) -> Array:
    changed = FLOATS.copy()
    changed[3, 4, 1] = value
    return changed


def read_only(image: Array) -> Array:
    copy = image.copy()
    copy.flags.writeable = False
    return copy


def unaligned(image: Array) -> Array:
    place = np.zeros(image.nbytes + 1, np.uint8)[1:]
    place[:] = np.frombuffer(image.tobytes(), np.uint8)
    return place.view(image.dtype).reshape(image.shape)


# Another memory layout of the same picture.
SAME: dict[str, Callable[[Array], Array]] = {
    "negative strides": lambda image: image[::-1, ::-1].copy()[::-1, ::-1],
    "BGR turned round": lambda image: image[..., ::-1].copy()[..., ::-1],
    "every second pixel": lambda image: np.repeat(np.repeat(image, 2, 0), 2, 1)[::2, ::2],
    "column by column": np.asfortranarray,
    "read-only": read_only,
    "a slice of RGBA": lambda image: np.concatenate([image, image[..., :1]], 2)[..., :3],
    "unaligned": unaligned,
}
REFUSED: dict[str, Array] = {
    "NaN": with_value(np.nan),
    "infinite": with_value(np.inf),
    "0-1": FLOATS / 255,
    "floats": FLOATS,
    "16 bits": PICTURE.astype(np.uint16) * 257,
    "signed": PICTURE.astype(np.int8),
    "empty": PICTURE[:0],
    "no columns": PICTURE[:, :0],
    "four channels": np.concatenate([PICTURE, PICTURE[..., :1]], 2),
    "one channel": PICTURE[..., :1],
    "planes first": PICTURE.transpose(2, 0, 1).copy(),
    "objects": PICTURE.astype(object),
}
# The same for the graph's own input, float32 [1, 3, H, W].
RAW = np.ascontiguousarray(FLOATS[:64, :64].transpose(2, 0, 1)[None])
BRIGHT = np.equal(RAW, RAW.max())
SIZES = np.array([[64, 64]], np.int64)
RAW_REFUSED: dict[str, Array] = {
    "NaN": np.where(BRIGHT, np.float32(np.nan), RAW),
    "infinite": np.where(BRIGHT, np.float32(np.inf), RAW),
    "minus infinite": np.where(BRIGHT, np.float32(-np.inf), RAW),
    "normalised already": (RAW / 255 - 0.5) / 0.01,
    "doubles": RAW.astype(np.float64),
    "bytes": RAW.astype(np.uint8),
    "empty": RAW[:0],
    "channels last": RAW.transpose(0, 2, 3, 1).copy(),
}


@pytest.fixture(scope="module", params=DEVICES)
def detector(model_of: ModelOf, request: pytest.FixtureRequest) -> Iterator[Detector]:
    with edgemask.load(model_of("small"), device=request.param) as detector:
        yield detector


def wrong(predictor: Predictor, refused: dict[str, Array] = REFUSED) -> list[str]:
    """Layouts that change the result, and arrays that are neither refused nor right."""
    expected = result_bytes(predictor.predict(PICTURE))
    found = [name for name, change in SAME.items() if result_bytes(predictor.predict(change(PICTURE))) != expected]
    for name, array in refused.items():
        try:
            predictor.predict(array)
        except UsageError:
            continue
        found.append(name)
    return found


def changed_by_layout(run: Run) -> list[str]:
    """Layouts of the graph's own input that change what the graph gives."""
    expected, found = run(RAW, SIZES), []
    for name, change in SAME.items():
        planes = change(np.ascontiguousarray(RAW[0].transpose(1, 2, 0))).transpose(2, 0, 1)[None]
        np.testing.assert_array_equal(planes, RAW)
        outputs = run(planes, SIZES)
        if any(not np.array_equal(outputs[key], value) for key, value in expected.items()):
            found.append(name)
    return found


def test_right_or_refused(detector: Detector, finding: Finding) -> None:
    assert wrong(detector) == []
    assert changed_by_layout(detector.run) == []
    for array in RAW_REFUSED.values():
        with pytest.raises(UsageError, match=r"^images: expected"):
            detector.run(array, SIZES)
    right, refused = 2 * len(SAME), len(REFUSED) + len(RAW_REFUSED)
    finding(f"{right} layouts right, {refused} arrays refused, 0 wrong", where=RUNTIMES[detector.device], whole=True)


def test_the_picture_matters(detector: Detector) -> None:
    """What is compared above would differ for another picture, or for this one in other channels."""
    images = [PICTURE, PICTURE[..., ::-1], PICTURE[::-1], scenes(2)[1]]
    assert len({result_bytes(detector.predict(image)) for image in images}) == len(images)


class Credulous:
    """Casts whatever comes, and reads memory as if it had no strides."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, source: Picture) -> Detections:
        base = source if source.base is None or source.flags.c_contiguous else np.asarray(source.base)
        pixels = np.resize(np.nan_to_num(base.astype(np.float64)), PICTURE.shape)
        return self._predictor.predict(pixels.clip(0, 255).astype(np.uint8))


def test_a_loader_that_takes_everything_is_seen(detector: Detector) -> None:
    found = wrong(Credulous(detector))
    assert {"NaN", "0-1", "four channels", "BGR turned round", "negative strides"} <= set(found)


def test_a_graph_that_ignores_strides_is_seen(detector: Detector) -> None:
    def run(images: Array, sizes: Array) -> dict[str, Array]:
        return detector.run(images.ravel(order="K").reshape(images.shape), sizes)

    assert {"column by column", "a slice of RGBA"} <= set(changed_by_layout(run))
