"""The integer size of a resized image is the one that torchvision's eager transform computes, or both refuse it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from eager_sizes import Size, torchvision_size, without_pixels
from finding import Finding

from edgemask.canvas import eager_size
from edgemask.errors import ImageError
from edgemask.spec import ModelSpec

Rule = Callable[[int, int, ModelSpec], Size]

COUNT, LONGEST = 10_000, 8_000
LIMITS = [(800, 1333), (320, 640), (256, 320), (640, 640), (801, 1000), (1, 10**6)]
SPECS = [ModelSpec(class_names=("cell",), min_size=shorter, max_size=longer) for shorter, longer in LIMITS]


@dataclass
class Compared:
    """How many sizes came out as torchvision's, were refused by both, or anything else."""

    equal: int = 0
    refused: int = 0
    different: int = 0


def sizes(count: int, longest: int = LONGEST) -> Iterable[Size]:
    """Heights and widths from 1: every length as likely as another, and in every second size every octave."""
    random = np.random.default_rng(3)
    for number in range(count):
        lengths = random.integers(1, longest + 1, 2) if number % 2 else longest ** random.uniform(0, 1, 2)
        yield int(lengths[0]), int(lengths[1])


def compare(images: Iterable[Size], rule: Rule = eager_size) -> Compared:
    """Holds a rule against torchvision under each of the limits."""
    compared = Compared()
    for image in images:
        for spec in SPECS:
            expected = torchvision_size(*image, spec)
            try:
                size = rule(*image, spec)
            except ImageError:
                size = None
            compared.refused += size is None and expected is None
            compared.equal += size is not None and size == expected
            compared.different += size != expected
    return compared


def test_sizes_are_torchvisions(finding: Finding) -> None:
    with without_pixels():
        compared = compare(sizes(COUNT))
    assert compared.different == 0
    assert compared.equal > 0.9 * len(SPECS) * COUNT
    assert compared.refused > 0
    finding(
        f"{COUNT:,} sizes under each of {len(SPECS)} resize rules: {compared.equal:,} equal, "
        f"{compared.refused:,} refused by both, {compared.different} other",
        whole=True,
    )


def test_sizes_are_those_of_resized_pixels() -> None:
    compared = compare(sizes(40, longest=1000))
    assert compared.different == 0
    assert compared.equal > 200
    assert compared.refused > 0


def in_float32(height: int, width: int, spec: ModelSpec) -> Size:
    """As a traced model computes it."""
    sides = np.array([height, width], np.float32)
    scale = min(np.float32(spec.min_size) / sides.min(), np.float32(spec.max_size) / sides.max())
    return int(sides[0] * scale), int(sides[1] * scale)


def rounded(height: int, width: int, spec: ModelSpec) -> Size:
    scale = min(spec.min_size / min(height, width), spec.max_size / max(height, width))
    return round(height * scale), round(width * scale)


def never_refused(height: int, width: int, spec: ModelSpec) -> Size:
    try:
        return eager_size(height, width, spec)
    except ImageError:
        return 1, 1


@pytest.mark.parametrize("rule", [in_float32, rounded, never_refused])
def test_another_rule_is_found_out(rule: Rule) -> None:
    with without_pixels():
        assert compare(sizes(1000), rule).different > 0
