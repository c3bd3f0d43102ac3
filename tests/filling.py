"""Commands that write to a disk with little room, in a process that may mount one.

    python filling.py COMMAND FOLDER POINTS

runs a command of `interrupting.COMMANDS` on file systems that have from no room to just too little for its results, and
prints what came of each as JSON. `filled` starts it in name spaces of its own, where a tmpfs can be mounted.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from interrupting import edgemask, prepare

OLD = b"the old file"
PAGE = 4096
RESULTS = {
    "export": "m.onnx",
    "quantize": "int8.onnx",
    "train": "m.safetensors",
    "predict": "results.json",
    "validate": "report/report.json",
    "scenes": "scenes/annotations.json",
}
ALONE = ("unshare", "--user", "--map-root-user", "--mount")


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of a command on a full disk: free bytes at the start, exit code, words, the old file, parts left."""

    free: int
    code: int
    said: str
    intact: bool
    strays: list[str]


def filled(command: str, folder: Path, points: int) -> list[Filled]:
    """Runs a command at so many points. To be called where `can_mount` holds."""
    prepare(folder, command)
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(Path(__file__).parent)}
    words = [*ALONE, sys.executable, __file__, command, str(folder), str(points)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Filled(**record) for record in json.loads(done.stdout.splitlines()[-1])]


def can_mount() -> bool:
    """Whether this system lets a process mount a tmpfs in name spaces of its own."""
    words = [*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes, as long as it is used."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def at(command: str, folder: Path, size: int) -> tuple[Filled, int]:
    """Runs a command in this process with its results on a disk of a size; also how many bytes are used after it."""
    from edgemask.cli import main

    place = folder / "out"
    with disk(place, size), (folder / "said.txt").open("w+") as said:
        old = place / RESULTS[command]
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(OLD)
        free = shutil.disk_usage(place).free
        sys.stdout.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = main(edgemask(command)[3:])
        sys.stdout.flush()
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)
        strays = [str(path) for path in place.rglob("*") if path.name.endswith(".part")]
        used = shutil.disk_usage(place).used
        said.seek(0)
        return Filled(free, code, said.read(), old.exists() and old.read_bytes() == OLD, strays), used


def serve(command: str, folder: Path, points: int) -> None:
    """Prints what came of the command at each point."""
    os.chdir(folder)
    whole, used = at(command, folder, 256 * 2**20)
    assert whole.code in {0, 1}, whole.said
    # The old file takes a page; zero would be no limit at all.
    sizes = [PAGE + PAGE * int(used / PAGE * point / points * 0.95) for point in range(points)]
    print(json.dumps([asdict(at(command, folder, size)[0]) for size in sizes]))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
