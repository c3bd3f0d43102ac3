"""RunFacts: what a run is of, through JSON and back, and what sets two runs apart."""

import dataclasses
import json
from typing import Any

import pytest
from runs.examples import SPEC, WEIGHTS, facts

from edgemask.errors import UsageError
from edgemask.runs import RunFacts

OTHER: dict[str, Any] = {
    "kind": "onnx",
    "name": "other.onnx",
    "device": "cuda:0",
    "sha256": "f" * 64,
    "spec": SPEC.replace(score_threshold=0.5, canvas=(256, 320)),
    "versions": {"torch": "2.16.0", "onnx": "1.23.2"},
}


def test_through_json_and_back() -> None:
    given = facts()
    text = json.dumps(given.to_record(), allow_nan=False)
    assert RunFacts.from_record(json.loads(text)) == given
    assert RunFacts.from_record(json.loads(text) | {"from_the_future": 1}) == given


def test_of_now_has_the_versions_here() -> None:
    import numpy as np

    now = RunFacts.of(kind="onnx", name="m.onnx", device="cpu", sha256=WEIGHTS, spec=SPEC)
    assert now.versions["numpy"] == np.__version__
    assert now.versions.keys() >= {"edgemask", "python"}
    assert now.date >= "2026"
    with pytest.raises(UsageError, match="sha256: expected 64 lower-case hexadecimal digits, got None"):
        RunFacts.of(kind="onnx", name="m.onnx", device="cpu", sha256=None, spec=SPEC)


@pytest.mark.parametrize("name", OTHER)
def test_each_fact_sets_runs_apart(name: str) -> None:
    one, other = facts(), facts(**{name: OTHER[name]})
    assert one.fingerprint() != other.fingerprint()
    differences = one.differences(other)
    assert differences
    assert all(text.startswith(name) for text in differences)


def test_every_fact_but_the_date_is_among_them() -> None:
    assert {field.name for field in dataclasses.fields(RunFacts)} == {*OTHER, "date"}


def test_the_date_does_not() -> None:
    one, later = facts(), facts(date="2027-01-01")
    assert one.fingerprint() == later.fingerprint()
    assert one.differences(later) == ()


def test_differences_are_said_one_by_one() -> None:
    assert facts().differences(facts(**OTHER | {"kind": "pytorch", "name": "nuclei.safetensors"})) == (
        "device: 'torch', now 'cuda:0'",
        f"sha256: '{WEIGHTS[:56]}..., now '{'f' * 56}...",
        "spec.canvas: nothing, now [256, 320]",
        "spec.score_threshold: 0.05, now 0.5",
        "versions.torch: '2.15.0', now '2.16.0'",
        "versions.numpy: '2.4.6', now nothing",
        "versions.onnx: nothing, now '1.23.2'",
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "tflite"}, "kind: expected pytorch or onnx, got 'tflite'"),
        ({"name": "/home/user/m.onnx"}, "name: expected a name without folders, got '/home/user/m.onnx'"),
        ({"name": "C:\\m.onnx"}, "name without folders"),
        ({"name": "\x1b[2J"}, "name: expected text of 1 to 200"),
        ({"device": ""}, "device: expected text"),
        ({"sha256": WEIGHTS.upper()}, "sha256: expected 64 lower-case"),
        ({"spec": {}}, "spec: expected a ModelSpec, got dict"),
        ({"versions": {"torch": 2}}, "versions['torch']: expected text"),
        ({"date": "yesterday"}, "date: expected a date in ISO 8601"),
        ({"date": 20261122}, "date: expected a date in ISO 8601"),
    ],
)
def test_refuses(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        facts(**changes)
    assert problem in str(caught.value)
    if "spec" not in changes:
        with pytest.raises(UsageError):
            RunFacts.from_record(facts().to_record() | changes)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (None, "facts: expected a dictionary"),
        ({}, "facts: expected all fields of RunFacts, got none named kind, name"),
        (facts().to_record() | {"spec": {}}, "format_version: expected major.minor, got None"),
        (facts().to_record() | {"spec": [[]]}, "specification"),
        (facts().to_record() | {"spec": SPEC.to_json()}, "specification"),
    ],
)
def test_refuses_records(record: Any, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunFacts.from_record(record)
    assert problem in str(caught.value)
