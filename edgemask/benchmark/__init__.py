"""How fast a model file is, beside other files, other devices, and what a user could run instead."""

from edgemask.benchmark.measurement import AGAINST, bench
from edgemask.benchmark.records import BenchReport, ContestantResult, Timing

__all__ = ["AGAINST", "BenchReport", "ContestantResult", "Timing", "bench"]
