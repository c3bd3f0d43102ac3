"""The Tab key: what a shell is offered, that it stays true to the tables, and that nothing heavy is loaded for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemask.benchmark.opening import AGAINST
from edgemask.benchmark.plan import SCENARIOS
from edgemask.cli import completion, main
from edgemask.inspection import TARGETS
from edgemask.models import BUILDERS
from edgemask.quantization import RECIPES
from edgemask.runtimes.devices import DEVICES, check_device, device_named
from edgemask.runtimes.options import OPTION_NAMES

Complete = Callable[..., list[str]]
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "scipy", "supervision", "jinja2"}
NAMED_OTHERWISE = {"auto", "torch", "openvino"}  # devices that are no entry of the table


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """What bash is offered behind the words typed, the last of which is unfinished."""

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("_EDGEMASK_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["edgemask", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert main([]) == 0
        return capsys.readouterr().out.split()

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ex"], ["export"]),
        (["export", "--tar"], ["--target"]),
        (["export", "--target", "t"], ["tensorrt"]),
        (["export", "--precision", ""], ["fp32", "fp16"]),
        (["export", "maskrcnn_resnet50_fpn"], ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]),
        (["train", "--model", "fcn"], ["fcn_resnet50", "fcn_resnet101"]),
        (["validate", "m.onnx", "--reference", "fcn"], ["fcn_resnet50", "fcn_resnet101"]),
        (["quantize", "--recipe", "m"], ["minmax"]),
        (["quantize", "--device", "cp"], ["cpu"]),
        (["predict", "m.onnx", "--device", "cu"], ["cuda"]),
        (["predict", "m.onnx", "--option", "thr"], ["threads="]),
        (["doctor", "--device", "openvino:G"], ["openvino:GPU"]),
        (["inspect", "--target", ""], ["tensorrt"]),
        (["bench", "m.onnx", "--precision", "b"], ["bf16"]),
        (["bench", "m.onnx", "--scenario", "s"], ["single-stream"]),
        (["bench", "m.onnx", "--against", "eager,com"], ["eager,compile"]),
    ],
)
def test_what_begins_with_the_letters_typed(complete: Complete, words: list[str], expected: list[str]) -> None:
    assert complete(*words) == expected


@pytest.mark.parametrize("words", [["xyz"], ["export", "zzz"], ["predict", "--device", "zzz"], ["export", ""]])
def test_nothing_is_offered_where_the_shell_knows_better(complete: Complete, words: list[str]) -> None:
    assert complete(*words) == []


def test_files_stand_beside_builders(complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fcn.safetensors", "fcn.txt", "[fcn].onnx"):
        (tmp_path / name).touch()
    assert complete("export", "fc") == ["fcn_resnet50", "fcn_resnet101", "fcn.safetensors"]
    assert completion.builders("[") == ["[fcn].onnx"]


def test_names_are_those_of_the_tables() -> None:
    assert sorted(completion.one_of(*completion._BUILDERS)("")) == sorted(BUILDERS)
    assert completion.recipes("") == [recipe.name for recipe in RECIPES]
    assert set(completion.devices("")) - NAMED_OTHERWISE == {device.name for device in DEVICES}
    assert (check_device("auto"), device_named("openvino").name) == ("auto", "openvino:CPU")
    assert completion.targets("") == list(TARGETS)
    assert completion.against("") == list(AGAINST)
    assert completion.scenarios("") == list(SCENARIOS)
    assert sorted(completion.options("")) == sorted(f"{name}=" for name in OPTION_NAMES)


def test_nothing_heavy_is_loaded_for_it(repository: Path) -> None:
    code = "import sys; from edgemask.cli import main; main([]); print('loaded', *sys.modules)"
    environment = {"_EDGEMASK_COMPLETE": "complete_bash", "COMP_WORDS": "edgemask export fcn", "COMP_CWORD": "2"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    offered, _, loaded = result.stdout.partition("loaded")
    assert offered.split() == ["fcn_resnet50", "fcn_resnet101"]
    assert "typer" in loaded.split()
    assert HEAVY & set(loaded.split()) == set()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_after_one_command(repository: Path, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "edgemask"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgemask "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = """
        edgemask --install-completion >/dev/null
        . "$HOME/.bashrc"
        COMP_WORDS=(edgemask quantize --recipe en) COMP_CWORD=3
        _edgemask_completion edgemask
        printf '%s\\n' "${COMPREPLY[@]}"
        complete -p edgemask
    """
    result = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=repository,
        env=os.environ | {"HOME": str(tmp_path), "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines() == ["entropy", "complete -o default -F _edgemask_completion edgemask"], result
