"""Decompression bombs: files of a few hundred bytes that promise billions of pixels are refused at once."""

import warnings
from pathlib import Path
from typing import Literal

import broken_loaders
import pytest
from finding import Finding
from image_bytes import bombs, encoded, png
from watched_loading import CAN_WATCH, REFUSED, Loader, Watch, Watched

from edgemask.errors import ImageError
from edgemask.images import PIXEL_LIMIT, load_image

SECONDS, MEMORY, TIMES = 0.1, 50, 3  # MiB


def try_bombs(folder: Path, loader: Loader = load_image, times: int = TIMES) -> dict[str, list[Watched]]:
    """Loads each file a few times, in a process in which Pillow has loaded its plugins."""
    with Watch(folder, loader) as watch:
        return {name: [watch.load(content) for _ in range(times)] for name, content in bombs().items()}


def is_refused_in_time(found: list[Watched]) -> bool:
    """Before it is decoded: the message names the number of pixels."""
    return all(
        one.outcome == REFUSED and str(PIXEL_LIMIT) in one.message and one.seconds < SECONDS and one.peak < MEMORY
        for one in found
    )


@pytest.mark.skipif(not CAN_WATCH, reason="the peak of a process is read from /proc")
def test_bombs_are_refused_at_once(tmp_path: Path, finding: Finding) -> None:
    found = try_bombs(tmp_path)
    refused = [name for name, runs in found.items() if is_refused_in_time(runs)]
    assert refused == list(found)
    runs = [run for runs in found.values() for run in runs]
    seconds, peak = max(run.seconds for run in runs), max(run.peak for run in runs)
    finding(f"{len(refused)} of {len(found)} refused, in at most {1e3 * seconds:.1f} ms and {peak:.1f} MiB", whole=True)


@pytest.mark.skipif(not CAN_WATCH, reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    "loader", [broken_loaders.untyped, broken_loaders.wasteful, broken_loaders.slow, broken_loaders.credulous]
)
def test_broken_loader_is_found_out(tmp_path: Path, loader: Loader) -> None:
    assert not any(is_refused_in_time(runs) for runs in try_bombs(tmp_path, loader, times=1).values())


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_what_pillow_only_warns_of(tmp_path: Path, action: Literal["error", "ignore"]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, 10_000, encoded("PNG")))
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ImageError, match=str(PIXEL_LIMIT)):
            load_image(path)
