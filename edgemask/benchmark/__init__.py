"""How fast a model file is, beside other files, other devices, and what a user could run instead."""

from edgemask.benchmark.measurement import bench
from edgemask.benchmark.opening import AGAINST
from edgemask.benchmark.plan import SCENARIOS, BenchPlan
from edgemask.benchmark.plot import plot_page, plot_svg
from edgemask.benchmark.records import (
    Accuracy,
    BenchReport,
    Conditions,
    ContestantResult,
    FirstRuns,
    Memory,
    Refusal,
    ScenarioResult,
    Throughput,
    Timing,
)
from edgemask.benchmark.rows import to_csv

__all__ = [
    "AGAINST",
    "SCENARIOS",
    "Accuracy",
    "BenchPlan",
    "BenchReport",
    "Conditions",
    "ContestantResult",
    "FirstRuns",
    "Memory",
    "Refusal",
    "ScenarioResult",
    "Throughput",
    "Timing",
    "bench",
    "plot_page",
    "plot_svg",
    "to_csv",
]
