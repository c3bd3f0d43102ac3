"""What is kept of a model's accuracy, with models that find two boxes on every picture."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from pictures import smooth, written
from PIL import Image
from toy_model import SPEC, toy_proto

from edgemask.errors import DatasetError, UsageError
from edgemask.masks import bitmap_to_rle
from edgemask.quantization.accuracy import Accuracy, Judge, Kept, open_judge
from edgemask.runtimes import ModelFile, read_model, write_model
from edgemask.validation.sides import LiveSide

SIDE = 64  # pixels of the pictures, and of the canvas
BOXES = ((4, 4, 28, 60), (36, 4, 60, 60))  # where the model finds a dot and a line
Open = Callable[..., Judge]


def model_of(path: Path, precision: str = "int8", **values: Any) -> ModelFile:
    """The toy, with other values as its results."""
    proto = toy_proto()
    for tensor in proto.graph.initializer:
        if tensor.name.removesuffix("/value") in values:
            before = numpy_helper.to_array(tensor)
            after = np.array(values[tensor.name.removesuffix("/value")], before.dtype)
            tensor.CopyFrom(numpy_helper.from_array(np.broadcast_to(after, before.shape).copy(), tensor.name))
    write_model(proto, SPEC.replace(precision=precision), path)
    return read_model(path)


def annotated(folder: Path, *, objects: bool = True) -> Path:
    """Three pictures, each with a dot and a line where the model finds them."""
    written(folder / "images", [smooth(seed, (SIDE, SIDE)) for seed in range(3)])
    entries = []
    for image in range(3) if objects else ():
        for label, (left, top, right, bottom) in enumerate(BOXES):
            bitmap: NDArray[np.bool_] = np.zeros((SIDE, SIDE), bool)
            bitmap[top:bottom, left:right] = True
            entries.append(
                {
                    "id": len(entries),
                    "image_id": image,
                    "category_id": SPEC.category_ids[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": bitmap_to_rle(bitmap),
                }
            )
    document = {
        "images": [{"id": n, "file_name": f"{n:03}.png", "height": SIDE, "width": SIDE} for n in range(3)],
        "categories": [{"id": i, "name": n} for i, n in zip(SPEC.category_ids, SPEC.class_names, strict=True)],
        "annotations": entries,
    }
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens judges of the toy on annotated pictures."""
    annotated(tmp_path)
    with contextlib.ExitStack() as stack:

        def open_(**more: Any) -> Judge:
            options = {"annotations": tmp_path / "annotations.json", "devices": ["cpu"], "stack": stack}
            fp32 = model_of(tmp_path / "fp32.onnx", "fp32")
            return open_judge(fp32, more.pop("images", tmp_path / "images"), **options | more)

        yield open_


def test_the_same_model_keeps_everything(opened: Open, tmp_path: Path) -> None:
    accuracy = opened(devices=["cpu", "openvino:CPU"]).measure(model_of(tmp_path / "q.onnx"))
    assert accuracy.passed
    assert [(kept.device, kept.what) for kept in accuracy.kept] == [
        ("cpu", "box AP"),
        ("cpu", "mask AP"),
        ("openvino:CPU", "box AP"),
        ("openvino:CPU", "mask AP"),
    ]
    assert all(kept.reference == kept.own > 0.5 for kept in accuracy.kept)
    assert (accuracy.lost, accuracy.damage) == (0, 0)


def test_a_lost_class_and_a_collapsed_mask_head_fail(opened: Open, tmp_path: Path) -> None:
    judge = opened()
    lossy = judge.measure(model_of(tmp_path / "lossy.onnx", labels=1))
    assert not lossy.passed
    assert lossy.kept[0].lost == pytest.approx(0.5, abs=0.01)
    assert lossy.damage == pytest.approx(50, abs=1)
    assert lossy.failures[0].startswith("cpu: box AP drop")
    collapsed = judge.measure(model_of(tmp_path / "collapsed.onnx", masks=0.1))
    assert [kept.lost for kept in collapsed.kept] == [0, 1]
    assert collapsed.lost == 1
    assert collapsed.damage == pytest.approx(100)


def test_the_budget(opened: Open, tmp_path: Path) -> None:
    """Masks that fill nearly all of the box: mask AP alone is lower."""
    masks = np.full((2, 4, 4), 0.9)
    masks[:, 3] = 0.4
    candidate = model_of(tmp_path / "q.onnx", masks=masks)
    lost = opened().measure(candidate).lost
    assert 0.02 < lost < 0.9
    wide, narrow = (opened(max_drop=lost + more).measure(candidate) for more in (0.001, -0.001))
    assert (wide.passed, narrow.passed) == (True, False)
    assert wide.damage <= 1 < narrow.damage
    assert {kept.allowed for kept in wide.kept} == {lost + 0.001}
    exact = opened(max_drop=0.0)
    assert exact.measure(model_of(tmp_path / "same.onnx")).passed
    assert not exact.measure(candidate).passed


def test_without_annotations_the_detections_have_to_agree(opened: Open, tmp_path: Path) -> None:
    judge = opened(annotations=None)
    same = judge.measure(model_of(tmp_path / "same.onnx"))
    assert [(kept.what, kept.own) for kept in same.kept] == [("matched share", 1), ("mean mask IoU", 1)]
    assert [kept.allowed for kept in same.kept] == pytest.approx([0.03, 0.05])
    assert same.passed
    lossy = judge.measure(model_of(tmp_path / "lossy.onnx", labels=1))
    assert lossy.kept[0].lost == pytest.approx(0.5)
    assert lossy.damage == pytest.approx(0.5 / 0.03)
    assert not lossy.passed
    # No detection is matched, so that there is no mask to compare: that is no reason to be content.
    none = judge.measure(model_of(tmp_path / "none.onnx", labels=[2, 1]))
    assert math.isnan(none.kept[1].own)
    assert none.damage >= 1000
    assert not none.passed


def test_a_model_that_gives_no_result(opened: Open, tmp_path: Path) -> None:
    broken = opened().measure(model_of(tmp_path / "nan.onnx", scores=np.nan))
    assert (broken.broken, broken.passed) == (3, False)
    assert broken.damage >= 1000


def test_the_reference_looks_once(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = LiveSide.look

    def counted(self: LiveSide, *arguments: Any) -> Any:
        looks.append(self.spec.precision)
        return look(self, *arguments)

    monkeypatch.setattr(LiveSide, "look", counted)
    folder = tmp_path / "journal"
    judge = opened(journal=folder)
    for _ in range(2):
        judge.measure(model_of(tmp_path / "q.onnx"))
    assert looks == ["fp32"] * 3 + ["int8"] * 6


def test_an_interrupted_search_takes_up_what_the_reference_found(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        opened(journal=tmp_path / "journal", stack=stack)
    monkeypatch.setattr("edgemask.validation.sides.FileSide.look", None)  # the reference cannot look any more
    assert opened(journal=tmp_path / "journal", resume=True).measure(model_of(tmp_path / "q.onnx")).passed


def test_another_reference(opened: Open, tmp_path: Path) -> None:
    """A reference without the line: what finds it still is judged by the annotations."""
    model_of(tmp_path / "other.onnx", "fp32", labels=1)
    accuracy = opened(reference=tmp_path / "other.onnx").measure(model_of(tmp_path / "q.onnx"))
    assert accuracy.passed
    assert accuracy.kept[0].lost == pytest.approx(-1, abs=0.02)


def test_facts_of_the_judge(opened: Open) -> None:
    judge = opened()
    assert (judge.devices, judge.annotated, len(judge.images)) == (("cpu",), True, 3)
    assert judge.reference.precision == "fp32"
    assert not opened(annotations=None).annotated


def test_nothing_to_keep_is_an_error(opened: Open, tmp_path: Path) -> None:
    candidate = model_of(tmp_path / "q.onnx")
    empty = tmp_path / "empty"
    empty.mkdir()
    annotated(empty, objects=False)
    judge = opened(images=empty / "images", annotations=empty / "annotations.json")
    with pytest.raises(DatasetError, match=r"no box AP to keep: .* no object to find"):
        judge.measure(candidate)
    model_of(tmp_path / "wrong.onnx", "fp32", labels=[2, 1])
    with pytest.raises(DatasetError, match="nothing that the reference finds"):
        opened(reference=tmp_path / "wrong.onnx").measure(candidate)
    model_of(tmp_path / "blind.onnx", "fp32", scores=0.01)
    blind = model_of(tmp_path / "blind8.onnx", scores=0.01)
    with pytest.raises(DatasetError, match="neither side finds anything"):
        opened(reference=tmp_path / "blind.onnx", annotations=None).measure(blind)


def test_bad_input(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_drop: expected a number from 0 to 1"):
        opened(max_drop=1.5)
    with pytest.raises(DatasetError, match="there is no folder"):
        opened(images=tmp_path / "none", annotations=None)
    (tmp_path / "images" / "001.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="1 of 3 images cannot be used"):
        opened()
    assert len(opened(skip_bad_images=True).images) == 2


def test_images_larger_than_the_canvas(tmp_path: Path) -> None:
    written(tmp_path / "images", [smooth(0, (SIDE, SIDE))])
    Image.fromarray(smooth(1, (SIDE, 2 * SIDE))).save(tmp_path / "images" / "wide.png")
    Image.fromarray(smooth(2, (SIDE, 2 * SIDE))).save(tmp_path / "images" / "wider.png")
    fp32 = model_of(tmp_path / "fp32.onnx", "fp32")
    fixed = dataclasses.replace(fp32, spec=fp32.spec.replace(canvas=(SIDE, SIDE)))
    with contextlib.ExitStack() as stack, pytest.raises(DatasetError, match="2 of 3 images are too large"):
        open_judge(fixed, tmp_path / "images", devices=["cpu"], stack=stack)


def test_as_a_record() -> None:
    kept = (
        Kept(device="cpu", what="box AP", reference=0.5, own=0.49, allowed=0.01),
        Kept(device="cpu", what="mask IoU", reference=1.0, own=math.nan, allowed=0.05),
    )
    accuracy = Accuracy(kept=kept, failures=("cpu: mask IoU could not be measured",), broken=2)
    record = json.loads(json.dumps(accuracy.to_record(), allow_nan=False))
    read = Accuracy.from_record(record)
    assert read.to_record() == accuracy.to_record()
    assert read.kept[0] == kept[0]
    assert math.isnan(read.kept[1].own)
    assert read.damage == accuracy.damage >= 1000
    with pytest.raises((KeyError, ValueError, TypeError)):
        Accuracy.from_record({"kept": [["cpu"]], "failures": [], "broken": 0})


def test_damage_says_whether_it_passed() -> None:
    """A gate may fail for another reason than what is kept; and nothing that passed has damage above 1."""
    kept = (Kept(device="cpu", what="box AP", reference=0.5, own=0.5, allowed=0.01),)
    assert Accuracy(kept=kept, failures=("no result",)).damage > 1
    assert Accuracy(kept=kept, failures=()).damage == 0
    assert not Accuracy(kept=(), failures=("nothing",)).passed
