"""One meaning in every form: numpy, torch, and the ONNX functions on ONNX Runtime and OpenVINO."""

from collections.abc import Callable
from typing import Any

import numpy as np
import op_forms
import pytest
from op_forms import Case, Form

from edgemask.ops import floor32, level_thresholds
from edgemask.runtimes.functions import inline_functions

RUNTIMES = [
    pytest.param(op_forms.on_onnxruntime, id="onnxruntime"),
    pytest.param(op_forms.on_openvino, id="openvino", marks=pytest.mark.openvino),
]
STATIC = pytest.mark.parametrize("static", [False, True], ids=["sorted", "static"])
CASES_PER_ATTRIBUTES = 100

# 10 sets of attributes for each op, 100 cases for each set: 2,000 cases in every form.
ROI_ALIGN = {
    "box_pooler": op_forms.roi_align_attributes(4),
    "mask_pooler": op_forms.roi_align_attributes(4, output_height=14, output_width=14),
    "adaptive": op_forms.roi_align_attributes(4, sampling_ratio=0),
    "one_level": op_forms.roi_align_attributes(1, sampling_ratio=3, spatial_scales=[1 / 12]),
    "one_level_adaptive": op_forms.roi_align_attributes(1, sampling_ratio=0, output_width=3),
    "two_levels": op_forms.roi_align_attributes(2, sampling_ratio=1, canonical_scale=96.5, canonical_level=3),
    "five_levels": op_forms.roi_align_attributes(5, canonical_level=6, output_height=1, output_width=2),
    "half_pixel": op_forms.roi_align_attributes(4, coordinate_transformation_mode="half_pixel"),
    "half_pixel_1": op_forms.roi_align_attributes(
        3, coordinate_transformation_mode="half_pixel", sampling_ratio=1, canonical_scale=56.0
    ),
    "half_pixel_one_level": op_forms.roi_align_attributes(
        1, coordinate_transformation_mode="half_pixel", sampling_ratio=3
    ),
}
# Not for OpenVINO, which gives NaN for rois without area: edgemask.runtimes.functions refuses it.
HALF_PIXEL_ADAPTIVE = op_forms.roi_align_attributes(4, coordinate_transformation_mode="half_pixel", sampling_ratio=0)
IOU_THRESHOLDS = [0.0, 0.25, 0.3, 0.45, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0]
NMS = [
    {"iou_threshold": floor32(threshold), "score_threshold": score_threshold, "max_per_class": limit}
    for threshold, score_threshold, limit in zip(
        IOU_THRESHOLDS, [0.05, -1.0] * 5, [100, 100, 3, 100, 1000, 2**31, 5, 100, 1, 100], strict=True
    )
]


def roi_align_cases(attributes: dict[str, Any], count: int = CASES_PER_ATTRIBUTES) -> list[Case]:
    """Maps of unit normal features with rois in and out of them, empty, flipped, on a level's edge, or
    none."""
    random = np.random.default_rng(1)
    scales = attributes["spatial_scales"]
    flips = attributes["sampling_ratio"] or attributes["coordinate_transformation_mode"] != "half_pixel"
    edges = level_thresholds(scales, attributes["canonical_scale"], attributes["canonical_level"])
    cases = []
    for _ in range(count):
        batch, height, width = int(random.integers(1, 4)), *random.integers(1, 5, 2) * 64
        features = [
            random.standard_normal((batch, 2, max(1, round(height * scale)), max(1, round(width * scale))))
            for scale in scales
        ]
        amount = int(random.integers(0, 8))
        corners = random.uniform(-40, 300, (amount, 2))
        boxes = np.concatenate([corners, corners + random.uniform(0, 250, (amount, 2))], axis=1)
        for box in boxes:
            kind = random.integers(0, 8)
            if kind == 0:  # without width, without height, without both
                box[2:] = np.where(random.random(2) < 0.6, box[:2], box[2:])
            elif kind == 1:  # everything, and more
                box[:] = [-width, -height, 2 * width, 2 * height]
            elif kind == 2:  # whole pixels: samples on the border of the map
                box[:] = np.round(box / 16) * 16
            elif kind == 3 and len(edges):  # an area one float32 from where a level begins; 32 scales exactly
                area = random.choice(edges)
                area = np.nextafter(area, np.float32(random.choice([-np.inf, area, np.inf])))
                box[:] = [0, 0, area / np.float32(32), 32]
            elif kind == 4 and flips:
                box[[0, 2]] = box[[2, 0]]
        images = random.integers(0, batch, (amount, 1))
        arrays = [*features, np.concatenate([images, boxes], axis=1)]
        cases.append([array.astype(np.float32) for array in arrays])
    return cases


def nms_cases(count: int = CASES_PER_ATTRIBUTES) -> list[Case]:
    """Every kind in turn, few boxes; also of no images and of no classes."""
    random = np.random.default_rng(2)
    cases = []
    for number in range(count):
        batch, classes, amount = (int(random.integers(low, high)) for low, high in [(1, 4), (1, 4), (0, 40)])
        batch, classes = (0 if number == 7 else batch), (0 if number == 8 else classes)
        kind = op_forms.NMS_KINDS[number % len(op_forms.NMS_KINDS)]
        cases.append(op_forms.nms_case(random, kind, (batch, classes, amount)))
    return cases


def roi_align_error(attributes: dict[str, Any], form: Form) -> float:
    """The largest distance of a form from the reference over the cases."""
    return op_forms.largest_error(op_forms.roi_align_reference(attributes), form, roi_align_cases(attributes))


def different_selections(attributes: dict[str, Any], form: Form) -> int:
    """In how many of the cases a form and the reference disagree."""
    return op_forms.different_selections(op_forms.nms_reference(attributes), form, nms_cases())


@pytest.mark.parametrize("attributes", ROI_ALIGN.values(), ids=ROI_ALIGN)
def test_roi_align_of_torch(attributes: dict[str, Any]) -> None:
    error = roi_align_error(attributes, op_forms.roi_align_in_torch(attributes))
    assert error <= op_forms.ROI_ALIGN_TOLERANCE


@pytest.mark.parametrize(
    "make",
    [
        op_forms.roi_align_in_torch,
        lambda attributes: op_forms.on_onnxruntime(op_forms.roi_align_model(attributes)),
        lambda attributes: op_forms.on_onnxruntime(op_forms.roi_align_model(attributes, static=True)),
    ],
)
def test_half_pixel_adaptive(make: Callable[[dict[str, Any]], Form]) -> None:
    assert roi_align_error(HALF_PIXEL_ADAPTIVE, make(HALF_PIXEL_ADAPTIVE)) <= op_forms.ROI_ALIGN_TOLERANCE


@STATIC
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("attributes", ROI_ALIGN.values(), ids=ROI_ALIGN)
def test_roi_align_of_runtimes(attributes: dict[str, Any], runtime: Callable[..., Form], static: bool) -> None:
    error = roi_align_error(attributes, runtime(op_forms.roi_align_model(attributes, static=static)))
    assert error <= op_forms.ROI_ALIGN_TOLERANCE


@pytest.mark.parametrize("attributes", [*ROI_ALIGN.values(), HALF_PIXEL_ADAPTIVE], ids=[*ROI_ALIGN, "half_pixel_0"])
def test_static_roi_align_is_the_same_bit_for_bit(attributes: dict[str, Any]) -> None:
    """One kernel sees the same scaled roi in both bodies."""
    plain, static = (op_forms.on_onnxruntime(op_forms.roi_align_model(attributes, static=s)) for s in (False, True))
    assert op_forms.largest_error(plain, static, roi_align_cases(attributes)) == 0.0


@pytest.mark.parametrize("attributes", NMS, ids=IOU_THRESHOLDS)
def test_nms_of_torch(attributes: dict[str, Any]) -> None:
    assert different_selections(attributes, op_forms.nms_in_torch(attributes)) == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("attributes", NMS, ids=IOU_THRESHOLDS)
def test_nms_of_runtimes(attributes: dict[str, Any], runtime: Callable[..., Form]) -> None:
    assert different_selections(attributes, runtime(op_forms.nms_model(attributes))) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinate_transformation_mode": "half_pixel"},
        {"sampling_ratio": 1},
        {"canonical_level": 5},
        {"canonical_scale": float(np.nextafter(np.float32(224), np.float32(225)))},
        {"spatial_scales": [0.5, 0.25, 0.125, 0.0625]},
    ],
    ids=lambda changes: next(iter(changes)),
)
@STATIC
def test_roi_align_comparison_sees_another_attribute(changes: dict[str, Any], static: bool) -> None:
    attributes = ROI_ALIGN["box_pooler"]
    changed = op_forms.on_onnxruntime(op_forms.roi_align_model({**attributes, **changes}, static=static))
    assert roi_align_error(attributes, changed) > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"iou_threshold": float(np.nextafter(floor32(0.6), np.float32(1)))},  # rounded, not rounded down
        {"score_threshold": float(np.nextafter(np.float32(0.05), np.float32(0)))},
        {"max_per_class": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nms_comparison_sees_another_attribute(changes: dict[str, Any]) -> None:
    attributes = {"iou_threshold": floor32(0.6), "score_threshold": 0.05, "max_per_class": 5}
    changed = op_forms.on_onnxruntime(op_forms.nms_model({**attributes, **changes}))
    assert different_selections(attributes, changed) > 0


@pytest.mark.openvino
def test_openvino_needs_the_higher_threshold() -> None:
    attributes = {"iou_threshold": 0.5, "score_threshold": 0.05, "max_per_class": 100}
    uncorrected = op_forms.on_openvino(op_forms.nms_model(attributes), prepare=inline_functions)
    assert different_selections(attributes, uncorrected) > 0
