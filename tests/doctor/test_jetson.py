"""Jetson boards by their files, and what their JetPack brings."""

from pathlib import Path

import pytest

from edgemask.doctor.jetson import jetson, l4t_release

RELEASE = "# R{0} (release), REVISION: {1}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"


def board(root: Path, release: str | None, model: str | None = "NVIDIA Jetson Orin Nano Developer Kit\0") -> Path:
    if release is not None:
        (root / "etc").mkdir()
        (root / "etc/nv_tegra_release").write_text(release)
    if model is not None:
        (root / "proc/device-tree").mkdir(parents=True)
        (root / "proc/device-tree/model").write_text(model)
    return root


@pytest.mark.parametrize(
    ("major", "revision", "jetpack", "cuda", "tensorrt", "python"),
    [
        ("35", "4.1", "5.1.2", "11.4", "8.5", "3.8"),
        ("36", "3.0", "6.0", "12.2", "8.6", "3.10"),
        ("36", "4.0", "6.1", "12.6", "10.3", "3.10"),
        ("36", "4.3", "6.2", "12.6", "10.3", "3.10"),
        ("36", "4.7", "6.2", "12.6", "10.3", "3.10"),
        ("38", "2.1", "7.0", "13.0", "10.13", "3.12"),
        ("38", "4", "7.1", "13.0", "10.13", "3.12"),
        ("39", "2.0", "7.2", "13.2", "10.16", "3.12"),
    ],
)
def test_jetpack_by_release(
    tmp_path: Path, major: str, revision: str, jetpack: str, cuda: str, tensorrt: str, python: str
) -> None:
    found = jetson(board(tmp_path, RELEASE.format(major, revision)))
    assert found is not None
    assert found.model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.l4t == f"{major}.{revision}"
    assert (found.jetpack, found.cuda, found.tensorrt, found.python) == (jetpack, cuda, tensorrt, python)


def test_releases_that_no_table_has(tmp_path: Path) -> None:
    found = jetson(board(tmp_path, RELEASE.format("99", "1.0")))
    assert found is not None
    assert (found.l4t, found.jetpack, found.cuda) == ("99.1.0", None, None)
    assert l4t_release("# R36 (release), REVISION: 40.1, GCID") == "36.40.1"  # which 36.4 does not begin
    assert l4t_release("no release") is None


def test_a_container_may_show_only_one_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = jetson(board(tmp_path / "a", None))
    assert found is not None
    assert (found.l4t, found.jetpack) == (None, None)
    (tmp_path / "b").mkdir()
    found = jetson(board(tmp_path / "b", RELEASE.format("36", "4.3"), None))
    assert found is not None
    assert (found.model, found.jetpack) == ("", "6.2")


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None
    assert jetson(board(tmp_path, None, "Raspberry Pi 5 Model B\0")) is None
