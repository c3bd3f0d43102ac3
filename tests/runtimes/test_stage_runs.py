"""Whatever the layout of a file, its stages can be fed with the record of one image."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from narrow import narrow_c4
from numpy.typing import NDArray
from torchvision.models.detection import MaskRCNN

from edgemask.divergence import compare_stages
from edgemask.export import export_onnx
from edgemask.reference import ReferenceDetector
from edgemask.reference_stages import record_stages
from edgemask.runtimes import ModelFile, read_model, stage_runs, write_model
from edgemask.runtimes.cuts import cut, produced
from edgemask.runtimes.stage_runs import stages_of_file
from edgemask.scenes import draw_scene

CASES: dict[str, dict[str, Any]] = {
    "padded, batch of 2": {"target": "tensorrt", "batch": 2},
    "any batch, proposals given": {"batch": "dynamic", "proposals": "input"},
}
DEVICES = ["cpu", pytest.param("openvino:CPU", marks=pytest.mark.openvino)]
PIXELS = draw_scene(3, size=120).image
Case = tuple[MaskRCNN, ModelFile]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model, path = narrow_c4(2), tmp_path_factory.mktemp("layouts") / "m.onnx"
    export_onnx(model, path, shape=(96, 96), verify=False, **CASES[request.param])
    return model, read_model(path)


def given(case: Case) -> tuple[ReferenceDetector, NDArray[np.float32] | None]:
    """The reference, and proposals where the file takes them."""
    reference = ReferenceDetector(case[0], case[1].spec)
    return reference, reference.propose(PIXELS) if case[1].spec.proposals == "input" else None


@pytest.mark.parametrize("device", DEVICES)
def test_every_layout(case: Case, device: str) -> None:
    reference, proposals = given(case)
    record = record_stages(reference, PIXELS, proposals=proposals)
    checks = compare_stages(case[1], device, PIXELS, record)
    assert [check for check in checks if not check.passed] == []
    stages = {check.stage for check in checks}
    assert stages >= {"stage/resize", "backbone.1", "proposals", "box_head", "nms", "mask_head", "detections", "paste"}
    assert len(record["boxes"]) > 10
    own = stages_of_file(case[1], device, PIXELS, proposals=proposals)
    assert {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in record.items()}
    assert not own["proposals"][:, 0].any()


def test_what_mixes_images_up_shows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last copy of a batch is compared: what the graph says of others is not taken for it."""
    reference, proposals = given(case)
    record = record_stages(reference, PIXELS, proposals=proposals)
    run = stage_runs._run

    def confused(*arguments: Any) -> dict[str, NDArray[Any]]:
        outputs = run(*arguments)
        if "boxes" in outputs:
            outputs["boxes"][-1] = 0
        return outputs

    monkeypatch.setattr(stage_runs, "_run", confused)
    checks = compare_stages(case[1], "cpu", PIXELS, record)
    assert [check.stage for check in checks if not check.passed] == ["nms"]


@pytest.mark.parametrize("case", ["any batch, proposals given"], indirect=True)
def test_wrong_proposals_of_the_caller_are_named(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, proposals = given(case)
    record = record_stages(reference, PIXELS, proposals=proposals)
    monkeypatch.setattr(stage_runs, "rois_of", lambda boxes, *_: np.pad(boxes[0], ((0, 0), (1, 0))))
    checks = compare_stages(case[1], "cpu", PIXELS, record)
    assert [check.stage for check in checks if not check.passed] == ["proposals"], "left in pixels of the image"


def test_a_part_is_open_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, proposals = given(case)
    opened, parts = [], []
    open_runtime = stage_runs.open_runtime

    def counted(part: ModelFile, device: str) -> Any:
        assert opened == [], "the one before was closed"
        runtime, refusals = open_runtime(part, device)
        opened.append(runtime)
        parts.append([output.name for output in part.proto.graph.output])
        monkeypatch.setattr(runtime, "close", opened.clear)
        return runtime, refusals

    monkeypatch.setattr(stage_runs, "open_runtime", counted)
    compare_stages(case[1], "cpu", PIXELS, record_stages(reference, PIXELS, proposals=proposals))
    assert parts[0] == ["stage/resize"]
    assert parts[-1] == ["mask_head", "masks"]
    assert opened == []


def nameless(file: ModelFile, path: Path) -> ModelFile:
    """As version 0.1.0 wrote it: what the branches take of the detections has no name of a stage."""
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("nms.", "nms/") if name.startswith("nms.") else name for name in names]
    del proto.graph.value_info[:]
    write_model(proto, file.spec, path)
    return read_model(path)


def test_an_older_file(case: Case, tmp_path: Path) -> None:
    reference, proposals = given(case)
    older = nameless(case[1], tmp_path / "m.onnx")
    assert "nms.rois" in produced(case[1]) - produced(older)
    record = record_stages(reference, PIXELS, proposals=proposals)
    checks = compare_stages(older, "cpu", PIXELS, record)
    assert [check.stage for check in checks if not check.passed] == []
    assert {"mask_head", "masks"} <= {check.stage for check in checks}


def test_branches_are_cut_from_the_detections(case: Case) -> None:
    """A fault of the choice of detections must not reach them."""
    record = [f"backbone.{level}" for level in range(2)]
    part = cut(case[1], ["mask_head"], [*record, "nms.rois", "nms.labels", "labels"])
    labels = "given/labels" if case[1].spec.outputs == "flat" else "given/nms.labels"
    assert {value.name for value in part.proto.graph.input} == {
        "given/nms.rois",
        labels,
        "given/backbone.0",
        "given/backbone.1",
    }
