"""The benchmark of the ops: all contestants compute the same, and one that does not ends it."""

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from script_files import script_module

from edgemask.ops import batched_nms, multi_scale_roi_align

CANVAS = (256, 320)
DEVICES = [pytest.param("cpu"), pytest.param("openvino:CPU", marks=pytest.mark.openvino)]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with script_module("scripts/bench_ops.py") as module:
        yield module


@pytest.fixture
def small(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with inputs that take no time."""
    monkeypatch.setattr(script, "ROI_CASES", (("few rois", 3, 12, CANVAS, 2),))
    monkeypatch.setattr(script, "PROPOSAL_CASE", ("few proposals", 3, 40, CANVAS))
    monkeypatch.setattr(script, "DETECTION_CASE", ("few detections", 4, 60, CANVAS))
    monkeypatch.setattr(script, "let_threads_rest", lambda: None)
    return script


def test_torchvision_computes_what_the_op_means(small: ModuleType) -> None:
    """The yardstick itself, by the definition of the op."""
    pooling, *suppressions = small.cases()
    contestants = small.opened(pooling, 1)
    *maps, rois = pooling.inputs.values()
    scales = pooling.attributes["spatial_scales"]
    expected = multi_scale_roi_align(maps, rois, output_size=(3, 3), sampling_ratio=2, spatial_scales=scales)
    np.testing.assert_allclose(small.array_of(contestants["torchvision"]()), expected, atol=1e-5)
    for case in suppressions:
        selected = batched_nms(**case.inputs, **case.attributes)
        assert 0 < len(selected) < (case.inputs["scores"] > case.attributes["score_threshold"]).sum(), case.name
        assert np.array_equal(small.array_of(small.opened(case, 1)["torchvision"]()), selected), case.name


@pytest.mark.parametrize("device", DEVICES)
def test_every_contestant_gives_the_same(small: ModuleType, device: str) -> None:
    for case in small.cases():
        contestants = small.opened(case, 1)
        assert list(contestants)[:2] == ["torchvision", "cpu"]
        assert small.difference(case, {name: contestants[name] for name in ("torchvision", device)}) is None


class Altered:
    """A tensor as OpenVINO gives one: its values are an attribute."""

    def __init__(self, data: Any) -> None:
        self.data = data


def one_value(values: Any) -> Any:
    changed = values.copy()
    changed.flat[-1] += 1
    return changed


def not_a_number(values: Any) -> Any:
    changed = values.copy()
    changed.flat[0] = np.nan
    return changed


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, one_value, "few rois: cpu differs from torchvision: by 1, 1e-04 are allowed"),
        (0, not_a_number, "few rois: cpu differs from torchvision: by nan, 1e-04 are allowed"),
        (1, one_value, "few proposals: cpu differs from torchvision: 1 of "),
        (2, lambda rows: rows[::-1], "few detections: cpu differs from torchvision: "),
        (2, lambda rows: rows[:-1], "few detections: cpu differs from torchvision: it gives ["),
    ],
)
def test_what_differs_is_never_timed(
    small: ModuleType,
    number: int,
    change: Callable[[Any], Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = list(small.cases())[number]
    monkeypatch.setattr(small, "cases", lambda: iter([case]))
    monkeypatch.setattr(small, "measured", None)
    opened = small.opened(case, 1)
    altered = change(small.array_of(opened["cpu"]()))
    monkeypatch.setattr(small, "opened", lambda *_: opened | {"cpu": lambda: Altered(altered)})
    assert small.main(["--threads", "1", "--repeats", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert [line for line in printed.err.splitlines() if "differs" in line] == [printed.err.splitlines()[-1]]


def test_prints_one_object(small: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert small.main(["--threads", "1", "--repeats", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["repeats"], record["environment"]["threads"]) == (2, 1)
    assert [row["case"] for row in record["cases"]] == ["few rois", "few proposals", "few detections"]
    for row in record["cases"]:
        ours = set(row["ms"]) - {"torchvision"}
        assert "cpu" in ours
        assert set(row["ratio"]) == ours
        assert all(row["ratio"][name] == row["ms"]["torchvision"] / row["ms"][name] > 0 for name in ours)


def test_prints_a_table(small: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(small, "ROI_CASES", ())
    assert small.main(["--threads", "1", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "torchvision ms" in lines[1]
    assert "cpu ratio" in lines[1]
    assert lines[2].startswith("BatchedNms: few proposals")
    assert any("threads: 1" in line for line in lines)


def test_inputs_are_those_of_the_networks(script: ModuleType) -> None:
    """Sizes from the drawn boxes alone: each level of the pyramid has work, and NMS has what to drop and to keep."""
    boxes = script.drawn_boxes(np.random.default_rng(script.SEED), 1000, 1000, (800, 1088))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    levels = np.clip(np.floor(4 + np.log2(np.sqrt(areas) / 224)), 2, 5)
    assert np.bincount(levels.astype(int), minlength=6)[2:].min() > 50
    assert (boxes >= 0).all()
    assert (boxes <= [1088, 800, 1088, 800]).all()
    assert areas.min() > 0


@pytest.mark.parametrize("words", [["--repeats", "0"], ["--threads", "0"]])
def test_refuses_nothing_to_do(script: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(words)
