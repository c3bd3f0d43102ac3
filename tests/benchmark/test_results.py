"""What turns come to."""

from contenders import Scripted, steady

from edgemask.benchmark.contestants import Turn
from edgemask.benchmark.records import FirstRuns
from edgemask.benchmark.results import result_of

FIRSTS = FirstRuns(30.0)


def test_figures_are_medians_and_ratios_of_medians() -> None:
    first = [steady(value, paste=4) for value in (10, 7, 7, 7, 7, 7, 7, 7, 7, 7, 100)]
    second = [steady(value) for value in (17, 18, 16, 30)]
    mine = result_of(Scripted("a"), first, first, FIRSTS, 2)
    other = result_of(Scripted("b"), second, first, FIRSTS, 2)
    assert (mine.stages["total"].median, mine.stages["total"].p90, mine.stages["total"].ratio) == (10, 13, 1)
    assert other.stages["inference"].median == 17.5
    assert other.stages["inference"].p90 is None
    assert other.stages["inference"].ratio == 2.5
    assert other.stages["total"].ratio == 2.05
    assert other.stages["preprocess"].ratio == 1
    assert (mine.stages["pasted"].median, mine.stages["pasted"].p90) == (14, 17)
    assert other.stages.keys() == {"preprocess", "inference", "postprocess", "total"}
    assert (mine.images_per_second, mine.drift, mine.first_runs) == (100, None, FIRSTS)
    assert (other.detections, other.load, other.threads, other.title) == (3, 5.0, 2, "b on nowhere")


def test_a_stage_that_takes_no_time_has_no_ratio() -> None:
    turns = [Turn(1.0, 2.0, 0.0, None, 0)]
    assert result_of(Scripted("a"), turns, turns, FIRSTS, 1).stages["postprocess"].ratio is None


def test_end_to_end_is_decoding_and_the_total() -> None:
    turns = [Turn(1.0, 2.0, 3.0, None, 0, decode=decode) for decode in (10.0, 14.0, 30.0)]
    stages = result_of(Scripted("a"), turns, turns, FIRSTS, 1).stages
    assert (stages["decode"].median, stages["total"].median, stages["end_to_end"].median) == (14, 6, 20)


def test_drift_is_that_of_the_totals() -> None:
    turns = [steady(7.0)] * 18 + [steady(12.0)] * 2
    assert result_of(Scripted("a"), turns, turns, FIRSTS, 1).drift == 1.5
