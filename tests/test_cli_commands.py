"""`edgemask export`: the exporter itself is tested in tests/export."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_model import SPEC

from edgemask.cli import main


def test_export_passes_its_options_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgemask.checkpoints
    import edgemask.export

    calls: list[Any] = []

    def load_model(source: str, **options: Any) -> tuple[str, Any]:
        calls.append((source, options))
        return "the model", SPEC

    def export_onnx(model: str, path: Path, **options: Any) -> Any:
        calls.append((model, path, options))
        return edgemask.export.ExportReport(str(path), SPEC, 12, 34_000, 5.6, None)

    monkeypatch.setattr(edgemask.checkpoints, "load_model", load_model)
    monkeypatch.setattr(edgemask.export, "export_onnx", export_onnx)
    (tmp_path / "classes.txt").write_text("dot\nline\n")
    words = ["export", "package.module:make", "-o", str(tmp_path / "m.onnx"), "--weights", "w.pth"]
    words += ["--classes", str(tmp_path / "classes.txt"), "--for-image", "48x100", "--batch", "dynamic", "--no-verify"]
    words += ["--precision", "fp16"]
    assert main([*words, "--target", "openvino", "--proposals", "50", "--score-threshold", "0.3"]) == 0
    source, options = calls[0]
    assert source == "package.module:make"
    assert options == {"weights": "w.pth", "class_names": ["dot", "line"], "num_classes": None}
    assert calls[1][:2] == ("the model", tmp_path / "m.onnx")
    assert calls[1][2] == {
        "shape": (64, 128),
        "precision": "fp16",
        "batch": "dynamic",
        "spec": SPEC,
        "target": "openvino",
        "proposals": 50,
        "max_detections": None,
        "score_threshold": 0.3,
        "verify": False,
    }
    shown = capsys.readouterr().out
    assert "0.0 MB, 12 nodes" in shown
    assert "--reference package.module:make" in shown


@pytest.mark.slow
def test_export_prints_one_json_object_and_nothing_else(tmp_path: Path, repository: Path) -> None:
    """The real exporter, whose libraries like to print."""
    from narrow import ARGUMENTS, narrow

    from edgemask.checkpoints import save_checkpoint
    from edgemask.description import spec_of

    model = narrow()
    spec = spec_of(model, builder="maskrcnn_compact_fpn", builder_arguments=ARGUMENTS)
    save_checkpoint(tmp_path / "narrow.safetensors", model, spec)
    output = tmp_path / "narrow.onnx"
    command = [sys.executable, "-m", "edgemask", "export", str(tmp_path / "narrow.safetensors"), "-o", str(output)]
    command += ["--shape", "64x96", "--no-verify", "--json"]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["path"] == str(output)
    assert record["spec"]["canvas"] == [64, 96]
    assert record["bytes"] == output.stat().st_size
