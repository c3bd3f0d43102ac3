"""Real photographs: the model trained on nuclei does on both runtimes what it does in PyTorch."""

from pathlib import Path

import pytest
from known_times import size_decides

from edgemask.checkpoints import load_checkpoint
from edgemask.export import export_onnx
from edgemask.quantization import quantize, search_laboratory
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


@pytest.mark.data
@pytest.mark.openvino
def test_int8_keeps_its_accuracy(
    exported: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_laboratory, "compare_latency", size_decides)
    nuclei, int8 = shared_data / "nuclei", tmp_path / "int8.onnx"
    report = quantize(
        exported,
        int8,
        sorted((nuclei / "train").iterdir())[:8],
        images=nuclei / "val",
        annotations=nuclei / "annotations" / "instances_val.json",
        max_drop=0.02,  # of six images; of all 80 it gains 0.2 % of AP
        limit=6,
    )
    report.raise_for_failure()
    assert len(report.search.trials) == 1, "all layers at once, none left out"
    assert [compared.device for compared in report.search.latency] == ["cpu", "openvino:CPU"]
    assert int8.stat().st_size <= 0.31 * exported.stat().st_size
