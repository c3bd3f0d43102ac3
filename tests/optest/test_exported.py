"""What `export_onnx` writes can be tested alone, the custom ops inlined and every size fixed."""

import pytest
from narrow import narrow_c4

from edgemask.export import export_onnx
from edgemask.optest import run_op_tests, why_untested
from edgemask.runtimes import ModelFile, read_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export_onnx(narrow_c4(), path, shape=(96, 96), target="tensorrt", proposals="input", verify=False)
    return read_model(path)


def test_the_ops_are_recorded(exported: ModelFile) -> None:
    assert not any(node.domain for node in exported.proto.graph.node)
    records = exported.spec.ops or ()
    assert [record["name"] for record in records] == [
        "box_head/pool/MultiScaleRoiAlign_L1",
        "nms/BatchedNms",
        "mask_head/pool/MultiScaleRoiAlign_L1",
    ]
    assert records[0]["inputs"][-1] == "proposals"
    assert records[0]["attributes"]["canonical_scale"] == 64.0
    assert records[1]["attributes"]["max_per_class"] == exported.spec.max_detections
    assert why_untested(exported) is None


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)])
def test_the_ops_pass(exported: ModelFile, device: str) -> None:
    tests = run_op_tests(exported, device)
    assert [test.example for test in tests] == [""] * 3
    assert all(test.passed and test.vectors >= 50 for test in tests)
