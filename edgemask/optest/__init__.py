"""The custom ops of a file on adversarial input: what photographs never show, held against `edgemask.ops`."""

from edgemask.optest.records import OpTest
from edgemask.optest.running import run_op_tests
from edgemask.optest.sites import op_records, why_untested

__all__ = ["OpTest", "op_records", "run_op_tests", "why_untested"]
