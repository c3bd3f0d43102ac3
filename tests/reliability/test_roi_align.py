"""MultiScaleRoiAlign gives what torchvision's RoIAlign gives, on one map and on a pyramid, or is refused."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import op_forms
import pytest
import torch
from finding import Finding
from op_forms import ROI_ALIGN_TOLERANCE, Array, Case, Form, roi_align_attributes
from torchvision.ops import MultiScaleRoIAlign, roi_align

from edgemask.errors import UnsupportedModel
from edgemask.runtimes.functions import inline_functions

Attributes = dict[str, Any]

ROIS_PER_CASE = 100
STRIDE = 32
# At stride 4 maps of 160 px, where a sample's position has steps of 1.5e-5 px in float32. With 3 samples a bin, or an
# adaptive number, OpenVINO rounds it otherwise than torchvision, and is as near to the float64 result: unit normal
# features differ by up to 1.8e-5, features of -1..1 by up to 8.4e-6.
LARGEST_CANVAS = 640
ON_A_MAP = [
    roi_align_attributes(1, sampling_ratio=ratio, coordinate_transformation_mode=mode)
    for mode in ("output_half_pixel", "half_pixel")
    for ratio in range(5)
]
ON_A_PYRAMID = [roi_align_attributes(4, sampling_ratio=ratio) for ratio in range(5)]
SETTINGS = ON_A_MAP + ON_A_PYRAMID
HALF_PIXEL_ADAPTIVE = ON_A_MAP[5]


def cases(count: int, levels: int) -> list[Case]:
    """Maps of white noise with 100 rois each, of which 20 are without area, flipped, outside or far too large."""
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(count // ROIS_PER_CASE):
        batch, canvas = int(random.integers(1, 4)), STRIDE * random.integers(1, LARGEST_CANVAS // STRIDE + 1, 2)
        features = [random.uniform(-1, 1, (batch, 2, *(canvas >> (level + 2)))) for level in range(levels)]
        images = np.sort(random.integers(0, batch, ROIS_PER_CASE))
        boxes = np.sort(random.uniform(0, 1, (ROIS_PER_CASE, 2, 2)), axis=1) * canvas[::-1]
        odd = random.permutation(ROIS_PER_CASE)[: ROIS_PER_CASE // 5].reshape(4, -1)
        _make_odd(boxes, odd, canvas[::-1], random)
        arrays = [*features, np.concatenate([images[:, None], boxes.reshape(-1, 4)], axis=1)]
        drawn.append([array.astype(np.float32) for array in arrays])
    return drawn


def _make_odd(boxes: Array, odd: Array, canvas: Array, random: np.random.Generator) -> None:
    """Changes boxes [N, 2, 2] (corner, then x and y) in place."""
    zero, flipped, outside, large = odd
    axes = np.array([[True, False], [False, True], [True, True]])[random.integers(0, 3, (2, len(zero)))]
    boxes[zero, 1] = np.where(axes[0], boxes[zero, 0], boxes[zero, 1])
    boxes[flipped] = np.where(axes[1][:, None], boxes[flipped, ::-1], boxes[flipped])
    boxes[outside] += canvas * random.choice([-1.5, -1.0, 1.0, 1.5], (len(outside), 1, 2))
    boxes[large] = (boxes[large] - canvas / 2) * 4


def defined(case: Case, attributes: Attributes) -> Case:
    """Puts those flipped corners in order on which torchvision fails.

    It has no number of samples for them where that is adaptive and coordinates are shifted, and no pyramid level for a
    negative area.
    """
    boxes = case[-1][:, 1:].reshape(-1, 2, 2)
    if attributes is HALF_PIXEL_ADAPTIVE:
        boxes = np.sort(boxes, axis=1)
    elif len(case) > 2:
        negative = (boxes[:, 1] - boxes[:, 0]).prod(axis=1) < 0
        boxes = np.where(negative[:, None, None], np.sort(boxes, axis=1), boxes)
    return [*case[:-1], np.concatenate([case[-1][:, :1], boxes.reshape(-1, 4)], axis=1)]


def of_torchvision(attributes: Attributes) -> Form:
    size, ratio = (attributes["output_height"], attributes["output_width"]), attributes["sampling_ratio"] or -1
    scales = attributes["spatial_scales"]

    def on_a_map(case: Sequence[Array]) -> Array:
        feature, rois = (torch.from_numpy(array) for array in case)
        aligned = attributes["coordinate_transformation_mode"] == "half_pixel"
        return np.asarray(roi_align(feature, rois, size, scales[0], ratio, aligned))

    def on_a_pyramid(case: Sequence[Array]) -> Array:
        features = {str(level): torch.from_numpy(array) for level, array in enumerate(case[:-1])}
        batch, _, *sides = features["0"].shape
        boxes = [torch.from_numpy(case[-1][case[-1][:, 0] == image, 1:]) for image in range(batch)]
        height, width = (int(side / scales[0]) for side in sides)
        # A new one each time: it keeps the scales that it infers from its first images.
        return np.asarray(MultiScaleRoIAlign(list(features), size, ratio)(features, boxes, [(height, width)] * batch))

    return on_a_map if len(scales) == 1 else on_a_pyramid


def compare(
    count: int, open_form: Callable[[Attributes], Form], settings: Sequence[Attributes] = SETTINGS
) -> tuple[list[float], list[Attributes]]:
    """The largest error under each of the settings that a form takes; and the settings that are refused."""
    errors, refused = [], []
    drawn = {levels: cases(count, levels) for levels in (1, 4)}
    for attributes in settings:
        try:
            form = open_form(attributes)
        except UnsupportedModel:
            refused.append(attributes)
            continue
        fitting = [defined(case, attributes) for case in drawn[len(attributes["spatial_scales"])]]
        errors.append(op_forms.largest_error(of_torchvision(attributes), form, fitting))
    return errors, refused


def on_onnxruntime(attributes: Attributes) -> Form:
    return op_forms.on_onnxruntime(op_forms.roi_align_model(attributes))


def on_openvino(attributes: Attributes) -> Form:
    return op_forms.on_openvino(op_forms.roi_align_model(attributes))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("open_form", "name", "expected_refusals"),
    [
        pytest.param(on_onnxruntime, "ONNX Runtime", [], id="onnxruntime"),
        pytest.param(on_openvino, "OpenVINO", [HALF_PIXEL_ADAPTIVE], id="openvino", marks=pytest.mark.openvino),
    ],
)
def test_same_as_torchvision(
    open_form: Callable[[Attributes], Form],
    name: str,
    expected_refusals: list[Attributes],
    count: int,
    finding: Finding,
) -> None:
    errors, refused = compare(count, open_form)
    assert refused == expected_refusals
    assert len(errors) == len(SETTINGS) - len(refused)
    assert np.max(errors) <= ROI_ALIGN_TOLERANCE
    finding(
        f"{max(errors):.1e} at most: {count:,} rois in each of {len(errors)} settings, features of -1..1, "
        f"maps of up to {LARGEST_CANVAS // 4} px; {len(refused)} setting{'s' * (len(refused) != 1)} refused",
        where=name,
    )


@pytest.mark.openvino
def test_what_is_refused_is_wrong() -> None:
    """Where this fails, OpenVINO has repaired it and the refusal can go."""

    def unchecked(attributes: Attributes) -> Form:
        return op_forms.on_openvino(op_forms.roi_align_model(attributes), prepare=inline_functions)

    errors, refused = compare(100, unchecked, [HALF_PIXEL_ADAPTIVE])
    assert refused == []
    assert np.isnan(errors[0])


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (ON_A_MAP[2], {"coordinate_transformation_mode": "half_pixel"}),
        (ON_A_MAP[7], {"coordinate_transformation_mode": "output_half_pixel"}),
        (ON_A_MAP[2], {"sampling_ratio": 3}),
        (ON_A_MAP[0], {"sampling_ratio": 1}),
        (ON_A_MAP[2], {"spatial_scales": [0.2501]}),
        (ON_A_PYRAMID[2], {"canonical_level": 5}),
        (ON_A_PYRAMID[2], {"canonical_scale": 200.0}),
    ],
)
def test_another_attribute_is_found_out(settings: Attributes, changes: Attributes) -> None:
    errors, _ = compare(100, lambda attributes: on_onnxruntime({**attributes, **changes}), [settings])
    assert errors[0] > 100 * ROI_ALIGN_TOLERANCE


def test_flipped_roi_on_which_torchvision_fails() -> None:
    feature, flipped = np.ones((1, 1, 8, 8), np.float32), np.array([[0, 60, 10, 20, 40]], np.float32)
    with pytest.raises(RuntimeError, match="larger than max_size"):
        of_torchvision(HALF_PIXEL_ADAPTIVE)([feature, flipped])
