"""What `edgemask validate` is for: each fault makes it fail, and it names the stage; without a fault it passes."""

import json
from pathlib import Path

import pytest
from PIL import Image
from seeded_faults import FAULTS, model

from edgemask.cli import main
from edgemask.export import export_onnx
from edgemask.scenes import CLASS_NAMES, draw_scene

pytestmark = pytest.mark.slow
SIZES = (256, 230)  # both are made smaller, so that the resize matters


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without a fault, beside images that were not seen in training."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "images").mkdir()
    for index, size in enumerate(SIZES):
        picture = draw_scene(index, seed=41, size=size, objects=6).image[: size - 40 * index]
        Image.fromarray(picture).save(folder / "images" / f"{index}.png")
    export_onnx(model(), folder / "m.onnx", shape=(160, 192), class_names=CLASS_NAMES, verify=False)
    return folder


def validated(path: Path, images: Path, device: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    words = ["--reference", "seeded_faults:model", "--images", str(images), "--device", device, "--json"]
    code = main(["validate", str(path), *words])
    printed = capsys.readouterr()
    assert printed.out, printed.err
    (report,) = json.loads(printed.out)["reports"]
    return code, report


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)])
def test_without_a_fault(sound: Path, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = validated(sound / "m.onnx", sound / "images", device, capsys)
    assert (code, report["culprit"], report["failures"]) == (0, None, [])
    assert report["parity"]["matched"] >= 8
    assert [check["stage"] for check in report["stages"]["checks"] if not check["passed"]] == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault(sound: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault = FAULTS[name]
    with fault.within(sound / "m.onnx", tmp_path / "m.onnx") as path:
        code, report = validated(path, sound / "images", "cpu", capsys)
    assert (code, report["culprit"]) == (1, fault.stage), report["failures"]
    assert report["verdict"] == f"FAILED, first at the stage {fault.stage}"
