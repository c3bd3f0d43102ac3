"""A slip of the pen is answered with the name that was meant; a name far from all is not."""

from pathlib import Path

import pytest
from toy_model import write_toy

from edgemask.checks import did_you_mean
from edgemask.cli import main
from edgemask.errors import UsageError
from edgemask.files import remedy_for_path
from edgemask.models import build

EXPORT = ["export", "-o", "m.onnx"]
QUANTIZE = ["quantize", "toy.onnx", "-o", "q.onnx", "--calibration", "."]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path / "toy.onnx")
    (tmp_path / "model.safetensors").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["exprot"], "Did you mean 'export'?"),
        ([*EXPORT, "m", "--weigths", "f"], "--weights"),
        ([*EXPORT, "maskrcnn_resnet50_fp"], "did you mean maskrcnn_resnet50_fpn?"),
        ([*EXPORT, "MaskRCNN_ResNet50_FPN"], "did you mean maskrcnn_resnet50_fpn?"),
        ([*EXPORT, "maskrcnn_resnet50_fpn", "--weights", "COCO_V2"], "give a file, or COCO_V1"),
        ([*EXPORT, "modle.safetensors"], "did you mean model.safetensors?"),
        (["inspect", "toi.onnx"], "did you mean toy.onnx?"),
        (["inspect", "toy.onnx", "--target", "tensort"], "did you mean tensorrt?"),
        (["inspect", "toy.onnx", "--device", "openvin"], "did you mean openvino?"),
        (["inspect", "toy.onnx", "--device", "openvino:cpu"], "did you mean openvino:CPU?"),
        (["inspect", "toy.onnx", "--device", "cpu", "--option", "thread=2"], "did you mean threads?"),
        (["bench", "toy.onnx", "--device", "cdua"], "did you mean cuda?"),
        (["bench", "toy.onnx", "--device", "cpu", "--against", "eagre"], "did you mean eager?"),
        (["doctor", "--device", "tensort"], "did you mean tensorrt?"),
        ([*QUANTIZE, "--recipe", "minmx"], "did you mean minmax?"),
    ],
)
def test_the_name_that_was_meant(arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["zzz"], "No such command 'zzz'."),
        ([*EXPORT, "m", "--zzzzzz", "f"], "No such option: --zzzzzz"),
        ([*EXPORT, "yolo"], "or one of: deeplabv3"),
        (["inspect", "zzz.bin"], "check the path"),
        (["inspect", "toy.onnx", "--target", "ncnn"], "expected tensorrt"),
        (["inspect", "toy.onnx", "--device", "gpu"], "the devices are: auto, cuda, openvino:GPU"),
        (["inspect", "toy.onnx", "--device", "cpu", "--option", "zzz=2"], "have a dot"),
        (["bench", "toy.onnx", "--device", "cpu", "--against", "zzz"], "choose from: eager"),
        ([*QUANTIZE, "--recipe", "zzz"], "the recipes are default"),
    ],
)
def test_of_a_name_far_from_all_what_there_is(
    arguments: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert instead in printed
    assert "did you mean" not in printed.lower()
    assert "Possible options" not in printed


def test_builders_and_their_arguments() -> None:
    with pytest.raises(UsageError, match=r"did you mean fcn_resnet50\?"):
        build("fcn_resnet5", 2)
    with pytest.raises(UsageError, match=r"no argument min_sise\ndid you mean min_size\?"):
        build("maskrcnn_resnet50_fpn", 2, min_sise=3)
    with pytest.raises(UsageError, match=r"it takes: "):
        build("maskrcnn_resnet50_fpn", 2, zzzzz=3)


def test_close_is_what_shares_most_letters() -> None:
    assert did_you_mean("cdua", ["cpu", "cuda"], "no") == "did you mean cuda?"
    assert did_you_mean("gpu", ["cpu", "cuda"], "no") == "no"
    assert did_you_mean("CPU", ["cpu", "cuda"], "no") == "did you mean cpu?"
    assert did_you_mean("", ["cpu"], "no") == did_you_mean("cpu", [], "no") == "no"
    assert did_you_mean("x" * 10**6, ["x" * 100], "no") == "no"  # not a matter of minutes


def test_a_path_that_is_there_is_not_mistaken_for_another(folder: Path) -> None:
    (folder / "toy2.onnx").touch()
    assert remedy_for_path(folder / "toy2.onnx") == "check the path"
    assert remedy_for_path(folder / "toy3.onnx").startswith("did you mean toy")
    assert remedy_for_path(folder / "absent" / "toy.onnx") == "check the path"
