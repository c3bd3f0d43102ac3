"""Real photographs: the model trained on nuclei does on both runtimes what it does in PyTorch."""

from pathlib import Path

import pytest

from edgemask.checkpoints import load_checkpoint
from edgemask.export import export_onnx
from edgemask.validation import validate

CHECKPOINT = Path(__file__).resolve().parents[1] / "samples" / "nuclei.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, spec = load_checkpoint(CHECKPOINT)
    path = tmp_path_factory.mktemp("nuclei") / "nuclei.onnx"
    export_onnx(model, path, spec=spec, verify=False)
    return path


@pytest.mark.data
@pytest.mark.parametrize("device", ["cpu", "openvino:CPU"])
def test_parity_on_microscope_images(exported: Path, shared_data: Path, device: str) -> None:
    nuclei = shared_data / "nuclei"
    validation = validate(
        exported,
        str(CHECKPOINT),
        nuclei / "val",
        annotations=nuclei / "annotations" / "instances_val.json",
        device=device,
        limit=6,
    )
    validation.raise_for_failure()
    (report,) = validation.reports
    assert report.parity.reference > 100
    assert report.coco is not None
    assert report.coco.tasks["masks"].candidate.ap50 > 0.5
    assert report.stages is not None
    assert report.stages.first is None
