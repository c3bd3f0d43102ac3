"""What a reader of the figures must know."""

from collections.abc import Iterator, Sequence

from edgemask.benchmark.accuracy import METRICS, common_metric
from edgemask.benchmark.contestants import Contestant, Picture
from edgemask.benchmark.legacy import TorchvisionOnnxContestant
from edgemask.benchmark.opening import FileEntry
from edgemask.benchmark.plan import SECONDS_NEEDED, BenchPlan
from edgemask.benchmark.records import ContestantResult, ScenarioResult
from edgemask.canvas import eager_size

_UNQUIET = 1.25  # p90 over median: on a quiet machine it is below 1.1
_COMPARED_FIELDS = ("min_size", "max_size", "fixed_size", "score_threshold", "nms_threshold", "max_detections",
                    "max_proposals")  # fmt: skip
_CACHING = ("openvino", "tensorrt")


def notes_on_files(files: Sequence[Contestant], pixels: Picture) -> Iterator[str]:
    """Where model files do not do the same work, on an image uint8 [H, W, 3]."""
    first = files[0]
    for file in files:
        wanted, canvas = eager_size(pixels.shape[0], pixels.shape[1], file.spec), file.spec.canvas
        if canvas is not None and (wanted[0] > canvas[0] or wanted[1] > canvas[1]):
            yield (
                f"PyTorch would resize the image to {wanted[0]} x {wanted[1]}: more than {file.name} has room for, "
                "so it does less work than PyTorch"
            )
        if file.batch is not None and file.batch > 1:
            yield f"{file.name} takes {file.batch} images at a time: one by itself takes as long as {file.batch}"
    for other in files[1:]:
        differing = [field for field in _COMPARED_FIELDS if getattr(other.spec, field) != getattr(first.spec, field)]
        if differing:
            yield f"{other.name} differs from {first.name} in {', '.join(differing)}"


def notes_on_reference(contestants: Sequence[Contestant], source: str, spec_sha256: str | None) -> Iterator[str]:
    """What to know about those that are made from the PyTorch model.

    Args:
        contestants: these.
        source: the name of the model.
        spec_sha256: of the weights that the first model file was exported from.
    """
    if any(contestant.sha256 != spec_sha256 for contestant in contestants):
        yield f"{source} does not hold the weights that the first model was exported from"
    for contestant in contestants:
        if isinstance(contestant, TorchvisionOnnxContestant):
            paste = "the resize and the paste of masks: compare it by the pasted times"
            held = paste if contestant.pastes_itself else "the resize"
            yield f"{contestant.name}: export took {contestant.export / 1000:.1f} s; its inference holds {held}"
        if contestant.name == "compile":
            yield "compile: its first run holds the compilation; what lies between the compiled parts runs eagerly"
        if contestant.precision == "fp32" and contestant.device.startswith("torch:cuda"):
            yield (
                f"{contestant.name} computes convolutions in TF32 where the GPU can, as PyTorch does by default; "
                "model files do so with --precision tf32 alone"
            )
        if contestant.name == "eager-fp16":
            yield "eager-fp16: autocast to float16; nobody has compared its detections with those of float32"


def notes_on_options(files: Sequence[FileEntry]) -> Iterator[str]:
    """What the way in which model files are opened does to the figures."""
    if any(file.options.cache is not False and file.device.startswith((*_CACHING, "auto")) for file in files):
        yield "load times may be those of a compiled model from the cache; --option cache=false measures without"


def notes_on_plan(plan: BenchPlan) -> Iterator[str]:
    """What peak memory and the scenario of MLPerf are here, and what not."""
    if plan.memory:
        yield "peak memory is that of the process: what a GPU has of its own is not in it"
    if plan.scenario is None:
        return
    yield (
        f"{plan.scenario} follows the timing rules of MLPerf Inference on one image, which stands for a data set; "
        "accuracy is another run: this is no submission"
    )
    if plan.duration is not None and plan.duration < SECONDS_NEEDED:
        yield f"{plan.duration:g} s are not an MLPerf-compliant duration: the rules ask for {SECONDS_NEEDED:g} s"


def notes_on_calls(plan: BenchPlan, contestants: Sequence[Contestant]) -> Iterator[str]:
    """Which contestants cannot be called in every way that the plan asks for."""
    for number in dict.fromkeys(plan.batches):
        fixed = [contestant for contestant in contestants if contestant.batch not in (None, number)]
        if fixed and number > 1:
            takes = ", ".join(dict.fromkeys(f"{contestant.name} takes {contestant.batch}" for contestant in fixed))
            yield f"not measured with {number} images a call, since their number is fixed: {takes}"
    alone = [contestant.name for contestant in contestants if not contestant.shared]
    if plan.streams > 1 and alone:
        yield f"not measured with {plan.streams} threads, as model files are: {', '.join(alone)}"


def notes_on_results(results: Sequence[ContestantResult], *, accuracy: bool) -> Iterator[str]:
    """What the figures themselves give away.

    Args:
        results: of all contestants.
        accuracy: whether reports of validations were given.
    """
    canvases = {result.canvas for result in results if result.canvas is not None}
    if len(canvases) > 1:
        sizes = ", ".join(
            "{} on {} x {}".format(result.name, *result.canvas) for result in results if result.canvas is not None
        )
        yield f"the contestants worked on canvases (H x W) of different sizes: {sizes}"
    totals = [result.stages["total"] for result in results]
    spread = max((total.p90 / total.median for total in totals if total.p90 is not None), default=0.0)
    if spread > _UNQUIET:
        yield f"the machine was not quiet: the slowest tenth took {spread:.2f} times the median or more"
    for result in results:
        if result.scenario is not None:
            yield from _on_scenario(result.title, result.scenario)
    if accuracy:
        yield from _on_accuracy(results)


def _on_scenario(title: str, scenario: ScenarioResult) -> Iterator[str]:
    if scenario.estimate is None:
        seconds = scenario.queries_needed * scenario.median / 1000
        yield (
            f"{title}: {scenario.queries} queries are too few for a {scenario.percent}th percentile, which takes "
            f"{scenario.queries_needed}: about --duration {seconds:.0f}"
        )


def _on_accuracy(results: Sequence[ContestantResult]) -> Iterator[str]:
    known = [result.accuracy for result in results if result.accuracy is not None]
    metric = common_metric(known)
    missing = [result.title for result in results if metric is None or not _has(result, metric)]
    if missing:
        what = "accuracy" if metric is None else METRICS[metric]
        yield f"no report has the {what} of {', '.join(missing)}, as the same file on the same device"
    if len({accuracy.images for accuracy in known}) > 1:
        yield "accuracies were measured on different numbers of images: compare them with care"


def _has(result: ContestantResult, metric: str) -> bool:
    return result.accuracy is not None and metric in result.accuracy.values
