"""Malformed images: a typed error for each, in bounded time and memory, and never the end of the process."""

import itertools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import broken_loaders
import numpy as np
import pytest
from finding import Finding
from image_bytes import encoded, mutated, noise, planted
from watched_loading import CAN_WATCH, PICTURE, REFUSED, Loader, Watch

from edgemask.images import load_image

pytestmark = pytest.mark.skipif(not CAN_WATCH, reason="the peak of a process is read from /proc")
SECONDS, MEMORY = 5.0, 256  # MiB


class Tried(NamedTuple):
    outcomes: Counter[str]
    faults: list[str]  # at most a few lines
    seconds: float
    peak: float  # of those refused


def try_malformed(folder: Path, count: int, loader: Loader = load_image, limit: float = SECONDS) -> Tried:
    """Loads what is planted, and mutated files until as many as asked for have turned out to be no pictures."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    seconds = peak = 0.0
    known = [(name, content, False) for name, content in planted().items()]
    with Watch(folder, loader, limit) as watch:
        for name, content, may_be_sound in itertools.chain(known, ((*one, True) for one in mutated(seed=0))):
            if sum(outcomes.values()) - outcomes[PICTURE] >= count or len(faults) > 5:
                break
            found = watch.load(content)
            outcomes[found.outcome] += 1
            seconds = max(seconds, found.seconds)
            if found.outcome == REFUSED:
                peak = max(peak, found.peak)
                if found.peak > MEMORY:
                    faults.append(f"{name}: {found.peak:.0f} MiB")
            elif found.outcome != PICTURE or not may_be_sound:
                faults.append(f"{name}: {found.outcome} {found.message}")
    return Tried(outcomes, faults, seconds, peak)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.soak)])
def test_each_is_a_typed_error(tmp_path: Path, count: int, finding: Finding) -> None:
    tried = try_malformed(tmp_path, count)
    assert not tried.faults
    assert tried.outcomes[REFUSED] == count
    assert tried.outcomes[PICTURE] > count / 20, "some mutations spoil nothing but pixels"
    found = f"{tried.outcomes[REFUSED]:,} of {count:,} typed errors, in at most {tried.seconds:.1f} s and "
    finding(f"{found}{tried.peak:.0f} MiB; {tried.outcomes[PICTURE]:,} mutations left a picture")


@pytest.mark.parametrize(
    ("loader", "fault"),
    [
        (broken_loaders.untyped, "empty: raised UnidentifiedImageError"),
        (broken_loaders.crashing, "empty: crash with exit code -11"),
        (broken_loaders.hanging, "empty: hang"),
        (broken_loaders.wasteful, "empty: 30"),
        (broken_loaders.credulous, "empty: picture"),
        (broken_loaders.careless, "empty: gave NoneType"),
    ],
)
def test_broken_loader_is_found_out(tmp_path: Path, loader: Loader, fault: str) -> None:
    tried = try_malformed(tmp_path, 1, loader, limit=0.5 if loader is broken_loaders.hanging else SECONDS)
    assert any(one.startswith(fault) for one in tried.faults), tried.faults


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(encoded(kind, save_all=True, lossless=True))
    np.testing.assert_array_equal(load_image(tmp_path / "a"), np.asarray(noise()))
