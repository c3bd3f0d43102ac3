"""Each command as a process of its own, to which a signal is sent at a chosen moment.

from interrupting import COMMANDS, Stopped, prepare, stopped
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgemask.files import write_image
from edgemask.scenes import draw_scene, write_scenes

PATIENCE = 120  # seconds for a whole command, then it hangs
_SMALL = {"widths": [8, 16, 16, 16], "pyramid_channels": 16, "head_width": 16, "min_size": 96, "max_size": 160}
COMMANDS = {
    "demo": "demo -o out/demo --images 2",
    "export": "export tiny.safetensors -o out/m.onnx --shape 96x128",
    "quantize": "quantize model.onnx -o out/int8.onnx --calibration images --device cpu",
    "validate": "validate tiny.onnx --reference tiny.safetensors --images images --device cpu --report out/report",
    "predict": "predict tiny.onnx images -o out/pictures --device cpu --coco out/results.json",
    "inspect": "inspect tiny.onnx --device cpu",
    "bench": "bench tiny.onnx --device cpu --repeats 200 --csv out/figures.csv",
    "doctor": "doctor tiny.onnx --device cpu",
    "train": f"train --images scenes/images --annotations scenes/annotations.json -o out/m.safetensors --epochs 2 "
    f"--batch-size 2 --arguments '{json.dumps(_SMALL)}'",
    "scenes": "scenes out/scenes --count 20",
    "package": "package tiny.onnx --triton out/repository",
}
NEVER_OVER = "out/repository"  # refused where it exists


def prepare(folder: Path, command: str) -> None:
    """What a command reads, and places for what it writes."""
    for name in ("out", "tmp", "images"):
        (folder / name).mkdir()
    for index in range(6):
        write_image(folder / "images" / f"{index}.png", draw_scene(index, size=96).image)
    if command == "train":
        write_scenes(folder / "scenes", 6, seed=1, size=64)
    elif command == "quantize":
        from layered import write_layered

        write_layered(folder / "model.onnx")
    elif command not in {"demo", "scenes"}:
        from tiny_model import write_tiny

        write_tiny(folder)


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a process ended: its exit code, or minus the signal that ended it; seconds after it was asked; its words."""

    code: int
    seconds: float
    words: str

    @property
    def before_the_command(self) -> bool:
        """Whether Python itself was still starting, or importing the package: the command had not begun."""
        return self.code == -signal.SIGTERM or (
            self.code in {-signal.SIGINT, 1} and "KeyboardInterrupt" in self.words and "process.py" not in self.words
        )


def started(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """A process in a group of its own, whose temporary files lie in the folder."""
    environment = os.environ | {
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        "EDGEMASK_CACHE": str(folder / "cache"),
    }
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )


def stopped(
    words: list[str], folder: Path, number: signal.Signals | None, after: float, *, ready: bool = False
) -> Stopped:
    """Starts a command, sends it a signal after so many seconds, as a terminal does to all of its processes.

    Args:
        words: of the command.
        folder: see `prepare`.
        number: the signal; None: it is left to end by itself.
        after: seconds.
        ready: counted from its line `ready` on.
    """
    process = started(words, folder)
    try:
        if ready:
            assert process.stdout is not None
            assert any(line == "ready\n" for line in process.stdout), "it ended before"
        if number is not None:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, number)
        asked = time.monotonic()
        said, _ = process.communicate(timeout=PATIENCE)
        return Stopped(process.returncode, time.monotonic() - asked, said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def edgemask(command: str) -> list[str]:
    """The words of a command of `COMMANDS`."""
    return [sys.executable, "-m", "edgemask", *shlex.split(COMMANDS[command])]
