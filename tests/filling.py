"""Commands that write to a disk with little room, in a process that may mount one.

    python filling.py COMMAND FOLDER POINTS

runs a command of `RESULTS` on file systems that have from no room to just too little for its results, and prints what
came of each as JSON; for `FULL_CACHE` it is the cache that has no room. `filled` starts it in name spaces of its own,
where a tmpfs can be mounted.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from interrupting import COMMANDS, prepare
from toy_model import write_toy

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
REMOVED_FIRST = {"validate"}  # an outcome of before must not be taken for this one's
IN_PLACE = "in place"  # as nobody should write: for the control
FULL_CACHE = "full cache"
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
    prepare(folder, command if command in RESULTS else "scenes")
    environment = os.environ | {
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": str(Path(__file__).parent),
        "EDGEMASK_CACHE": str(folder / "cache"),
    }
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
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def at(command: str, folder: Path, size: int) -> tuple[Filled, int]:
    """Runs a command in this process with its results on a disk of a size; also how many bytes are used after it."""
    place = folder / "out"
    with disk(place, size):
        old = place / RESULTS.get(command, "a.bin")
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(OLD)
        free = shutil.disk_usage(place).free
        code, said = told(lambda: overwrite(old) if command == IN_PLACE else commanded(COMMANDS[command]))
        strays = [str(path) for path in place.rglob("*") if path.name.endswith(".part")]
        used = shutil.disk_usage(place).used
        intact = old.read_bytes() == OLD if old.exists() else command in REMOVED_FIRST
        return Filled(free, code, said, intact, strays), used


def commanded(words: str) -> int:
    from edgemask.cli import main

    with ExitStack() as stack:
        if words.startswith("quantize"):
            from known_times import known_times

            stack.enter_context(known_times())
        return main(shlex.split(words))


def overwrite(path: Path) -> int:
    from edgemask.cli.process import run

    return run(lambda: path.write_bytes(bytes(16 * PAGE)))


def told(act: Callable[[], int]) -> tuple[int, str]:
    """Its exit code, and all that it says."""
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with Path("said.txt").open("w+") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = act()
        sys.stdout.flush()
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)
        said.seek(0)
        return code, said.read()


def at_full_cache(folder: Path, size: int) -> tuple[Filled, int]:
    """Predicts with a cache on a disk of a size; what is to be intact are the pictures. Also what the cache used."""
    place = folder / "cache"
    place.mkdir(exist_ok=True)
    write_toy(folder / "toy.onnx")
    with disk(place, size):
        free = shutil.disk_usage(place).free
        code, said = told(lambda: commanded("predict toy.onnx images -o out/pictures --device openvino:CPU"))
        pictures = folder / "out" / "pictures"
        intact = {path.stem for path in pictures.iterdir()} == {path.stem for path in (folder / "images").iterdir()}
        shutil.rmtree(pictures)
        strays = [path.name for path in place.iterdir()]
        return Filled(free, code, said, intact, strays), shutil.disk_usage(place).used


def serve(command: str, folder: Path, points: int) -> None:
    """Prints what came of the command at each point."""
    os.chdir(folder)
    filling = at_full_cache if command == FULL_CACHE else partial(at, command)
    whole, used = filling(folder, 256 * 2**20)
    assert whole.code in {0, 1}, whole.said
    # The old file takes a page, which is not needed for the new one; zero would be no limit at all.
    sizes = [PAGE + PAGE * int((used / PAGE - 1) * point / points * 0.95) for point in range(points)]
    found = [filling(folder, size)[0] for size in sizes]
    print(json.dumps([asdict(one) for one in found]))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
