"""From model files, references of every kind and images to a verdict."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coloured import SPEC, write_folder
from toy_model import write_toy

from edgemask.errors import DatasetError, DependencyMissing, ImageError, ModelFileError, UsageError
from edgemask.runs import StoredRun, file_digest
from edgemask.runtimes import read_model, write_model
from edgemask.validation import ValidationReport, validate

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A model file that finds the same two objects on every image."""
    return write_toy(tmp_path / "toy.onnx")


def only(validation: Any) -> ValidationReport:
    (report,) = validation.reports
    assert isinstance(report, ValidationReport)
    return report


def compact_model(**settings: Any) -> Any:
    torch = pytest.importorskip("torch")
    from edgemask.models import build

    torch.manual_seed(0)
    small = {"widths": (8, 16, 16, 16), "pyramid_channels": 16, "head_width": 16, "min_size": 64, "max_size": 128}
    return build("maskrcnn_compact_fpn", 4, **(small | settings))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A narrow model with random weights, as an ONNX file and as it is."""
    export_onnx = pytest.importorskip("edgemask.export").export_onnx
    model = compact_model()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    names = {"class_names": SPEC.class_names, "category_ids": SPEC.category_ids}
    export_onnx(model, path, shape=(128, 128), verify=False, **names)
    return path, model


@pytest.mark.slow
def test_from_file_to_verdict(folder: Path, exported: tuple[Path, Any], tmp_path: Path) -> None:
    """A live model as the reference; then the run that it left, without PyTorch, on the other runtime too."""
    path, model = exported
    run = tmp_path / "run.npz"
    options = {"annotations": folder / "annotations.json"}
    report = only(validate(path, model, folder / "images", device="cpu", save_run=run, **options))
    assert report.parity.passed, report.failures
    assert report.parity.matched > 100
    assert report.coco is not None
    boxes = report.coco.tasks["boxes"]
    assert boxes.candidate.ap == pytest.approx(boxes.reference.ap, abs=1e-3)
    assert (report.model.device, report.reference.device, report.notes) == ("cpu", "torch", ())
    assert report.reference.name == "the MaskRCNN given"
    assert len(report.op_tests) == 4
    assert all(test.passed for test in report.op_tests)
    assert report.stages is not None
    assert report.stages.first is None
    assert report.stages.image == "0.png"

    again = validate(path, run, folder / "images", device=["cpu", "openvino:CPU"], **options)
    on_cpu, on_openvino = again.reports
    assert on_cpu.values[:6] == report.values[:6]
    assert on_cpu.stages is not None
    assert on_cpu.stages.checks == report.stages.checks
    assert on_cpu.reference.kind == "run"
    assert "stored run of the MaskRCNN given on torch" in on_cpu.notes[0]
    assert np.isnan(on_cpu.latency.ratio)
    assert on_openvino.parity.passed, on_openvino.failures
    assert on_openvino.stages is not None
    assert on_openvino.stages.first is None


@pytest.mark.slow
def test_other_weights_fail_and_the_stage_is_named(folder: Path, exported: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    path, _ = exported
    other = compact_model()
    with torch.no_grad():
        other.roi_heads.box_predictor.cls_score.bias += torch.tensor([0, 3.0, 0, 0])
    report = only(validate(path, other, folder / "images", device="cpu", limit=2))
    assert not report.passed
    assert report.notes == ("the reference has other weights than those that the model was exported from",)
    assert report.culprit == "box_head"
    assert report.verdict == "FAILED, first at the stage box_head"


def test_another_file_as_reference(folder: Path, toy: Path) -> None:
    report = only(validate(toy, toy, folder / "images", device="cpu", limit=2))
    assert report.passed
    assert report.parity.images == 2
    assert (report.reference.kind, report.reference.device) == ("onnx", "cpu")
    itself, untested = report.notes
    assert itself.startswith("the reference is the model file itself")
    assert untested.startswith("the custom ops were not tested alone")
    assert report.stages is None
    assert report.model.bytes == toy.stat().st_size


def test_a_reference_that_finds_something_else(folder: Path, toy: Path) -> None:
    other = write_toy(folder / "other.onnx", scores=(0.9, 0.3))
    report = only(validate(toy, other, folder / "images", device="cpu"))
    assert report.failures == ("matched share 50 % is below 99.9 %",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"class_names": ("line", "dot")}, "the model's class_names of label 1, 'dot', got 'line'"),
        ({"category_ids": (9, 7)}, "the model's category_ids of label 1, 7, got 9"),
        ({"score_threshold": 0.5}, "the model's score_threshold, 0.05, got 0.5"),
        ({"max_detections": 1}, "the model's max_detections, 100, got 1"),
    ],
)
def test_a_reference_whose_results_mean_something_else(
    folder: Path, toy: Path, changes: dict[str, Any], problem: str
) -> None:
    file, other = read_model(toy), folder / "other.onnx"
    write_model(file.proto, file.spec.replace(**changes), other)
    with pytest.raises(UsageError, match=problem):
        validate(toy, other, folder / "images", device="cpu")


def test_what_keeps_stages_from_being_compared_keeps_no_verdict_back(
    folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, *rest: Any) -> Any:
        raise ModelFileError("the graph computes no stage/resize", None)

    monkeypatch.setattr("edgemask.validation.sides.FileSide.stages", failing)
    report = only(validate(toy, toy, folder / "images", device="cpu"))
    assert report.passed
    assert report.notes[-1] == "the stages were not compared: the graph computes no stage/resize"


@pytest.mark.openvino
def test_several_devices_share_one_run_of_the_reference(folder: Path, toy: Path) -> None:
    validation = validate(toy, toy, folder / "images", device=["cpu", "openvino:CPU", "cpu"])
    assert [report.model.device for report in validation.reports] == ["cpu", "openvino:CPU"]
    assert validation.passed
    one, other = (report.latency.reference_median for report in validation.reports)
    assert one == other


def test_a_stored_run_knows_its_images(folder: Path, toy: Path) -> None:
    run = folder / "run.npz"
    validate(toy, toy, folder / "images", device="cpu", save_run=run, limit=3)
    with StoredRun.open(run) as stored:
        assert list(stored.names) == ["0.png", "1.png", "2.png"]
        assert stored.facts.name == "toy.onnx"
    assert only(validate(toy, run, folder / "images", device="cpu", limit=3)).passed
    with pytest.raises(DatasetError, match=r"3\.png"):
        validate(toy, run, folder / "images", device="cpu")
    (folder / "images" / "0.png").write_bytes((folder / "images" / "4.png").read_bytes())
    with pytest.raises(DatasetError, match=r"0\.png"):
        validate(toy, run, folder / "images", device="cpu", limit=3)
    with pytest.raises(UsageError, match="stored run already"):
        validate(toy, run, folder / "images", device="cpu", limit=1, save_run=folder / "copy.npz")


def test_an_interrupted_run_goes_on(folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemask.validation.sides import LiveSide

    seen: list[str] = []
    look = LiveSide.look

    def stopping(self: LiveSide, image: Any, *rest: Any) -> Any:
        if len(seen) == 5:
            raise ImageError("the power went", None)
        seen.append(image.name)
        return look(self, image, *rest)

    monkeypatch.setattr(LiveSide, "look", stopping)
    journal = folder / "partial"
    with pytest.raises(ImageError, match="the power went"):
        validate(toy, toy, folder / "images", device="cpu", journal=journal)
    assert seen == ["0.png", "0.png", "1.png", "1.png", "2.png"]
    monkeypatch.setattr(
        LiveSide, "look", lambda self, image, *rest: seen.append(image.name) or look(self, image, *rest)
    )
    resumed = only(validate(toy, toy, folder / "images", device="cpu", journal=journal, resume=True))
    assert seen[5:] == ["2.png", "3.png", "3.png", "4.png", "4.png"]
    assert resumed.images.resumed == 2
    assert resumed.parity.images == 5
    assert resumed.passed
    assert not journal.exists()
    assert only(validate(toy, toy, folder / "images", device="cpu", journal=journal)).images.resumed == 0
    assert len(seen) == 20


def test_a_resumed_run_that_is_to_be_stored_gets_its_stages(
    folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, run = folder / "partial", folder / "run.npz"
    monkeypatch.setattr("edgemask.validation.journals.Journals.remove", lambda self: None)
    validate(toy, toy, folder / "images", device="cpu", journal=journal)
    stages = {"box_head": np.ones((1, 2), np.float32)}
    monkeypatch.setattr("edgemask.validation.sides.FileSide.stages", lambda self, *rest: stages)
    again = validate(toy, toy, folder / "images", device="cpu", journal=journal, resume=True, save_run=run)
    (note,) = [note for note in only(again).notes if "stages" in note]
    assert note.startswith(
        "the stages were not compared: record: expected stage/resize among its tensors, got box_head"
    )
    with StoredRun.open(run) as stored:
        entries = [stored.get(f"{index}.png", file_digest(folder / "images" / f"{index}.png")) for index in range(5)]
    assert [entry.stages is not None for entry in entries] == [True, False, False, False, False]


def test_another_model_does_not_go_on_with_a_run(folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemask.validation.sides import LiveSide

    def failing(self: LiveSide, image: Any, *rest: Any) -> Any:
        raise ImageError("the power went", None)

    journal = folder / "partial"
    with monkeypatch.context() as patch:
        patch.setattr(LiveSide, "look", failing)
        with pytest.raises(ImageError):
            validate(toy, toy, folder / "images", device="cpu", journal=journal)
    other = write_toy(folder / "other.onnx", scores=(0.9, 0.3))
    with pytest.raises(UsageError, match=r"other\.onnx|sha256"):
        validate(toy, other, folder / "images", device="cpu", journal=journal, resume=True)
    assert not only(validate(toy, other, folder / "images", device="cpu", journal=journal)).passed
    with pytest.raises(UsageError, match="no journal to resume"):
        validate(toy, toy, folder / "images", device="cpu", resume=True)


def test_bad_images_stop_before_any_work(folder: Path, toy: Path) -> None:
    (folder / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"1 of 5 images cannot be used: 2\.png"):
        validate(toy, toy, folder / "images", device="cpu")
    report = only(validate(toy, toy, folder / "images", device="cpu", skip_bad_images=True))
    assert report.passed
    assert [name for name, _ in report.images.unreadable] == ["2.png"]
    assert (report.images.chosen, report.images.compared) == (5, 4)


def test_annotations_of_other_classes_are_refused_before_any_image_is_run(folder: Path, toy: Path) -> None:
    with pytest.raises(DatasetError, match="the annotations have the category 3 'red'"):
        validate(toy, toy, folder / "images", annotations=folder / "annotations.json", device="cpu")


def test_without_pytorch_other_references_are_offered(folder: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder / "run.npz"
    validate(toy, toy, folder / "images", device="cpu", save_run=run)
    monkeypatch.delitem(sys.modules, "edgemask.checkpoints", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DependencyMissing, match="another ONNX file or a stored run"):
        validate(toy, "trained.safetensors", folder / "images", device="cpu")
    assert validate(toy, toy, folder / "images", device="cpu").passed
    assert validate(toy, run, folder / "images", device="cpu").passed


def test_references_that_cannot_be_meant(folder: Path, toy: Path) -> None:
    torch = pytest.importorskip("torch")
    path, images = toy, folder / "images"
    with pytest.raises(UsageError, match="no file and no builder"):
        validate(path, "nothing", images, device="cpu")
    for name in ("absent.safetensors", "absent.onnx"):
        with pytest.raises(ModelFileError, match=name):
            validate(path, folder / name, images, device="cpu")
    with pytest.raises((ModelFileError, DatasetError, UsageError), match=r"absent\.npz"):
        validate(path, folder / "absent.npz", images, device="cpu")
    with pytest.raises(UsageError, match="expected a path, a name or a torchvision model, got Linear"):
        validate(path, torch.nn.Linear(1, 1), images, device="cpu")
    from edgemask.models import build

    with pytest.raises(UsageError, match="expected the model's number of classes, 2, got 1"):
        validate(path, build("maskrcnn_compact_fpn", 2, widths=(8, 8, 8, 8)), images, device="cpu")
