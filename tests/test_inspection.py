import json
import os
from pathlib import Path

import onnx
import pytest
from toy_model import SPEC, toy_proto, write_toy

from edgemask.cli import main
from edgemask.errors import ModelFileError, UsageError
from edgemask.inspection import TensorInfo, inspect_model
from edgemask.runtimes import read_model
from edgemask.tensorrt import JETPACK_NOTES


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


def test_what_is_in_a_file(toy: Path) -> None:
    found = inspect_model(toy)
    assert (found.path, found.bytes) == (str(toy), toy.stat().st_size)
    assert found.sound
    assert found.problem is None
    assert found.digest == read_model(toy).digest
    assert found.spec == SPEC
    assert (found.ir_version, found.opsets, found.producer) == (8, {"ai.onnx": 18}, "toys")
    assert found.inputs == (
        TensorInfo("images", "float32", (1, 3, "rows", "columns")),
        TensorInfo("image_sizes", "int64", (1, 2)),
    )
    assert found.outputs[-1] == TensorInfo("masks", "float32", (2, 4, 4))
    assert found.nodes == 15
    assert found.operators == {"Cast": 6, "Add": 5, "Mul": 2, "ReduceMax": 2}
    assert found.stages == {"stage": 5, "nms": 10}
    assert found.functions == {}
    assert found.parameters == 1 + 2 + 8 + 2 + 2 + 32


def test_functions_and_their_operators(tmp_path: Path) -> None:
    from edgemask.runtimes import write_model

    model = toy_proto()
    body = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(
        onnx.helper.make_function("edgemask", "Same", ["x"], ["y"], body, [onnx.helper.make_opsetid("", 18)])
    )
    model.opset_import.append(onnx.helper.make_opsetid("edgemask", 1))
    model.graph.node.append(onnx.helper.make_node("Same", ["zero"], ["unused"], domain="edgemask"))
    write_model(model, SPEC, tmp_path / "function.onnx")
    found = inspect_model(tmp_path / "function.onnx")
    assert found.functions == {"edgemask.Same": 1}
    assert found.operators["edgemask.Same"] == 1
    assert found.stages["unnamed"] == 1
    assert found.opsets == {"ai.onnx": 18, "edgemask": 1}


def test_a_changed_file_is_described_and_called_unsound(toy: Path) -> None:
    model = onnx.load_model(toy)
    model.graph.node[0].name = "renamed/ReduceMax"
    onnx.save_model(model, toy)
    found = inspect_model(toy)
    assert not found.sound
    assert found.problem is not None
    assert "changed or cut" in found.problem
    assert found.stages["renamed"] == 1


def test_what_cannot_be_described_is_refused(toy: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(toy.read_bytes()[:400])
    foreign = tmp_path / "foreign.onnx"
    onnx.save_model(toy_proto(), foreign)
    for path, words in (
        (tmp_path / "missing.onnx", "No such file"),
        (truncated, "truncated"),
        (foreign, "'toys' and has no edgemask.spec"),
    ):
        with pytest.raises(ModelFileError, match=words):
            inspect_model(path)


def test_a_type_that_nobody_knows_is_named_by_its_number(tmp_path: Path) -> None:
    from edgemask.runtimes import write_model

    model = toy_proto()
    model.graph.input[0].type.tensor_type.elem_type = 999
    write_model(model, SPEC, tmp_path / "odd.onnx")
    assert inspect_model(tmp_path / "odd.onnx").inputs[0].dtype == "type 999"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is no file"):
        inspect_model(tmp_path / "pipe")


def with_determinant(tmp_path: Path) -> Path:
    """The toy with a node that TensorRT's table does not have."""
    from edgemask.runtimes import write_model

    model = toy_proto()
    model.graph.node.append(onnx.helper.make_node("Det", ["images"], ["unused"], "stage/Det"))
    write_model(model, SPEC, tmp_path / "refused.onnx")
    return tmp_path / "refused.onnx"


def test_another_engine_is_asked_only_when_named(toy: Path) -> None:
    assert inspect_model(toy).target is None
    target = inspect_model(toy, target="tensorrt").target
    assert target is not None
    assert target.target == "tensorrt"
    assert "unverified" in target.source
    assert target.operators == {
        "Add": {"runs": 5, "restricted": 0, "refused": 0},
        "Cast": {"runs": 6, "restricted": 0, "refused": 0},
        "Mul": {"runs": 2, "restricted": 0, "refused": 0},
        "ReduceMax": {"runs": 2, "restricted": 0, "refused": 0},
    }
    assert (target.nodes, target.refused, target.notes) == ((), (), JETPACK_NOTES)
    with pytest.raises(UsageError, match="nothing is known of the target 'trt'"):
        inspect_model(toy, target="trt")


def test_what_an_engine_would_refuse_comes_first(tmp_path: Path) -> None:
    target = inspect_model(with_determinant(tmp_path), target="tensorrt").target
    assert target is not None
    assert next(iter(target.operators)) == "Det"
    assert [(check.node, check.operator) for check in target.refused] == [("stage/Det", "Det")]


def test_command_with_a_target(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(toy), "--target", "tensorrt"]) == 0
    text = capsys.readouterr().out
    assert "No node is known to be refused by tensorrt." in text
    assert all(f"- {note}" in text for note in JETPACK_NOTES)
    assert main(["inspect", str(toy)]) == 0
    assert "JetPack" not in capsys.readouterr().out
    refused = str(with_determinant(tmp_path))
    assert main(["inspect", refused]) == 0
    capsys.readouterr()
    assert main(["inspect", refused, "--target", "tensorrt"]) == 1
    assert "stage/Det" in capsys.readouterr().out
    assert main(["inspect", refused, "--target", "tensorrt", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["sound"]
    assert [check["node"] for check in found["target"]["refused"]] == ["stage/Det"]
    assert main(["inspect", refused, "--target", "trt"]) == 2
    assert "expected tensorrt" in capsys.readouterr().err
