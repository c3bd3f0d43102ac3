"""A full disk is one typed error that names the place and the room there, and the old file is as it was."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from filling import FULL_CACHE, IN_PLACE, RESULTS, Filled, can_mount, filled
from finding import Finding

pytestmark = pytest.mark.skipif(not can_mount(), reason="this system lets nobody mount a file system of their own")


def wrong(found: Sequence[Filled]) -> list[Filled]:
    """Ends that are no typed error with the path and the room that is left, or that have harmed a file."""
    named = re.compile(
        r"^error: cannot write \S*out/\S+: No space left on device \([\d,]+ bytes are free there\)$", re.M
    )
    return [one for one in found if one.code != 3 or not named.search(one.said) or not one.intact or one.strays]


@pytest.mark.parametrize(
    ("command", "points"),
    [("scenes", 3), *(pytest.param(command, 20, marks=pytest.mark.soak) for command in RESULTS)],
)
def test_the_old_file_is_intact(tmp_path: Path, command: str, points: int, finding: Finding) -> None:
    found = filled(command, tmp_path, points)
    assert len(found) == points
    assert len({one.free for one in found}) > points // 3, "there are no more sizes than pages of the result"
    assert wrong(found) == []
    finding(f"{points} of {points} typed errors, the old file intact", where=command)


def test_a_writer_in_place_is_caught(tmp_path: Path) -> None:
    assert len(wrong(filled(IN_PLACE, tmp_path, 2))) == 2


@pytest.mark.openvino
@pytest.mark.parametrize("points", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_a_full_cache_fails_no_prediction(tmp_path: Path, points: int, finding: Finding) -> None:
    found = filled(FULL_CACHE, tmp_path, points)
    assert [(one.code, one.intact, one.strays) for one in found] == [(0, True, [])] * points
    assert "compiled models are not kept" in found[0].said
    assert "No space left on device" in found[0].said
    finding(f"{points} of {points} predictions as ever", where="cache of OpenVINO")


@pytest.mark.parametrize(
    "harm", [{"code": 70}, {"said": "error: cannot write out/a\n"}, {"intact": False}, {"strays": ["out/.a.part"]}]
)
def test_each_harm_is_seen(harm: dict[str, object]) -> None:
    said = "error: cannot write out/a: No space left on device (1,024 bytes are free there)\nfree some space\n"
    sound = Filled(1024, 3, said, True, [])
    fields = {name: getattr(sound, name) for name in Filled.__slots__}
    assert wrong([sound]) == []
    assert len(wrong([sound, Filled(**fields | harm)])) == 1
