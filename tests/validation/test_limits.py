"""What is asked: gate files, rows of a precision, single limits."""

from pathlib import Path

import pytest

from edgemask.errors import UsageError
from edgemask.parity import SEMANTIC_TOLERANCES, TOLERANCES
from edgemask.validation.limits import Limit, limits_of, merged, read_gate

GATE = """
[least]
matched_share = 0.99
mask_iou = 0.98
[most]
latency_ratio = 0.7
file_size_mb = 12
[max_drop]
type = "relative"
certain = true
ap = 0.01
mask_ap50 = 0.02
[max_regression]
box_ap = 0.002
"""


def gate(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_gate_file(tmp_path: Path) -> None:
    assert read_gate(gate(tmp_path, GATE)) == (
        Limit("matched_share", "least", 0.99, origin="gate.toml"),
        Limit("mask_iou", "least", 0.98, origin="gate.toml"),
        Limit("latency_ratio", "most", 0.7, origin="gate.toml"),
        Limit("file_size_mb", "most", 12, origin="gate.toml"),
        Limit("ap", "max_drop", 0.01, relative=True, certain=True, origin="gate.toml"),
        Limit("mask_ap50", "max_drop", 0.02, relative=True, certain=True, origin="gate.toml"),
        Limit("box_ap", "max_regression", 0.002, origin="gate.toml"),
    )


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("[least]\nmatched_shares = 0.9", "'matched_shares' is no key of", "did you mean matched_share?"),
        ("[leest]\nmatched_share = 0.9", "'leest' is no table", "did you mean least?"),
        ("[least]\nquux = 1", "'quux' is no key of", "known are matched_share, "),
        ("[most]\nmatched_share = 0.9", "matched_share cannot stand under [most]", "it belongs under [least]"),
        ("[least]\nlatency_ratio = 0.9", "latency_ratio cannot stand", "[most] or [max_regression]"),
        ("[least]\nmask_iou = 'high'", "least mask_iou: expected a number", None),
        ("[least]\nmask_iou = true", "least mask_iou: expected a number", None),
        ("[least]\nmask_iou = nan", "least mask_iou: expected a number", None),
        ("[least]\nmatched_share = 99", "least matched_share: expected a number from 0 to 1, got 99", None),
        ("[max_drop]\nap = -0.1", "max_drop ap: expected a number from 0", None),
        ("[max_drop]\ntype = 'percent'\nap = 1", "max_drop.type is 'percent'", "absolute or relative"),
        ("[max_drop]\ncertain = 1\nap = 0.1", "max_drop.certain is 1", "expected false or true"),
        ("matched_share = 0.9", "'matched_share' is no table", "known are least"),
        ("least = 0.9", "least is 0.9", "expected a table"),
        ("[least]", "asks nothing", "matched_share = 0.99"),
        ("", "asks nothing", None),
        ("[least", "is not TOML", "expected tables"),
    ],
)
def test_a_gate_that_cannot_be_meant(tmp_path: Path, text: str, problem: str, remedy: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        read_gate(gate(tmp_path, text))
    assert problem in caught.value.problem
    assert remedy is None or remedy in str(caught.value.remedy)


def test_a_gate_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the gate"):
        read_gate(tmp_path / "absent.toml")


def asked(limits: tuple[Limit, ...]) -> dict[str, tuple[str, float]]:
    return {limit.key: (limit.kind, limit.value) for limit in limits}


def test_rows_of_the_precisions() -> None:
    tasks = ("boxes", "masks")
    fp32 = limits_of(TOLERANCES["fp32"], tasks, annotated=True, origin="fp32")
    assert asked(fp32) == {
        "matched_share": ("least", 0.999),
        "mask_iou": ("least", 0.995),
        "ap": ("max_difference", 0.001),
    }
    assert "ap" not in asked(limits_of(TOLERANCES["fp32"], tasks, annotated=False, origin="fp32"))
    points = limits_of(TOLERANCES["fp32"], ("boxes", "keypoints"), annotated=False, origin="fp32")
    assert asked(points) == {
        "matched_share": ("least", 0.999),
        "keypoint_distance": ("most", 0.5),
        "oks": ("least", 0.98),
    }


def test_int8_is_judged_by_precision_where_there_are_annotations() -> None:
    (only,) = limits_of(TOLERANCES["int8"], ("boxes", "masks"), annotated=True, origin="int8")
    assert (only.key, only.kind, only.relative) == ("ap", "max_drop", True)
    assert only.value == pytest.approx(0.01)
    assert asked(limits_of(TOLERANCES["int8"], ("boxes", "masks"), annotated=False, origin="int8")).keys() == {
        "matched_share",
        "mask_iou",
    }


def test_the_semantic_row() -> None:
    row = limits_of(SEMANTIC_TOLERANCES["fp32"], ("semantic",), annotated=False, origin="fp32")
    assert asked(row)["score_difference"] == ("most", 1e-3)
    assert asked(row)["pixel_agreement"] == ("least", 0.999)


def test_a_single_limit_takes_the_place_of_the_same_one() -> None:
    base = limits_of(TOLERANCES["fp32"], ("boxes", "masks"), annotated=True, origin="fp32")
    mine = [Limit("ap", "max_drop", 0.02, origin="--max-drop"), Limit("file_size_mb", "most", 9, origin="--max-size")]
    assert asked(merged(base, mine)) == {
        "matched_share": ("least", 0.999),
        "mask_iou": ("least", 0.995),
        "ap": ("max_drop", 0.02),
        "file_size_mb": ("most", 9),
    }
