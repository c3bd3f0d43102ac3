"""Speed of the two custom ops alone, each a model of one node, against torchvision's own on the same input.

    python scripts/bench_ops.py [--repeats 20] [--threads N] [--json]

ONNX Runtime and OpenVINO run the bodies that an exported file holds, torchvision its kernels: `MultiScaleRoIAlign`, and
`nms` for each class in turn. Inputs are drawn from a seed, in the sizes that a Mask R-CNN ResNet-50-FPN and the compact
model have. Before anything is timed all must give the same; where they do not, the script says so and ends with 1. They
then take turns, with the same number of threads. Inputs lie ready and results are not copied: what is timed is the op.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.console import Console
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, nms

from edgemask.environment import environment
from edgemask.export.onnx_ops import BODY_OPSET, MIN_IR_VERSION, NMS, ROI_ALIGN, local_functions
from edgemask.export.selection import ABSENT, PRESENT
from edgemask.ops import DOMAIN, DOMAIN_VERSION, floor32
from edgemask.processors import let_threads_rest, thread_count
from edgemask.progress import progress
from edgemask.report import table, to_json
from edgemask.runtimes.functions import for_openvino
from edgemask.runtimes.ov import shared_core

WARMUP = 2
TOLERANCE = 1e-4  # absolute, of features of unit normal distribution
STRIDES, SAMPLING_RATIO = (4, 8, 16, 32), 2
REFERENCE = "torchvision"
SEED = 0
CROWD, DETECTIONS = 10, 100  # boxes around an object; detections of a class at most
WIDTH = 160  # of the table where there is no terminal

# Name, side of the pooled map in cells, number of rois, canvas (H, W) in pixels, channels.
ROI_CASES = (
    ("boxes, ResNet-50-FPN", 7, 1000, (800, 1088), 256),
    ("masks, ResNet-50-FPN", 14, 100, (800, 1088), 256),
    ("boxes, compact", 7, 300, (320, 448), 64),
    ("masks, compact", 14, 20, (320, 448), 64),
)
# Name, groups of boxes, boxes in each, canvas (H, W) in pixels.
PROPOSAL_CASE = ("proposals, 5 levels of 1000", 5, 1000, (800, 1088))
DETECTION_CASE = ("detections, 90 classes of 1000", 90, 1000, (800, 1088))

Floats = NDArray[np.float32]
Size = tuple[int, int]
# The axis of an input whose length a graph knows no sooner than it runs.
COUNTED = {"rois": 0, "boxes": 1, "scores": 2}
OUTPUT = "found"
Contestants = Mapping[str, Callable[[], Any]]  # by name, torchvision first; a call computes the case


@dataclass(frozen=True, slots=True)
class Case:
    """One op, with its attributes, on one input; `reference` is torchvision's computation on tensors of the same."""

    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Floats]
    reference: Callable[..., Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures all cases and prints them; gives the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="rounds that are timed  [default: 20]")
    parser.add_argument("--threads", type=int, default=thread_count(), metavar="N", help="[default: all processors]")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the tables")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.threads) < 1:
        parser.error("--repeats and --threads: expected whole numbers of at least 1")
    where, rows = environment(options.threads), []
    for case in progress(cases(), "ops", total=len(ROI_CASES) + 2):
        contestants = opened(case, options.threads)
        if problem := difference(case, contestants):
            print(problem, file=sys.stderr)
            return 1
        rows.append(measured(case, contestants, options.repeats))
    record = {"environment": where, "warmup": WARMUP, "repeats": options.repeats, "cases": rows}
    print(to_json(record)) if options.json else show(record)
    return 0


def cases() -> Iterator[Case]:
    """All cases, each made when it is its turn: the inputs of one take up to 75 MB."""
    yield from (pooling(*case) for case in ROI_CASES)
    yield proposal_nms(*PROPOSAL_CASE)
    yield detection_nms(*DETECTION_CASE)


def pooling(name: str, side: int, count: int, canvas: Size, channels: int) -> Case:
    """Rois of all sizes, so that each level pools some."""
    generator = np.random.default_rng(SEED)
    inputs: dict[str, Floats] = {
        f"level_{level}": generator.standard_normal((1, channels, *(-(-s // stride) for s in canvas)), np.float32)
        for level, stride in enumerate(STRIDES)
    }
    inputs["rois"] = np.column_stack([np.zeros(count, np.float32), drawn_boxes(generator, count, count, canvas)])
    attributes = {
        **{"output_height": side, "output_width": side, "sampling_ratio": SAMPLING_RATIO},
        **{"coordinate_transformation_mode": "output_half_pixel", "canonical_scale": 224.0, "canonical_level": 4},
        "spatial_scales": [1 / stride for stride in STRIDES],
    }
    names = list(inputs)[:-1]
    pooler = MultiScaleRoIAlign(names, side, SAMPLING_RATIO)

    def reference(*tensors: Tensor) -> Tensor:
        return pooler(dict(zip(names, tensors, strict=False)), [tensors[-1][:, 1:]], [canvas])  # type: ignore[no-any-return]

    return Case(name, f"{ROI_ALIGN}{len(STRIDES)}", attributes, inputs, reference)


def drawn_boxes(generator: np.random.Generator, count: int, crowds: int, canvas: Size) -> Floats:
    """Boxes [count, 4] in crowds inside a canvas (H, W): the sides of a crowd are uniform in octaves, 16 px to all."""
    limits, chosen = np.array(canvas[::-1] * 2, np.float32), np.arange(count) % crowds
    centres = generator.uniform(0, limits[:2], (crowds, 2))
    octaves = generator.uniform(4, np.log2(limits.min()), (crowds, 1))
    sides = np.exp2(octaves + generator.uniform(-0.5, 0.5, (crowds, 2)))
    middle = np.clip(centres[chosen] + sides[chosen] * generator.normal(0, 0.1, (count, 2)), 0, limits[:2])
    half = sides[chosen] * np.exp2(generator.normal(0, 0.2, (count, 2))) / 2
    return np.asarray(np.clip(np.concatenate([middle - half, middle + half], 1), 0, limits), np.float32)


def proposal_nms(name: str, levels: int, count: int, canvas: Size) -> Case:
    """As `edgemask.export.selection.Proposals` calls it: one image, levels as classes, each with its own boxes."""
    generator = np.random.default_rng(SEED)
    boxes = np.concatenate([drawn_boxes(generator, count, count // CROWD, canvas) for _ in range(levels)])
    own = np.arange(levels)[:, None] == np.repeat(np.arange(levels), count)
    scores = np.where(own, generator.random(levels * count, np.float32), np.float32(ABSENT))
    return suppression(name, boxes[None], scores[None], 0.7, PRESENT, count)


def detection_nms(name: str, classes: int, count: int, canvas: Size) -> Case:
    """As `edgemask.export.selection.Detect` calls it: one image, classes as batches, since each moves the boxes.

    One crowd of proposals in ten is sure of a class; the others are background.
    """
    generator, crowds = np.random.default_rng(SEED), count // CROWD
    rois = drawn_boxes(generator, count, crowds, canvas)
    sides = np.tile(rois[:, 2:] - rois[:, :2], 2)
    boxes = rois + sides * generator.normal(0, 0.05, (classes, count, 4)).astype(np.float32)
    logits = generator.normal(0, 1, (count, classes + 1))
    logits[:, 0] += 8
    sure = np.flatnonzero(np.arange(count) % crowds % 10 == 0)
    logits[sure, 1 + sure % crowds % classes] += generator.uniform(6, 12, len(sure))
    scores = torch.from_numpy(logits).softmax(1).float()[:, 1:].T.contiguous().numpy()
    return suppression(name, boxes, scores[:, None], 0.5, 0.05, DETECTIONS)


def suppression(name: str, boxes: Floats, scores: Floats, iou: float, lowest: float, limit: int) -> Case:
    """The op on boxes [B, N, 4] and scores [B, C, N], of which torchvision does each batch and class in turn."""
    attributes = {"iou_threshold": floor32(iou), "score_threshold": lowest, "max_per_class": limit}

    def reference(where: Tensor, values: Tensor) -> Tensor:
        taking_part = torch.nonzero(values > lowest)
        groups = taking_part[:, 0] * values.shape[1] + taking_part[:, 1]
        kept = []
        for group in torch.unique(groups):
            own = taking_part[groups == group]
            kept.append(own[nms(where[own[:, 0], own[:, 2]], values[own.unbind(1)], iou)[:limit]])
        return torch.cat(kept)

    return Case(name, NMS, attributes, {"boxes": boxes, "scores": scores}, reference)


def model_of(case: Case) -> onnx.ModelProto:
    """The case as a model of one node, with its body as a local function, as an exported file has it."""
    kind, rank = (TensorProto.INT64, 2) if case.op == NMS else (TensorProto.FLOAT, 4)
    inputs = []
    for name, value in case.inputs.items():
        shape = ["count" if axis == COUNTED.get(name) else side for axis, side in enumerate(value.shape)]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    node = helper.make_node(case.op, list(case.inputs), [OUTPUT], domain=DOMAIN, **case.attributes)
    graph = helper.make_graph([node], "op", inputs, [helper.make_tensor_value_info(OUTPUT, kind, [None] * rank)])
    opsets = [helper.make_opsetid("", BODY_OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, ir_version=MIN_IR_VERSION, opset_imports=opsets)
    model.functions.extend(local_functions(model))
    onnx.checker.check_model(model)
    return model


def opened(case: Case, threads: int) -> Contestants:
    """Torchvision's op on a case, and ours on each runtime; without OpenVINO where it is not installed."""
    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(value) for value in case.inputs.values()]
    model = model_of(case)
    found = {
        REFERENCE: torch.inference_mode()(lambda: case.reference(*tensors)),
        "cpu": on_onnxruntime(case, model, threads),
    }
    if importlib.util.find_spec("openvino"):
        found["openvino:CPU"] = on_openvino(case, model, threads)
    return found


def on_onnxruntime(case: Case, model: onnx.ModelProto, threads: int) -> Callable[[], Any]:
    """The model as it is; the runtime puts the body in the place of the node."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    settings.enable_mem_pattern = False  # as for a model whose shapes change, such as the number of rois
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in case.inputs.items()}
    return lambda: session.run_with_ort_values([OUTPUT], values)[0]


def on_openvino(case: Case, model: onnx.ModelProto, threads: int) -> Callable[[], Any]:
    """The model as the project gives it to OpenVINO."""
    import openvino

    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    properties["INFERENCE_NUM_THREADS"] = str(threads)
    core = shared_core()  # a second one in a process, let go of, would end it
    graph = core.read_model(for_openvino(model).SerializeToString())
    request = core.compile_model(graph, "CPU", properties).create_infer_request()
    for name, value in case.inputs.items():
        request.set_tensor(name, openvino.Tensor(value, shared_memory=True))
    return lambda: (request.infer(), request.get_output_tensor(0))[1]


def difference(case: Case, contestants: Contestants) -> str | None:
    """What is wrong with the first contestant that does not give what torchvision gives; None: nothing."""
    expected = array_of(contestants[REFERENCE]())
    for name, run in contestants.items():
        if problem := wrong(array_of(run()), expected):
            return f"{case.name}: {name} differs from {REFERENCE}: {problem}"
    return None


def array_of(found: Any) -> NDArray[Any]:
    """What a contestant gave as an array of its own, from a tensor of whatever library."""
    return np.array(found.numpy() if hasattr(found, "numpy") else found.data)


def wrong(found: NDArray[Any], expected: NDArray[Any]) -> str | None:
    """What differs: indices must be the same, other values within the tolerance; None: nothing."""
    if found.shape != expected.shape:
        return f"it gives {list(found.shape)}, not {list(expected.shape)}"
    if expected.dtype.kind == "i":
        rows = int((found != expected).any(1).sum())
        return f"{rows} of {len(expected)} rows" if rows else None
    error = float(np.abs(found - expected).max(initial=0))
    # Written so that a NaN is wrong too.
    return None if error <= TOLERANCE else f"by {error:.2g}, {TOLERANCE:.0e} are allowed"


def measured(case: Case, contestants: Contestants, repeats: int) -> dict[str, Any]:
    """The record of a case: median milliseconds of each contestant in rounds in which they take turns."""
    taken = {name: list[float]() for name in contestants}
    for number in range(WARMUP + repeats):
        for name, run in contestants.items():
            let_threads_rest()
            started = time.perf_counter()
            run()
            if number >= WARMUP:
                taken[name].append(1000 * (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "op": case.op,
        "case": case.name,
        "inputs": {name: list(value.shape) for name, value in case.inputs.items()},
        "ms": medians,
        "ratio": {name: medians[REFERENCE] / value for name, value in medians.items() if name != REFERENCE},
    }


def show(record: Mapping[str, Any]) -> None:
    """Prints the record as tables."""
    rows = []
    for row in record["cases"]:
        figures = {f"{name} {unit}": row[unit][name] for unit in ("ms", "ratio") for name in row[unit]}
        rows.append({"case": f"{row['op']}: {row['case']}"} | figures)
    where = record["environment"]
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table(f"Milliseconds, median of {record['repeats']}; ratio: {REFERENCE}'s time / ours", rows))
    console.print(f"{where.processor}, threads: {where.threads}, load: {where.load}, {where.date}", soft_wrap=True)
    console.print(", ".join(f"{name} {version}" for name, version in where.versions.items()), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
