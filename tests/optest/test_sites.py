"""The ops of a file are found again in every form, with the sizes that the file fixes."""

import json

import numpy as np
import onnx
import pytest
from op_files import CANVAS, OPS, POOL, SPEC, TARGETS, file_of, op_file
from toy_model import SPEC as TOY_SPEC
from toy_model import toy_proto

from edgemask.errors import ModelFileError
from edgemask.optest import run_op_tests, why_untested
from edgemask.optest.sites import part_of, sites_of
from edgemask.spec import ModelSpec

NAMES = [f"{path}/{'BatchedNms' if 'nms' in path or 'prop' in path else 'MultiScaleRoiAlign_L4'}" for path in OPS]
SEMANTIC = ModelSpec(tasks=("semantic",), class_names=("a",), min_size=64, max_size=64)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "older"])
def test_nodes_are_found(recorded: bool) -> None:
    sites = sites_of(op_file(recorded=recorded))
    assert [site.name for site in sites] == NAMES
    assert [site.stage for site in sites] == ["proposals", "box_head", "nms", "mask_head"]
    assert sites[1].inputs == (*(f"box_head/pool.fpn.{level}" for level in range(4)), "box_head/pool.rois")
    assert (sites[1].output, sites[1].attributes) == (NAMES[1], POOL)
    assert [site.recorded is not None for site in sites] == [recorded] * 4


@pytest.mark.parametrize("target", ["openvino", "tensorrt"])
def test_what_was_recorded_is_found_inlined(target: str) -> None:
    file = op_file(target)
    assert not any(node.domain for node in file.proto.graph.node)
    assert [(site.name, site.inputs, site.attributes) for site in sites_of(file)] == [
        (site.name, site.inputs, site.attributes) for site in sites_of(op_file())
    ]


def test_the_record_survives_json() -> None:
    file = op_file()
    assert ModelSpec.from_json(file.spec.to_json()) == file.spec
    record = json.loads(file.spec.to_json())["ops"][2]
    assert record["attributes"]["score_threshold"] == float(np.float32(0.05))
    assert (record["name"], record["op"], record["output"]) == (NAMES[2], "BatchedNms", NAMES[2])


def test_a_node_that_nobody_recorded_is_tested_too() -> None:
    file = op_file()
    spec = file.spec.replace(ops=(file.spec.ops or ())[:2])
    assert {site.name for site in sites_of(file_of(file.proto, spec))} == set(NAMES)


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_has_the_sizes_of_the_file(target: str) -> None:
    file = op_file(target, fixed=True)
    pool, nms = (part_of(file, sites_of(file)[number]) for number in (1, 2))
    assert pool.sides["box_head/pool.fpn.1"] == (2, 3, CANVAS[0] // 8, CANVAS[1] // 8)
    assert pool.sides["box_head/pool.rois"] == (40, 5)
    assert pool.gives == (40, 3, 4, 4)
    assert nms.sides == {"nms.boxes": (2, 31, 4), "nms.scores": (2, 3, 31)}
    assert nms.gives == (None, 3)
    assert {node.name.partition("/")[0] for node in pool.model.proto.graph.node} == {"box_head"}
    assert onnx.ModelProto.FromString(pool.model.data) == pool.model.proto


def test_a_part_leaves_open_what_the_file_leaves_open() -> None:
    file = op_file()
    part = part_of(file, sites_of(file)[1])
    assert part.sides["box_head/pool.fpn.0"] == (None, 3, None, None)
    assert part.sides["box_head/pool.rois"] == (None, 5)


def test_a_part_that_is_not_there() -> None:
    site = sites_of(op_file("openvino"))[0]
    with pytest.raises(ModelFileError, match="computes no proposals/BatchedNms"):
        part_of(op_file("openvino", {"nms": OPS["nms"]}), site)


@pytest.mark.parametrize("target", ["openvino", "tensorrt"])
def test_an_older_inlined_file_says_why_it_is_not_tested(target: str) -> None:
    file = op_file(target, recorded=False)
    assert run_op_tests(file, "cpu") == ()
    reason = why_untested(file)
    assert reason is not None
    assert "ops.onnx" in reason
    assert "export it again" in reason


def test_what_is_tested_or_has_no_ops_needs_no_reason() -> None:
    assert [why_untested(op_file(target)) for target in TARGETS] == [None] * 3
    assert why_untested(op_file(recorded=False)) is None
    assert why_untested(file_of(toy_proto(), SEMANTIC)) is None
    assert why_untested(file_of(toy_proto(), TOY_SPEC)) is not None
    assert SPEC.ops is None
