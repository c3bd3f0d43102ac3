"""What the command line promises before any work is done: names, help, messages, exit codes."""

import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from toy_model import write_toy

import edgemask
from edgemask.cli import main
from edgemask.cli.app import app
from edgemask.cli.export import canvas_for
from edgemask.cli.options import read_batch, read_classes, read_shape
from edgemask.errors import UsageError
from edgemask.spec import ModelSpec

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
CLUSTER = {"engine", "address", "workers"}  # the functions take a record of them
# Of the command alone: how an answer is given, and where files are read from or written to.
OWN = {
    "export": {"output", "as_json", "classes", "for_image"},
    "validate": {"report", "as_json", "max_drop", "min_matched", "min_mask_iou", "max_latency_ratio", "max_size"}
    | CLUSTER,
    "quantize": {"list_recipes", "as_json"},
    "predict": {"images", "output", "score", "coco", "annotations", "proposals", "every", "stop", "as_json"} | CLUSTER,
    "inspect": {"as_json"},
    "package": {"as_json"},
    "bench": {"device", "precision", "batch", "csv", "plot", "as_json"},  # the function takes lists of devices, …
    "train": {"as_json"},
    "doctor": {"device", "as_json"},  # the function takes a list of devices
    "scenes": {"as_json"},
    "demo": {"as_json"},
}


def parameters_behind(command: str) -> set[str]:
    """Names of the parameters of the public functions that a command calls."""
    from edgemask.benchmark import BenchPlan, bench
    from edgemask.checkpoints import load_model
    from edgemask.demo import run_demo
    from edgemask.doctor import diagnose
    from edgemask.export import export_onnx
    from edgemask.inspection import inspect_model
    from edgemask.quantization import quantize
    from edgemask.scenes import write_scenes
    from edgemask.training import TrainingPlan, train
    from edgemask.triton import package_model
    from edgemask.validation import validate

    functions: dict[str, tuple[Callable[..., Any], ...]] = {
        "export": (load_model, export_onnx),
        "validate": (validate,),
        "quantize": (quantize,),
        "predict": (edgemask.load,),
        "inspect": (inspect_model,),
        "package": (package_model,),
        "bench": (bench,),
        "train": (train,),
        "doctor": (diagnose,),
        "scenes": (write_scenes,),
        "demo": (run_demo,),
    }
    names = {name for function in functions[command] for name in inspect.signature(function).parameters}
    if command == "train":
        names |= {field.name for field in dataclasses.fields(TrainingPlan)}
    if command == "bench":
        names |= {field.name for field in dataclasses.fields(BenchPlan)}
    # The model file is called `path` where a function opens it; every command calls it MODEL.
    return names | {"model"}


def test_every_command_is_held_to_its_function() -> None:
    assert COMMANDS.keys() == OWN.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_the_parameters_of_the_function(command: str) -> None:
    names = {parameter.name for parameter in COMMANDS[command].params}
    assert names - OWN[command] <= parameters_behind(command)
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option":
            word = {"as_json": "json", "list_recipes": "list", "options": "option"}.get(parameter.name, parameter.name)
            assert f"--{word.replace('_', '-')}" in parameter.opts


def test_train_has_every_field_of_the_plan_with_its_default() -> None:
    from edgemask.training import TrainingPlan

    options = {parameter.name: parameter for parameter in COMMANDS["train"].params}
    plan = TrainingPlan()
    for field in dataclasses.fields(TrainingPlan):
        default = options[field.name].default
        expected = getattr(plan, field.name)
        default = json.loads(default) if field.name == "arguments" else default
        assert (() if default is None and field.name == "scales" else default) == expected, field.name


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_a_terminal_and_has_an_example(
    command: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*([command] if command else []), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.partition("Commands:")[2]
    assert ("Example: edgemask" if command else "edgemask demo") in text


def test_help_loads_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys; from edgemask.cli import main; main(['export', '--help']); "
        "sys.exit(','.join({'torch', 'onnx', 'onnxruntime', 'openvino', 'scipy', 'supervision'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{edgemask.__version__}\n"


def test_module_is_the_command(repository: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "edgemask", "--version"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, edgemask.__version__)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exprt"], "No such command 'exprt'"),
        (["export", "m.safetensors"], "Missing option '--output'"),
        (["demo", "--images", "one"], "--images"),
        (["export", "m.safetensors", "-o", "m.onnx", "--shape", "800"], "--shape is '800'"),
        (["export", "m.safetensors", "-o", "m.onnx", "--batch", "0"], "--batch is '0'"),
        (["export", "m.safetensors", "-o", "m.onnx", "--shape", "64x64", "--for-image", "9x9"], "contradict"),
        (["export", "m.safetensors", "-o", "m.onnx", "--classes", "nothing.txt"], "cannot read class names"),
        (["train", "--images", "i", "--annotations", "a", "-o", "c", "--arguments", "[1]"], "--arguments is [1]"),
        (["inspect", "nothing.onnx"], "cannot read nothing.onnx: No such file"),
        (["predict", "nothing.onnx", "nothing.jpg"], "there is no file or folder nothing.jpg"),
        (["export", "maskrcnn_compact_fpn", "-o", "m.onnx"], "without weights"),
        (["validate", "nothing.onnx", "--reference", "r.onnx", "--images", "nowhere"], "no"),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.err.lower().count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "model.safetensors", "-o", "nowhere/m.onnx"],
        ["train", "--images", "i", "--annotations", "a", "-o", "nowhere/m.safetensors"],
        ["predict", "m.onnx", "a.jpg", "--coco", "nowhere/results.json"],
    ],
)
def test_a_folder_that_is_missing_is_said_before_the_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 3
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_an_error_ends_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nothing.onnx", "--json"]) == 2
    assert capsys.readouterr() == ("", "error: cannot read nothing.onnx: No such file or directory\ncheck the path\n")


def test_inspect_answers_in_json_and_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = write_toy(tmp_path / "toy.onnx")
    assert main(["inspect", str(toy), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["operators"] == {"Cast": 6, "Add": 5, "Mul": 2, "ReduceMax": 2}
    assert printed.err == ""
    assert main(["inspect", str(toy)]) == 0
    text = capsys.readouterr().out
    assert "sound: as it was written" in text
    assert text.splitlines()[-1] == f"next: edgemask predict {toy} IMAGE -o DIR"


def test_inspect_fails_for_a_changed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = write_toy(tmp_path / "toy.onnx")
    toy.write_bytes(toy.read_bytes().replace(b"stage/largest", b"stage/LARGEST"))
    assert main(["inspect", str(toy)]) == 1
    assert "changed or cut" in capsys.readouterr().out


def test_scenes_are_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgemask.datasets import CocoDataset, read_annotations

    assert main(["scenes", str(tmp_path), "--count", "2", "--seed", "5", "--size", "64", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["count"], record["seed"], record["size"]) == (2, 5, 64)
    assert len(CocoDataset(record["images"], read_annotations(record["annotations"]))) == 2


def test_values_of_options() -> None:
    assert read_shape("800X1088") == (800, 1088)
    assert read_shape("dynamic") == "dynamic"
    assert (read_batch("4"), read_batch("dynamic")) == (4, "dynamic")
    for text in ("", "0x32", "32x", "-32x32", "32x32x3", "1e3x32"):
        with pytest.raises(UsageError):
            read_shape(text)


def test_class_names_come_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffcat\r\nbig dog\r\n\r\n".encode())
    assert read_classes(path) == ["cat", "big dog"]
    path.write_text("cat\n\ndog\n")
    with pytest.raises(UsageError, match="no class name in line 2"):
        read_classes(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_classes(path)
    path.write_text("")
    with pytest.raises(UsageError, match="line 1"):
        read_classes(path)


def test_canvas_for_an_image_is_the_resized_size_rounded_up() -> None:
    spec = ModelSpec(class_names=("dot",), min_size=800, max_size=1333)
    assert canvas_for((480, 640), spec) == (800, 1088)
    assert canvas_for((640, 480), spec) == (1088, 800)
