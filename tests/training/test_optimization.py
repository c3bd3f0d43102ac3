"""Rates over a run, and what decays."""

import pytest
from narrow import narrow_model

from edgemask.training import TrainingPlan
from edgemask.training.optimization import parameter_groups, rate


def test_a_cosine_after_the_warm_up() -> None:
    plan = TrainingPlan(warmup_steps=10)
    rates = [rate(step, 110, plan) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.505)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate(0, 5, TrainingPlan(warmup_steps=0)) == 1


def test_steps_after_the_warm_up() -> None:
    plan = TrainingPlan(warmup_steps=2, schedule="step")
    rates = [rate(step, 90, plan) for step in range(90)]
    assert rates[:2] == [0.5, 1]
    assert rates[2:60] == [1] * 58
    assert rates[60:80] == pytest.approx([0.1] * 20)
    assert rates[80:] == pytest.approx([0.01] * 10)


def test_biases_and_normalisation_are_not_decayed() -> None:
    model = narrow_model()
    decayed, others = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert "backbone.body.layer1.0.conv1.weight" in {names[id(p)] for p in decayed["params"]}
    assert all(names[id(p)].endswith("bias") or ".bn" in names[id(p)] or p.ndim == 1 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)
