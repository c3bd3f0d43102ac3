"""Work on files that is killed at a chosen moment: a server that has imported everything forks a child for each try.

    with Workers("export", folder) as workers:
        workers.run()                      uninterrupted: its seconds and its events
        workers.run(after=1.5)             killed with SIGKILL after so many seconds
        workers.run(at_event=7)            killed by itself at its seventh touch of a file

An event is what Python's audit hooks tell of files below the folder: opening for writing, renaming, removing.
Temporary files go to `folder/tmp`, results to `folder/out`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": "", "PYTHONWARNINGS": "ignore"}
_TOUCHING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link"}
PATIENCE = 180  # seconds for one child, then it hangs


def write(folder: Path) -> None:
    """A sealed file of a few nodes, written twice before it takes its place, as an export does that verifies it."""
    from toy_model import write_toy

    from edgemask.files import creating

    with creating(folder / "out" / "m.onnx") as temporary:
        write_toy(temporary)
        write_toy(temporary)


def write_in_place(folder: Path) -> None:
    """As nobody should: for the control."""
    data = (folder / "model.onnx").read_bytes()
    with (folder / "out" / "m.onnx").open("wb", buffering=0) as file:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])
            (folder / "tmp" / "log").open("ab").close()  # an event


def export(folder: Path) -> None:
    """The smallest model through the real exporter, which verifies the file before it takes its place."""
    from narrow_semantic import narrow_fcn

    from edgemask.export import export_onnx

    export_onnx(narrow_fcn(), folder / "out" / "m.onnx", shape=(64, 96))


def quantize(folder: Path) -> None:
    """`layered` to INT8, on four images."""
    import warnings

    from known_times import known_times

    from edgemask.quantization import quantize

    with warnings.catch_warnings(), known_times():
        warnings.simplefilter("ignore")
        quantize(folder / "model.onnx", folder / "out" / "m.onnx", folder / "images", device="cpu")


def train(folder: Path) -> None:
    """Two epochs of six scenes; its state, kept after each step, is what the next try goes on with."""
    from narrow import ARGUMENTS

    from edgemask.training import TrainingPlan, fitting, train

    fitting.SAVE_EVERY = 1
    arguments = ARGUMENTS | {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 16}
    plan = TrainingPlan(arguments=arguments, epochs=2, batch_size=2, warmup_steps=2, average=0.5)
    train(
        folder / "scenes" / "images",
        annotations=folder / "scenes" / "annotations.json",
        output=folder / "out" / "m.safetensors",
        plan=plan,
        workers=0,
    )


def prepare(job: str, folder: Path) -> None:
    """What a job reads."""
    for name in ("out", "tmp"):
        (folder / name).mkdir()
    if job == "write_in_place":
        from toy_model import write_toy

        write_toy(folder / "model.onnx")
    if job == "quantize":
        from layered import write_layered
        from pictures import smooth, written

        write_layered(folder / "model.onnx")
        written(folder / "images", [smooth(seed) for seed in range(4)])
    if job == "train":
        from edgemask.scenes import write_scenes

        write_scenes(folder / "scenes", 6, seed=1, size=64)


JOBS: dict[str, Callable[[Path], None]] = {
    job.__name__: job for job in (write, write_in_place, export, quantize, train)
}
IMPORTS = {
    "export": ("narrow_semantic", "edgemask.export", "torch.onnx", "onnxscript"),
    "quantize": ("known_times", "onnxruntime.quantization", "layered"),
    "train": ("narrow", "edgemask.training", "torchvision"),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child came to its end: its exit code, or minus the signal; seconds; events."""

    code: int
    seconds: float
    events: int


class Workers:
    """A job, tried again and again in children of one server.

    Raises:
        RuntimeError: the server itself fails.
    """

    def __init__(self, job: str, folder: Path) -> None:
        prepare(job, folder)
        environment = os.environ | ONE_THREAD | {"TMPDIR": str(folder / "tmp")}
        command = [sys.executable, __file__, job, str(folder)]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            command, env=environment | {"PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.said = folder / "said.txt"

    def run(self, *, after: float | None = None, at_event: int | None = None) -> Ended:
        """Runs the job once, to its end or to the moment given."""
        child = int(self._ask(at_event or 0))
        begin = time.monotonic()
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code, events = json.loads(self._ask(child))
        return Ended(code, time.monotonic() - begin, events)

    def _ask(self, number: int) -> str:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{number}\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server has ended with {self._server.wait()}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()


def serve(job: str, folder: Path) -> None:
    """Forks a child for each pair of lines: the event to be killed at, and then, to wait for it, anything."""
    for name in IMPORTS.get(job, ("edgemask.runtimes", "toy_model")):
        __import__(name)
    JOBS[job](folder)  # what libraries prepare at their first use is not what is to be killed
    for line in sys.stdin:
        read, end = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            os._exit(_work(job, folder, int(line), end))
        os.close(end)
        print(child, flush=True)
        sys.stdin.readline()
        status = os.waitpid(child, 0)[1]
        with os.fdopen(read, "rb") as events:
            print(json.dumps([os.waitstatus_to_exitcode(status), len(events.read())]), flush=True)


def _work(job: str, folder: Path, last: int, events: int) -> int:
    """The child: counts events as bytes in a pipe, which outlives it, and kills itself at the last."""
    signal.alarm(PATIENCE)
    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        touching = event in _TOUCHING or (event == "open" and _writes(arguments))
        if touching and any(str(word).startswith((f"{folder}/out", f"{folder}/tmp")) for word in arguments):
            seen += 1
            os.write(events, b".")
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        JOBS[job](folder)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
