"""What the rest of a file says of the attributes of its ops."""

import dataclasses
from typing import Any

import pytest
from op_files import OPS, POOL, SPEC, op_file

from edgemask.optest.attributes import differences, op_of
from edgemask.optest.sites import OpSite, part_of, sites_of
from edgemask.spec import ModelSpec

CANVAS_SPEC = SPEC.replace(canvas=(128, 160))


def sentences(path: str, changes: dict[str, Any], *, spec: ModelSpec = SPEC, fixed: bool = False) -> list[str]:
    """Of an older file, whose op got other attributes than the rest of the file is made for."""
    file = op_file(ops={path: OPS[path]}, fixed=fixed, recorded=False)
    (site,) = sites_of(file)
    changed = dataclasses.replace(site, attributes={**site.attributes, **changes})
    return list(differences(changed, part_of(file, site), spec))


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        ("nms", {"iou_threshold": 0.6}, "attribute iou_threshold: expected 0.5, as the spec has it, got 0.6"),
        ("nms", {"max_per_class": 15}, "attribute max_per_class: expected 16, as the spec has it, got 15"),
        ("nms", {"score_threshold": 0.05}, "attribute score_threshold: expected 0.0500000007"),
        ("proposals", {"max_per_class": 21}, "attribute max_per_class: expected 20, as the spec has it, got 21"),
        ("proposals", {"score_threshold": 0.0}, "attribute score_threshold: expected -1 to below 0, got 0.0"),
        ("proposals", {"score_threshold": -1.5}, "attribute score_threshold: expected -1 to below 0, got -1.5"),
        ("mask_head/pool", {"output_height": 7}, "attribute output_height: expected 6, as the spec has it, got 7"),
        ("box_head/pool", {"output_width": 3}, "attribute output_width: expected 4, as the spec has it, got 3"),
    ],
)
def test_what_the_spec_knows(path: str, changes: dict[str, Any], expected: str) -> None:
    assert sentences(path, {}) == []
    (sentence,) = sentences(path, changes)
    assert sentence.startswith(expected)


def test_scales_are_known_where_the_canvas_is() -> None:
    changes = {"spatial_scales": [0.5, 0.25, 0.125, 0.0625]}
    assert sentences("box_head/pool", changes) == []
    assert sentences("box_head/pool", {}, spec=CANVAS_SPEC, fixed=True) == []
    (sentence,) = sentences("box_head/pool", changes, spec=CANVAS_SPEC, fixed=True)
    assert "spatial_scales: expected [0.25, 0.125, 0.0625, 0.03125]" in sentence


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("proposals", {"iou_threshold": 0.6}),
        ("box_head/pool", {"sampling_ratio": 1}),
        ("box_head/pool", {"coordinate_transformation_mode": "half_pixel"}),
        ("box_head/pool", {"canonical_scale": 112.0, "canonical_level": 3}),
    ],
)
def test_what_an_older_file_does_not_know(path: str, changes: dict[str, Any]) -> None:
    assert sentences(path, changes) == []


def test_the_limit_of_the_proposals_may_not_be_known() -> None:
    assert sentences("proposals", {"max_per_class": 7}, spec=SPEC.replace(max_proposals=None)) == []


def site(op: str, inputs: int, attributes: dict[str, Any]) -> OpSite:
    return OpSite("nms/op", op, attributes, None, tuple(map(str, range(inputs))), "nms")


def test_ops_that_are_defined() -> None:
    assert op_of(site("BatchedNms", 2, OPS["nms"])) == "BatchedNms"
    assert op_of(site("MultiScaleRoiAlign_L4", 5, POOL)) == "MultiScaleRoiAlign_L"
    assert op_of(site("MultiScaleRoiAlign_L4", 4, POOL)) is None
    assert op_of(site("BatchedNms", 3, OPS["nms"])) is None
    assert op_of(site("BatchedNms", 2, POOL)) is None
    assert op_of(site("SoftNms", 2, OPS["nms"])) is None
    assert op_of(site("BatchedNms", 2, OPS["nms"] | {"sigma": 0.5})) is None
