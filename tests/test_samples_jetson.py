"""The script that sets up a Jetson: sound shell, and the facts of docs/devices.md; it was never run on one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemask.doctor import jetson

SCRIPT = Path(__file__).resolve().parents[1] / "samples" / "jetson_setup.sh"


def set_up(folder: Path, l4t: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the script would do on a board with a release of Jetson Linux, such as 36.4.3."""
    release = folder / "nv_tegra_release"
    if l4t is not None:
        major, _, revision = l4t.partition(".")
        line = f"# R{major} (release), REVISION: {revision}, GCID: 38968081, BOARD: generic, EABI: aarch64"
        release.write_text(f"{line}\n# KERNEL_VARIANT: oot\n", encoding="utf-8")
    settings = {
        "RELEASE_FILE": str(release),
        "DRY_RUN": "1",
        "HOME": str(folder),
        "PYTHON": sys.executable,
    } | environment
    return subprocess.run(
        ["sh", str(SCRIPT)], env=os.environ | settings, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shells_can_read_it(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    assert subprocess.run([shell, "-n", str(SCRIPT)], capture_output=True, check=False).returncode == 0
    (tmp_path / "cut.sh").write_text(SCRIPT.read_text(encoding="utf-8").replace("esac", ""), encoding="utf-8")
    assert subprocess.run([shell, "-n", str(tmp_path / "cut.sh")], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.parametrize("board", jetson._TABLE, ids=lambda board: board.name)
def test_it_knows_what_the_doctor_knows(board: jetson._JetPack, tmp_path: Path) -> None:
    result = set_up(tmp_path, board.l4t if "." in board.l4t else f"{board.l4t}.9")
    assert result.returncode == 0, result.stderr
    cuda, tensorrt = (version.partition(".")[0] for version in (board.cuda, board.tensorrt))
    head = result.stdout.splitlines()[0]
    assert head.endswith(f": JetPack {board.name[0]}, with CUDA {cuda} and Python {board.python}")
    # The wheels of the package index are for CUDA 13; TensorRT 8 reads op sets up to 17.
    assert ("'onnxruntime-gpu>=1.29'" if cuda == "13" else "[cpu,openvino,video]").strip("'") in result.stdout
    assert result.stdout.splitlines()[-1].endswith(f"doctor --device {'cuda' if cuda == '13' else 'cpu'}")
    assert ("TensorRT 8 cannot read" in result.stdout) == (tensorrt == "8")
    assert list(tmp_path.iterdir()) == [tmp_path / "nv_tegra_release"]


@pytest.mark.parametrize(
    ("l4t", "environment", "said"),
    [
        (None, {}, "there is no "),
        ("32.7.1", {}, "'32.7.1' is of no JetPack that is known here"),
        ("99.1", {}, "of no JetPack"),
        ("36.4.3", {"PYTHON": "absent-python"}, "there is no Python 3.11 or later"),
    ],
)
def test_what_it_cannot_serve_ends_with_3(
    l4t: str | None, environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    result = set_up(tmp_path, l4t, **environment)
    assert result.returncode == 3
    assert said in result.stderr
    assert "pip" not in result.stdout


def test_what_is_installed_can_be_chosen(tmp_path: Path) -> None:
    result = set_up(tmp_path, "38.4", PACKAGE="dist/edgemask-1.whl", PYTHON="python3.12 python3 python3.11 python3.13")
    assert f"+ {tmp_path}/edgemask/bin/pip install dist/edgemask-1.whl[video] onnx>=1.21" in result.stdout
