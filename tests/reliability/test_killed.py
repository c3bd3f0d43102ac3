"""`kill -9` at any moment leaves the old file or the new one, and the next run leaves nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest
from finding import Finding
from killing import Ended, Workers

from edgemask.checkpoints import load_checkpoint
from edgemask.errors import EdgemaskError
from edgemask.runtimes import read_model

OLD = b"the old file"
ROUND = 10  # kills between two runs that come to their end


def is_sound(path: Path) -> bool:
    """The old file bit for bit, or a new one that is read."""
    if path.read_bytes() == OLD:
        return True
    try:
        read_model(path) if path.suffix == ".onnx" else load_checkpoint(path)
    except EdgemaskError:
        return False
    return True


def strays(folder: Path, result: str) -> list[str]:
    """What lies about after a run that came to its end."""
    found = [*(folder / "out").rglob("*"), *(folder / "tmp").rglob("*")]
    return sorted(str(path.relative_to(folder)) for path in found if path.name != result)


def killed(job: str, folder: Path, moments: int, seed: int = 0) -> tuple[int, int, list[str]]:
    """Kills a job at so many moments, every other one at the touch of a file, the others at any time.

    Returns:
        How often it was really killed, how often the file was unsound after that, and what was left lying about.
    """
    result = folder / "out" / ("m.safetensors" if job == "train" else "m.onnx")
    random = np.random.default_rng(seed)
    hit, unsound, left = 0, 0, list[str]()
    with Workers(job, folder) as workers:
        whole = workers.run()
        assert whole.code == 0, workers.said.read_text()
        for number in range(moments):
            result.write_bytes(OLD)
            ended = at_a_moment(workers, whole, number, random)
            assert ended.code in {0, -9}, workers.said.read_text()
            hit += ended.code == -9
            unsound += not is_sound(result)
            if number % ROUND == ROUND - 1 or number == moments - 1:
                assert workers.run().code == 0, workers.said.read_text()
                unsound += not is_sound(result) or result.read_bytes() == OLD
                left += strays(folder, result.name)
    return hit, unsound, left


def at_a_moment(workers: Workers, whole: Ended, number: int, random: np.random.Generator) -> Ended:
    if number % 2 == 0:
        return workers.run(at_event=1 + number // 2 % whole.events)
    return workers.run(after=float(random.uniform(0, whole.seconds)))


@pytest.mark.parametrize(
    ("job", "moments"),
    [("write", 40), *(pytest.param(job, 200, marks=pytest.mark.soak) for job in ("export", "quantize", "train"))],
)
def test_the_old_or_the_new_file(tmp_path: Path, job: str, moments: int, finding: Finding) -> None:
    hit, unsound, left = killed(job, tmp_path, moments)
    assert (unsound, left) == (0, [])
    assert hit > moments // 2, "most of the moments were in time"
    finding(f"{moments} of {moments} old or new and valid ({hit} killed in time), 0 stray files", where=job)


def test_a_writer_in_place_is_caught(tmp_path: Path) -> None:
    _, unsound, _ = killed("write_in_place", tmp_path, 12)
    assert unsound > 0


def test_what_is_left_is_seen(tmp_path: Path) -> None:
    for name in ("out", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / ".m.onnx.abcdefgh.part").touch()
    os.mkdir(tmp_path / "tmp" / "ort.quant.1")
    assert strays(tmp_path, "m.onnx") == ["out/.m.onnx.abcdefgh.part", "tmp/ort.quant.1"]
