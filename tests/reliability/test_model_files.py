"""Model files that were damaged, or changed and sealed again: refused in words before a runtime sees them."""

import importlib.resources
from collections import Counter
from pathlib import Path

import pytest
from finding import Finding
from model_mutants import MUTATIONS
from mutant_opening import CRASH, REACHED, REFUSED, SOUND, outcomes, without_seal, without_survival, without_types
from toy_model import write_toy

from edgemask.checkpoints import load_checkpoint
from edgemask.export import export_onnx


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, spec = load_checkpoint(Path(str(importlib.resources.files("edgemask") / "assets" / "sample.safetensors")))
    path = tmp_path_factory.mktemp("model") / "sample.onnx"
    export_onnx(model, path, spec=spec, verify=False)
    return path


def summed(found: Counter[tuple[str, str]]) -> Counter[str]:
    """What followed, whatever was done."""
    total: Counter[str] = Counter()
    for (_, outcome), number in found.items():
        total[outcome] += number
    return total


@pytest.mark.parametrize("counts", [{"toy": 300}, pytest.param({"toy": 4000, "sample": 1000}, marks=pytest.mark.soak)])
def test_mutants(counts: dict[str, int], request: pytest.FixtureRequest, finding: Finding) -> None:
    found: Counter[tuple[str, str]] = Counter()
    for name, count in counts.items():
        found += outcomes(request.getfixturevalue(name), count)
    assert {kind for kind, _ in found} == {
        mutation.__name__ + seal for mutation in MUTATIONS for seal in ("", ", sealed again")
    }
    total = summed(found)
    assert set(total) == {REFUSED, SOUND}, found
    assert all("sealed again" in kind for kind, outcome in found if outcome == SOUND)
    assert total[SOUND] > total[REFUSED] // 20, "the mutants do not get behind the seal"
    finding(
        f"{total[REFUSED]:,} of {total.total():,} refused before a runtime; the other {total[SOUND]:,}, sealed again, "
        "sound in all that is checked; 0 crashes"
    )


def test_without_the_seal_they_get_through(toy: Path) -> None:
    found = outcomes(toy, 60, without_seal)
    assert found["flipped_weight", REACHED] == 2
    assert found["changed_field", REACHED] + found["changed_spec", REACHED] > 0


def test_errors_without_a_type_and_crashes_are_seen(toy: Path) -> None:
    assert summed(outcomes(toy, 30, without_types))["raised DecodeError"] > 0
    assert summed(outcomes(toy, 30, without_survival)) == {CRASH: 1}
