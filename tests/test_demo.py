import json
from pathlib import Path

import numpy as np
import pytest
from narrow import ARGUMENTS, narrow
from PIL import Image

from edgemask.checkpoints import save_checkpoint
from edgemask.cli import main
from edgemask.demo import SCENE_SEED, fresh_scenes, run_demo
from edgemask.description import spec_of
from edgemask.errors import ModelFileError, UsageError
from edgemask.scenes import CLASS_NAMES, draw_scene

PACKAGED = Path(__file__).resolve().parents[1] / "edgemask" / "assets" / "sample.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model of random weights, in the classes of the scenes."""
    path = tmp_path / "narrow.safetensors"
    model = narrow(6, box_detections_per_img=10)
    arguments = ARGUMENTS | {"box_detections_per_img": 10}
    spec = spec_of(model, class_names=CLASS_NAMES, builder="maskrcnn_compact_fpn", builder_arguments=arguments)
    save_checkpoint(path, model, spec)
    return path


def test_scenes_differ_in_shape_and_the_last_is_empty() -> None:
    pictures = fresh_scenes(4)
    assert len({picture.shape for picture in pictures}) > 1
    assert all(picture.dtype == np.uint8 and picture.flags.c_contiguous for picture in pictures)
    assert np.array_equal(pictures[3], draw_scene(3, seed=SCENE_SEED, objects=0).image)


@pytest.mark.slow
@pytest.mark.openvino
def test_the_demo_leaves_a_model_pictures_and_a_summary(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "demo"
    left = folder / "pictures" / "scene-77.png"  # of an earlier demo with more images
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    report = run_demo(folder, images=3, checkpoint=checkpoint, say=said.append)
    assert len(said) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "pictures",
        "sample.onnx",
        "sample.safetensors",
        "scenes",
        "summary.json",
    ]
    assert sorted(path.name for path in (folder / "scenes").iterdir()) == [f"scene-0{index}.png" for index in range(3)]
    assert sorted(map(str, (folder / "pictures").iterdir())) == list(report.pictures)
    with Image.open(report.pictures[0]) as sheet:
        assert sheet.width > 3 * 320
    summary = json.loads((folder / "summary.json").read_text())
    assert [runtime["device"] for runtime in summary["runtimes"]] == ["cpu", "openvino:CPU"]
    assert summary["passed"] is report.passed
    assert all(runtime["parity"]["images"] == 3 for runtime in summary["runtimes"])
    assert summary["milliseconds"] > 0
    assert main(["inspect", summary["model"]]) == 0


@pytest.mark.soak  # `.ci/run` calls `make demo` too
@pytest.mark.openvino
@pytest.mark.skipif(not PACKAGED.is_file(), reason="the sample model is not trained yet")
def test_the_sample_model_is_equal_on_every_runtime(tmp_path: Path) -> None:
    assert main(["demo", "-o", str(tmp_path), "--images", "6"]) == 0


def test_what_a_demo_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no checkpoint"):
        run_demo(tmp_path, checkpoint=tmp_path / "missing.safetensors")
    with pytest.raises(UsageError, match="1 images are too few"):
        run_demo(tmp_path, images=1)
