"""What is said beside the figures."""

from contenders import BLACK, Scripted, result
from toy_model import SPEC

from edgemask.benchmark import BenchPlan, ScenarioResult
from edgemask.benchmark.notes import (
    notes_on_calls,
    notes_on_files,
    notes_on_options,
    notes_on_plan,
    notes_on_reference,
    notes_on_results,
)
from edgemask.benchmark.opening import FileEntry
from edgemask.benchmark.percentiles import timing
from edgemask.benchmark.records import Accuracy
from edgemask.runtimes.options import RuntimeOptions


def test_equal_files_need_no_note() -> None:
    assert list(notes_on_files([Scripted("a"), Scripted("b")], BLACK)) == []


def test_files_that_do_other_work_are_noted() -> None:
    small = Scripted("small", spec=SPEC.replace(canvas=(32, 32)))
    pair = Scripted("pair", spec=SPEC.replace(max_detections=50, batch=2), batch=2)
    notes = list(notes_on_files([Scripted("a"), small, pair], BLACK))
    assert "PyTorch would resize the image to 64 x 64: more than small has room for" in notes[0]
    assert notes[1] == "pair takes 2 images at a time: one by itself takes as long as 2"
    assert notes[2] == "pair differs from a in max_detections"


def test_a_cache_is_noted_where_there_is_one() -> None:
    cold, warm = RuntimeOptions(cache=False), RuntimeOptions()
    assert list(notes_on_options([FileEntry("a", "cpu", warm), FileEntry("a", "openvino:CPU", cold)])) == []
    (note,) = notes_on_options([FileEntry("a", "cpu", warm), FileEntry("a", "openvino", warm)])
    assert "cache=false" in note


def test_a_scenario_is_no_submission() -> None:
    assert list(notes_on_plan(BenchPlan())) == []
    (note,) = notes_on_plan(BenchPlan(scenario="single-stream"))
    assert "no submission" in note
    notes = list(notes_on_plan(BenchPlan(scenario="single-stream", duration=60)))
    assert notes[1] == "60 s are not an MLPerf-compliant duration: the rules ask for 600 s"
    assert len(list(notes_on_plan(BenchPlan(scenario="single-stream", duration=600)))) == 1


def test_who_cannot_be_called_in_other_ways() -> None:
    contestants = [Scripted("a", batch=1, shared=True), Scripted("free"), Scripted("four", batch=4, shared=True)]
    plan = BenchPlan(batches=(1, 2, 4), streams=3)
    assert list(notes_on_calls(plan, contestants)) == [
        "not measured with 2 images a call, since their number is fixed: a takes 1, four takes 4",
        "not measured with 4 images a call, since their number is fixed: a takes 1",
        "not measured with 3 threads, as model files are: free",
    ]
    assert list(notes_on_calls(BenchPlan(), contestants)) == []


def test_what_pytorch_does_by_itself() -> None:
    same = {"sha256": "a" * 64}
    assert list(notes_on_reference([Scripted("eager", precision="fp32", **same)], "m", "a" * 64)) == []
    contestants = [
        Scripted("eager", device="torch:cuda", precision="fp32", **same),
        Scripted("eager-fp16", device="torch:cuda", precision="fp16", **same),
        Scripted("compile", precision="fp32", **same),
    ]
    notes = list(notes_on_reference(contestants, "m", "b" * 64))
    assert notes[0] == "m does not hold the weights that the first model was exported from"
    assert "TF32" in notes[1]
    assert notes[2].startswith("eager-fp16: autocast")
    assert notes[3].startswith("compile: its first run holds the compilation")
    assert len(notes) == 4


def test_canvases_and_a_noisy_machine() -> None:
    noisy = dict(result().stages) | {"total": timing([10.0] * 8 + [20.0] * 3, [10.0])}
    wide = result("b.onnx", canvas=(64, 128), stages=noisy)
    notes = list(notes_on_results([result(), wide], accuracy=False))
    assert notes == [
        "the contestants worked on canvases (H x W) of different sizes: a.onnx on 64 x 96, b.onnx on 64 x 128",
        "the machine was not quiet: the slowest tenth took 2.00 times the median or more",
    ]
    assert list(notes_on_results([result(), result(canvas=None)], accuracy=False)) == []


def test_too_few_queries_say_how_long_it_takes() -> None:
    short = ScenarioResult("multi-stream", 8, 100, 662, 10.0, 600.0, 99, None, None, 500.0, None)
    (note,) = notes_on_results([result(scenario=short)], accuracy=False)
    assert note.startswith("a.onnx on cpu: 100 queries are too few for a 99th percentile, which takes 662")
    assert note.endswith("about --duration 331")


def test_contestants_without_accuracy_are_noted_where_it_was_asked_for() -> None:
    known = result(accuracy=Accuracy("r.json", 8, {"mask_ap": 0.41}))
    more = result("c.onnx", accuracy=Accuracy("s.json", 80, {"mask_ap": 0.42}))
    notes = list(notes_on_results([known, result("b.onnx"), more], accuracy=True))
    assert notes[0] == "no report has the mask AP of b.onnx on cpu, as the same file on the same device"
    assert "different numbers of images" in notes[1]
    (none,) = notes_on_results([result("b.onnx")], accuracy=True)
    assert none.startswith("no report has the accuracy of b.onnx on cpu")
    assert list(notes_on_results([known], accuracy=True)) == []
