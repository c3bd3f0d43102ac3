"""The record as tables and as comma-separated values."""

import csv
import io
import math

import pytest
from contenders import record, result

from edgemask.benchmark import BenchPlan, Memory, Refusal, ScenarioResult, Throughput, to_csv
from edgemask.benchmark.percentiles import timing
from edgemask.benchmark.records import Accuracy
from edgemask.benchmark.rows import tables

CALLS = Throughput(images=4, at_a_time=2, streams=1, milliseconds=50.0, images_per_second=80.0, ratio=1.6)
SCENARIO = ScenarioResult("multi-stream", 8, 700, 662, 601.5, 600.0, 99, 1234.5, 1, 160.0, None)
TOTALS, STAGES, ONCE = (
    "Milliseconds for an image in memory",
    "Stages, medians in milliseconds",
    "Once, in milliseconds",
)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_that_nobody_has_anything_in_are_left_out() -> None:
    found = tables(record(result(), result("b.onnx", 50.0, device="openvino:CPU", precision="bf16")))
    assert list(found) == [TOTALS, STAGES, ONCE]
    assert found[TOTALS] == [
        {"contestant": "a.onnx on cpu", "p50": 20.0, "images/s": 50.0, "ratio": 1.0, "found": 3},
        {"contestant": "b.onnx on openvino:CPU, bf16", "p50": 50.0, "images/s": 20.0, "ratio": 2.5, "found": 3},
    ]
    assert found[STAGES][1] == {
        "contestant": "b.onnx on openvino:CPU, bf16",
        "before": 1.0,
        "inference": 47.0,
        "after": 2.0,
    }
    assert found[ONCE][0]["new shape again"] == 21.0


def test_tables_of_everything() -> None:
    first = result(throughput=(CALLS,), scenario=SCENARIO, memory=Memory(182.5, 42.0, None))
    refusals = tuple(Refusal("a.onnx", "cuda", precision, "no driver: install it") for precision in ("file", "tf32"))
    plan = BenchPlan(scenario="multi-stream")
    found = tables(record(first, result("b.onnx", 50.0), refusals=refusals, plan=plan))
    (calls,) = found["Several images a call, several threads"]
    assert (calls["images a call"], calls["at a time"], calls["threads"], calls["ratio to one"]) == (4, 2, 1, 1.6)
    (scenario,) = (rows for title, rows in found.items() if title.startswith("MLPerf multi-stream"))
    assert scenario[0]["p99 estimate"] == 1234  # no 1.234e+03
    assert scenario[0]["long enough"] is True
    (memory,) = found["Peak memory of a process of its own, MiB"]
    assert memory == {"contestant": "a.onnx on cpu", "peak": 182.5, "before opening": 42.0}
    assert found["Not measured"] == [
        {"contestant": "a.onnx on cuda, a.onnx on cuda, tf32", "reason": refusals[0].reason}
    ]


def test_an_estimate_that_there_is_not_is_no_number() -> None:
    short = ScenarioResult("single-stream", 1, 10, 64, 5.0, 600.0, 90, None, None, 20.0, None)
    found = tables(record(result(scenario=short), plan=BenchPlan(scenario="single-stream", duration=5)))
    (rows,) = (rows for title, rows in found.items() if title.startswith("MLPerf"))
    estimate = rows[0]["p90 estimate"]
    assert isinstance(estimate, float)
    assert math.isnan(estimate)


def test_csv_has_a_row_for_each_way_of_calling() -> None:
    stages = dict(result().stages) | {"decode": timing([4.0], [4.0]), "total": timing([*range(1, 101)], [50.5])}
    accuracy = Accuracy("r/report.json", 80, {"mask_ap": 0.414})
    first = result(
        "a, b.onnx",
        stages=stages,
        throughput=(CALLS,),
        scenario=SCENARIO,
        memory=Memory(182.5, None, None),
        accuracy=accuracy,
    )
    rows = read(to_csv(record(first, result("b.onnx", 50.0))))
    assert [(row["contestant"], row["measure"]) for row in rows] == [
        ("a, b.onnx", "image"),
        ("a, b.onnx", "calls"),
        ("a, b.onnx", "multi-stream"),
        ("b.onnx", "image"),
    ]
    image, calls, scenario, other = rows
    assert [float(image[name]) for name in ("p50_ms", "p90_ms", "p99_ms")] == pytest.approx([50.5, 90.1, 99.01])
    assert (image["decode_ms"], image["pasted_ms"], image["peak_mib"], image["before_mib"]) == ("4.0", "", "182.5", "")
    assert (image["mask_ap"], image["accuracy_report"], image["found"]) == ("0.414", "r/report.json", "3")
    assert (calls["images"], calls["threads"], calls["images_per_second"], calls["load_ms"]) == ("4", "1", "80.0", "")
    assert (scenario["images"], scenario["p50_ms"], scenario["p99_ms"], scenario["p90_ms"]) == (
        "8",
        "160.0",
        "1234.5",
        "",
    )
    assert (other["p50_ms"], other["p90_ms"], other["ratio"], other["mask_ap"]) == ("50.0", "", "2.5", "")


def test_a_name_is_no_formula_for_a_spreadsheet() -> None:
    for name, shown in (
        ("=cmd|'/c calc'!A1", "'=cmd|'/c calc'!A1"),
        ("\x1b[2Jm.onnx", "\\x1b[2Jm.onnx"),
        ("-1", "'-1"),
    ):
        (row,) = read(to_csv(record(result(name, stages=dict(result().stages)))))
        assert row["contestant"] == shown
