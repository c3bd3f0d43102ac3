"""The self-test passes what the exporter writes, in every form, and names the op of every fault that is put into it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from op_files import OPS, POOL, SPEC, TARGETS, file_of, op_file

from edgemask.errors import DeviceUnavailable, UnsupportedModel, UsageError
from edgemask.export import onnx_ops
from edgemask.ops import LEVEL_TOLERANCE, floor32
from edgemask.optest import OpTest, run_op_tests
from edgemask.optest.running import GPU_TOLERANCE, ROI_ALIGN_TOLERANCE
from edgemask.runtimes import ModelFile, ort, ov
from edgemask.runtimes.functions import inline_functions

POOLS = ["box_head/pool/MultiScaleRoiAlign_L4", "mask_head/pool/MultiScaleRoiAlign_L4"]
NMS = ["proposals/BatchedNms", "nms/BatchedNms"]
DEVICES = [
    "cpu",
    pytest.param("openvino:CPU", marks=pytest.mark.openvino),
    pytest.param("cuda", marks=pytest.mark.cuda),
]


def failures(file: ModelFile, device: str = "cpu") -> dict[str, OpTest]:
    """The ops that failed, by name."""
    return {test.name: test for test in run_op_tests(file, device) if not test.passed}


@pytest.mark.parametrize("fixed", [False, True], ids=["any size", "fixed sizes"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_form_passes_on_every_runtime(device: str, target: str, fixed: bool) -> None:
    tests = run_op_tests(op_file(target, fixed=fixed), device)
    assert [test.name for test in tests] == [NMS[0], POOLS[0], NMS[1], POOLS[1]]
    assert [test.stage for test in tests] == ["proposals", "box_head", "nms", "mask_head"]
    for test in tests:
        assert (test.passed, test.failed, test.example) == (True, 0, "")
        assert test.op == test.name.rpartition("/")[2]
        assert test.error <= test.tolerance
        assert test.vectors >= 60
    assert [test.tolerance for test in tests if test.op == "BatchedNms"] == [0.0, 0.0]
    allowed = GPU_TOLERANCE if device == "cuda" else ROI_ALIGN_TOLERANCE
    assert [test.tolerance for test in tests if test.op != "BatchedNms"] == [allowed] * 2
    assert tests[0].attributes == OPS["proposals"] | {"score_threshold": -0.5}


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_ratio": 0},
        {"sampling_ratio": 3, "output_height": 7, "output_width": 5},
        {"coordinate_transformation_mode": "half_pixel"},
        {"spatial_scales": [1 / 16], "sampling_ratio": 0},
        {"spatial_scales": [1 / 12], "sampling_ratio": 3},
        {"spatial_scales": [0.5, 0.25], "canonical_scale": 96.5, "canonical_level": 3},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
@pytest.mark.parametrize("device", DEVICES)
def test_other_attributes_pass_too(device: str, changes: dict[str, Any]) -> None:
    assert failures(op_file(ops={"box_head/pool": POOL | changes}), device) == {}


@pytest.mark.parametrize(("threshold", "limit"), [(0.0, 20), (floor32(0.6), 1), (0.3, 1000), (0.9, 2**31), (1.0, 0)])
@pytest.mark.parametrize("device", DEVICES)
def test_other_thresholds_and_limits_pass_too(device: str, threshold: float, limit: int) -> None:
    attributes = {"iou_threshold": threshold, "score_threshold": 0.0, "max_per_class": limit}
    assert failures(op_file(ops={"another/nms": attributes}), device) == {}


@dataclass(frozen=True)
class Fault:
    """Words of a body that are replaced, the ops that then fail, and what the example of the last one speaks of."""

    old: str
    new: str
    named: list[str]
    kind: str


# A product of this factor and a float32 is the next float32 towards 0, for the thresholds here.
LOWER = "one_lower = Constant <value_float = 0.99999994> ()"
NMS_CALL = "selected = NonMaxSuppression <center_point_box = 0> (boxes, scores, limit, overlap, lowest)"
FAULTS = {
    "level epsilon dropped": Fault(f"value_float = {float(LEVEL_TOLERANCE)!r}", "value_float = 1.0", POOLS, "area"),
    "float16 areas": Fault(
        "area = Mul (width, height)",
        "whole = Mul (width, height) half = Cast <to = 10> (whole) area = Cast <to = 1> (half)",
        POOLS,
        "area",
    ),
    "aligned flipped": Fault(
        "coordinate_transformation_mode: string = @coordinate_transformation_mode",
        'coordinate_transformation_mode = "half_pixel"',
        POOLS,
        "got",
    ),
    "sampling ratio 1": Fault("sampling_ratio: int = @sampling_ratio", "sampling_ratio = 1", POOLS, "got"),
    "another canonical level": Fault("powers_of_two, canonical_level_index", "powers_of_two, one", POOLS, "area"),
    "IoU >= threshold": Fault(
        NMS_CALL,
        f"{LOWER} lower = Mul (overlap, one_lower) {NMS_CALL.replace('overlap', 'lower')}",
        NMS,
        "IoU exactly at",
    ),
    "score >= threshold": Fault(
        NMS_CALL,
        f"{LOWER} lower = Mul (lowest, one_lower) {NMS_CALL.replace('lowest', 'lower')}",
        NMS,
        "score exactly at the threshold",
    ),
    "max_per_class off by one": Fault(
        NMS_CALL,
        f"more = Constant <value_int = 1> () limits = Add (limit, more) {NMS_CALL.replace('limit', 'limits')}",
        NMS,
        "of which 16 may be kept",
    ),
}


def with_fault(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Every body that is made from now on has it."""
    original = onnx_ops.roi_align_body

    def faulty(levels: int, *, static: bool) -> str:
        return original(levels, static=static).replace(fault.old, fault.new)

    present = fault.old in original(4, static=False) and fault.old in original(4, static=True)
    assert present or fault.old in onnx_ops.NMS_BODY, "the fault changes nothing"
    monkeypatch.setattr(onnx_ops, "roi_align_body", faulty)
    monkeypatch.setattr(onnx_ops, "NMS_BODY", onnx_ops.NMS_BODY.replace(fault.old, fault.new))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_body_fails_and_names_the_op(monkeypatch: pytest.MonkeyPatch, fault: Fault, target: str) -> None:
    check_fault(monkeypatch, fault, target, "cpu")


# OpenVINO computes float16 areas in float32 on this CPU, and is given no threshold that the graph computes.
@pytest.mark.openvino
@pytest.mark.parametrize(
    "name", ["level epsilon dropped", "sampling ratio 1", "score >= threshold", "max_per_class off by one"]
)
def test_a_fault_in_a_body_fails_on_openvino(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    check_fault(monkeypatch, FAULTS[name], "portable", "openvino:CPU")


def check_fault(monkeypatch: pytest.MonkeyPatch, fault: Fault, target: str, device: str) -> None:
    with_fault(monkeypatch, fault)
    found = failures(op_file(target), device)
    assert list(found) == fault.named
    for test in found.values():
        assert 0 < test.failed <= test.vectors
        assert test.error > test.tolerance
        assert "expected" in test.example
    assert fault.kind in test.example


@pytest.mark.openvino
def test_openvino_without_its_mended_threshold_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov, "for_openvino", inline_functions)
    found = failures(op_file(), "openvino:CPU")
    assert list(found) == NMS
    assert "IoU exactly at the threshold" in found["nms/BatchedNms"].example


def edited(file: ModelFile, op_type: str, name: str, value: float | int) -> ModelFile:
    """The file with another value of an attribute in every node of a type."""
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == op_type and attribute.name == name:
                attribute.CopyFrom(onnx.helper.make_attribute(name, value))
    return file_of(proto, file.spec)


@pytest.mark.parametrize(("name", "value"), [("sampling_ratio", 1), ("canonical_level", 5), ("canonical_scale", 224.5)])
def test_an_edited_attribute_is_not_what_was_recorded(name: str, value: float) -> None:
    found = failures(edited(op_file(), "MultiScaleRoiAlign_L4", name, value))
    assert list(found) == POOLS
    test = found[POOLS[0]]
    assert (test.failed, test.error <= test.tolerance) == (1, True), "the op does what its attribute says"
    assert test.example == f"attribute {name}: expected {POOL[name]}, as the exporter recorded it, got {value}"


@pytest.mark.parametrize(("name", "value"), [("iou_threshold", 0.55), ("score_threshold", 0.06), ("max_per_class", 17)])
def test_an_edited_attribute_of_an_older_file_is_not_what_the_spec_says(name: str, value: float) -> None:
    found = failures(edited(op_file(recorded=False), "BatchedNms", name, value))
    assert f"attribute {name}: expected {float(np.float32(OPS['nms'][name])):g}" in found["nms/BatchedNms"].example
    assert "as the spec has it" in found["nms/BatchedNms"].example
    assert (NMS[0] in found) == (name != "iou_threshold"), "the RPN's IoU threshold is not in the spec"


def test_an_edited_node_of_an_inlined_body_fails() -> None:
    found = failures(edited(op_file("openvino"), "RoiAlign", "output_width", 5))
    assert list(found) == POOLS
    assert found[POOLS[0]].error == np.inf
    assert "got the shape [68, 3, 4, 5] for 68 regions" in found[POOLS[0]].example


def test_a_record_that_does_not_fit_the_graph_fails() -> None:
    file = op_file("openvino")
    records = [dict(record) for record in file.spec.ops or ()]
    records[0] |= {"output": "somewhere/else"}
    records[1] |= {"attributes": POOL | {"spatial_scales": [0.25, 0.0625, 0.03125, 0.5]}}
    records[2] |= {"op": "SoftNms"}
    records[3] |= {"attributes": POOL | {"sampling_ratio": "two"}}
    tests = run_op_tests(file_of(file.proto, file.spec.replace(ops=tuple(records))), "cpu")
    assert [(test.passed, test.failed, test.vectors) for test in tests] == [(False, 1, 0)] * 4
    messages = ["computes no somewhere/else", "spatial_scales are", "no op SoftNms of 2 inputs", "attributes: "]
    for test, message in zip(tests, messages, strict=True):
        assert message in test.example


def test_an_op_that_depends_on_more_than_its_inputs_fails() -> None:
    file = op_file("openvino", {"nms": OPS["nms"]})
    (record,) = file.spec.ops or ()
    spec = file.spec.replace(ops=(record | {"inputs": record["inputs"][:1]},))
    (test,) = run_op_tests(file_of(file.proto, spec), "cpu")
    assert not test.passed
    assert "nms/BatchedNms depends on nms.scores.in too" in test.example


def test_a_device_that_cannot_run_an_op_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no device 'tpu'"):
        run_op_tests(op_file(), "tpu")
    monkeypatch.setattr(ort.OrtCpu, "unavailable", classmethod(lambda cls, target: DeviceUnavailable("broken")))
    with pytest.raises(DeviceUnavailable, match="broken"):
        run_op_tests(op_file(), "cpu")


@pytest.mark.openvino
def test_what_openvino_would_answer_wrongly_is_not_run() -> None:
    attributes = POOL | {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 0}
    file = op_file(ops={"box_head/pool": attributes})
    assert failures(file) == {}
    with pytest.raises(UnsupportedModel, match="half_pixel"):
        run_op_tests(file, "openvino:CPU")


def test_a_huge_resize_limit_is_no_canvas() -> None:
    (test,) = run_op_tests(op_file(ops={"box_head/pool": POOL}, spec=SPEC.replace(max_size=1_000_000)), "cpu")
    assert test.passed
