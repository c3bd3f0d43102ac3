"""The two choices around NMS: torchvision's own, for all images at once, in PyTorch and in both runtimes."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from edgemask.export import onnx_ops
from edgemask.export.selection import Detect, Proposals, best_per_image, clip, large_enough
from edgemask.export.stages import Candidates
from edgemask.reference import use_per_class_nms
from edgemask.runtimes.functions import for_openvino
from edgemask.runtimes.ov import shared_core

Run = Callable[..., list[NDArray[Any]]]
SIZES = torch.tensor([[96, 128], [80, 100]])
CLASSES, LIMIT, TOP_N = 4, 7, 40
CODER, RPN_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0)), BoxCoder((1.0, 1.0, 1.0, 1.0))
MAPS = ((12, 16), (6, 8))  # cells of the two levels of the proposals
PADDED = pytest.mark.parametrize("padded", [False, True], ids=["flat", "padded"])

pytestmark = pytest.mark.filterwarnings(
    "ignore:# The axis name:UserWarning",  # the exporter, about dimensions that two inputs share
)


def best(
    scores: Tensor, image: Sequence[int], index: Sequence[int], *, padded: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    return best_per_image(scores, torch.tensor(image).long(), torch.tensor(index).long(), 3, padded=padded)


def test_the_best_of_each_image() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.4, 0.8], [0.5, 0.2, 0.6, 0.7, 0.1]])
    chosen = [0, 1, 0, 1, 0, 0], [4, 2, 0, 0, 3, 2]
    expected = [0, 0, 0, 1, 1], [4, 3, 2, 2, 0]
    row, column, present = best(scores, *chosen, padded=False)
    assert (row.tolist(), column.tolist(), present) == (*expected, None)
    row, column, present = best(scores, *chosen, padded=True)
    assert present is not None
    assert present.tolist() == [True] * 5 + [False]
    assert row.tolist() == [0, 0, 0, 1, 1, 1]
    assert column[present].tolist() == expected[1]
    assert 0 <= column.min() <= column.max() < 5, "rows that are not present can be gathered too"


@pytest.mark.parametrize("entries", [1, 2, 5])
def test_nothing_chosen(entries: int) -> None:
    scores = torch.rand(2, entries)
    row, column, _ = best(scores, [], [], padded=False)
    assert (row.shape, column.shape) == ((0,), (0,))
    row, column, present = best(scores, [], [], padded=True)
    assert present is not None
    assert not present.any()
    assert (len(row), len(column)) == (6, 6)
    assert 0 <= column.min() <= column.max() < entries
    row, column, present = best(torch.zeros(2, entries), [1], [0], padded=True)  # a score of 0 can be chosen
    assert present is not None
    assert present.tolist() == [False] * 3 + [True, False, False]
    assert (row[3].item(), column[3].item()) == (1, 0)


def test_clip_and_large_enough_are_torchvisions() -> None:
    torch.manual_seed(0)
    boxes = torch.rand(500, 4) * 200 - 40
    np.testing.assert_array_equal(clip(boxes, SIZES[0]), clip_boxes_to_image(boxes, (96, 128)))
    both = clip(boxes.view(2, 250, 4), SIZES[:, None])
    np.testing.assert_array_equal(both[1], clip_boxes_to_image(boxes[250:], (80, 100)))
    kept = torch.where(large_enough(boxes, 5.0))[0]
    assert 0 < len(kept) < 300
    np.testing.assert_array_equal(kept, remove_small_boxes(boxes, 5.0))
    assert large_enough(torch.tensor([[1.0, 1.0, 3.0, 2.0]]), 1.0).item(), "a side of just that length"


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (2, 0, 4)])
def test_no_boxes_to_clip(shape: tuple[int, ...]) -> None:
    sizes = SIZES[:, None] if shape[0] == 2 else SIZES[0]
    assert clip(torch.zeros(shape), sizes).shape == shape
    found = large_enough(torch.zeros(shape), 1.0)
    assert (found.shape, found.dtype) == (shape[:-1], torch.bool)


def rpn_inputs(seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Objectness and deltas of two images by level, and anchors, one in each cell."""
    torch.manual_seed(seed)
    objectness = [torch.randn(2, 1, *cells) for cells in MAPS]
    deltas = [torch.randn(2, 4, *cells) * 0.3 for cells in MAPS]
    anchors = []
    for (rows, columns), stride in zip(MAPS, (8, 16), strict=True):
        y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
        centres = torch.stack([x, y], -1).view(-1, 2).float()
        anchors.append(torch.cat([centres - 2.0 * stride, centres + 2.0 * stride], 1))
    return objectness, deltas, anchors


def exact(*, top_n: int = 9, proposal_score: float = 0.0, score: float = 0.0, limit: int = 9) -> Any:
    """torchvision's own `rpn` and `roi_heads`, whose NMS is exactly per class, without layers."""
    before, after = {"training": 100, "testing": 100}, {"training": top_n, "testing": top_n}
    model = SimpleNamespace(
        rpn=RegionProposalNetwork(nn.Identity(), nn.Identity(), 0.7, 0.3, 9, 0.5, before, after, 0.7, proposal_score),
        roi_heads=RoIHeads(None, None, None, 0.5, 0.5, 9, 0.5, CODER.weights, score, 0.5, limit),
    )
    model.rpn.eval()
    use_per_class_nms(model)
    return model


def torchvision_proposals(inputs: Any, min_size: float, threshold: float, top_n: int) -> list[Tensor]:
    """Boxes of each image, by torchvision's `filter_proposals`."""
    rpn = exact(top_n=top_n, proposal_score=threshold).rpn
    rpn.min_size = min_size
    objectness, deltas, anchors = inputs
    logits, flat = concat_box_prediction_layers(objectness, deltas)
    boxes = RPN_CODER.decode(flat, [torch.cat(anchors)] * 2).view(2, -1, 4)
    shapes = [tuple(size) for size in SIZES.tolist()]
    return list(rpn.filter_proposals(boxes, logits, shapes, [rows * columns for rows, columns in MAPS])[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("min_size", "threshold", "top_n"), [(1e-3, 0.0, TOP_N), (20.0, 0.3, TOP_N), (1e-3, 0.0, 300)])
def test_proposals_are_torchvisions(seed: int, min_size: float, threshold: float, top_n: int) -> None:
    inputs = rpn_inputs(seed)
    expected = torchvision_proposals(inputs, min_size, threshold, top_n)
    candidates = Candidates(RPN_CODER, 100, min_size, threshold)(*inputs, SIZES)
    flat, padded = (Proposals(2, 0.7, top_n, padded=padded)(*candidates) for padded in (False, True))
    assert all(len(boxes) >= 10 for boxes in expected)
    for image, boxes in enumerate(expected):
        np.testing.assert_array_equal(flat[flat[:, 0] == image, 1:], boxes)
        rows = padded.view(2, top_n, 5)[image]
        assert (rows[:, 0] == image).all()
        np.testing.assert_array_equal(rows[: len(boxes), 1:], boxes)
        assert not rows[len(boxes) :, 1:].any()
    assert len(flat) == sum(map(len, expected))


def roi_inputs(seed: int, counts: tuple[int, int] = (25, 30)) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, deltas and rois, so that some boxes leave the image, lie upon each other, or are as good as nothing."""
    torch.manual_seed(seed)
    count = sum(counts)
    corners = torch.rand(count, 2) * 60
    sides = torch.rand(count, 2) * 50 + 2
    rois = torch.cat([torch.zeros(count, 1), corners, corners + sides], 1)
    rois[counts[0] :, 0] = 1
    rois[::9, 3] = rois[::9, 1] + 1e-3
    return torch.randn(count, CLASSES) * 2, torch.randn(count, 4 * CLASSES), rois


def torchvision_detections(
    logits: Tensor, deltas: Tensor, rois: Tensor, threshold: float, limit: int
) -> list[tuple[Tensor, ...]]:
    """Boxes, scores and labels of each image, by torchvision's `postprocess_detections`."""
    heads = exact(score=threshold, limit=limit).roi_heads
    proposals = [rois[rois[:, 0] == image, 1:] for image in range(2)]
    shapes = [tuple(size) for size in SIZES.tolist()]
    return list(zip(*heads.postprocess_detections(logits, deltas, proposals, shapes), strict=True))


@pytest.mark.parametrize("counts", [(25, 30), (0, 40), (40, 0), (1, 1)])
@pytest.mark.parametrize(("threshold", "limit"), [(0.05, 200), (0.05, LIMIT), (0.0, LIMIT), (0.6, 200), (1.0, 9)])
def test_detections_are_torchvisions(counts: tuple[int, int], threshold: float, limit: int) -> None:
    inputs = roi_inputs(sum(counts), counts)
    expected = torchvision_detections(*inputs, threshold, limit)
    rois, scores, labels, present, _ = Detect(CODER, threshold, 0.5, limit, padded=False)(*inputs, SIZES)
    assert present is None
    for image, values in enumerate(expected):
        own = rois[:, 0] == image
        for found, wanted in zip((rois[own, 1:], scores[own], labels[own]), values, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert len(rois) == sum(len(labels) for _, _, labels in expected)
    padded = Detect(CODER, threshold, 0.5, limit, padded=True)(*inputs, SIZES)
    for image, values in enumerate(expected):
        rows = slice(image * limit, (image + 1) * limit)
        assert (padded[0][rows, 0] == image).all()
        for found, wanted in zip((padded[0][rows, 1:], padded[1][rows], padded[2][rows]), values, strict=True):
            np.testing.assert_array_equal(found[: len(wanted)], wanted)
            assert not found[len(wanted) :].any(), "zeros behind what was found"
        assert padded[3] is not None
        assert padded[3][rows].tolist() == [True] * len(values[1]) + [False] * (limit - len(values[1]))


@PADDED
def test_rows_of_zeros_give_no_detection(padded: bool) -> None:
    """Rois that were padded: the box head is sure of them, or of anything."""
    logits, deltas, rois = roi_inputs(3)
    detect = Detect(CODER, 0.05, 0.5, 60, padded=padded)
    expected = detect(logits, deltas, rois, SIZES)
    behind = torch.zeros(8, 5)
    behind[:, 0] = torch.tensor([0, 1]).repeat(4)
    sure = torch.tensor([-9.0, 9.0, 0.0, 0.0]).repeat(8, 1)
    more = torch.cat([logits, sure]), torch.cat([deltas, torch.zeros(8, 4 * CLASSES)]), torch.cat([rois, behind])
    found = detect(*more, SIZES)
    for one, other in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[4].tolist() == expected[4].tolist(), "the NMS sees none of them"


class Choices(nn.Module):
    """All that is exported here, in one graph."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.proposals = Proposals(2, 0.7, TOP_N, padded=padded)
        self.detect = Detect(CODER, 0.05, 0.5, LIMIT, padded=padded)

    def forward(
        self, scores: Tensor, image: Tensor, index: Tensor, candidates: Sequence[Tensor], detected: Sequence[Tensor]
    ) -> list[Tensor]:
        chosen = best_per_image(scores, image, index, 3, padded=self.padded)
        found = self.detect(*detected, SIZES)
        return [value for value in (*chosen, self.proposals(*candidates), *found) if value is not None]


def choices_inputs(chosen: Sequence[tuple[int, int]], seed: int, counts: tuple[int, int]) -> tuple[Any, ...]:
    torch.manual_seed(seed)
    scores = (torch.rand(2, 12) * 4).floor() / 4  # many are equal
    pairs = torch.tensor(chosen).long().view(-1, 2)
    candidates = Candidates(RPN_CODER, 100, 1e-3, 0.0)(*rpn_inputs(seed), SIZES)
    return scores, pairs[:, 0], pairs[:, 1], candidates, roi_inputs(seed, counts)


def arrays(inputs: tuple[Any, ...]) -> list[NDArray[Any]]:
    return [value.numpy() for part in inputs for value in (part if isinstance(part, tuple) else (part,))]


def on_onnxruntime(model: onnx.ModelProto) -> Run:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *values: list(session.run(None, dict(zip(names, values, strict=True))))


def on_openvino(model: onnx.ModelProto) -> Run:
    pytest.importorskip("openvino")
    core = shared_core()
    graph = core.read_model(for_openvino(model).SerializeToString())
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *values: [np.array(value) for value in compiled(values).values()]


@pytest.fixture(scope="module", params=[False, True], ids=["flat", "padded"])
def exported(request: pytest.FixtureRequest) -> tuple[Choices, onnx.ModelProto]:
    module = Choices(request.param).eval()
    chosen, rois = torch.export.Dim("chosen"), torch.export.Dim("rois")
    program = torch.onnx.export(
        module,
        choices_inputs([(0, 1), (1, 2), (1, 3)], 0, (25, 30)),
        dynamic_shapes=({}, {0: chosen}, {0: chosen}, ({}, {}, {}), ({0: rois}, {0: rois}, {0: rois})),
        dynamo=True,
        opset_version=onnx_ops.BODY_OPSET,
        custom_translation_table=onnx_ops.custom_translation_table(),
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.functions.extend(onnx_ops.local_functions(model))
    return module, model


@pytest.fixture(scope="module", params=[on_onnxruntime, pytest.param(on_openvino, marks=pytest.mark.openvino)])
def opened(exported: tuple[Choices, onnx.ModelProto], request: pytest.FixtureRequest) -> tuple[Choices, Run]:
    return exported[0], request.param(exported[1])


@pytest.mark.parametrize("counts", [(25, 30), (0, 0), (0, 9), (2, 0)])
def test_runtimes_choose_as_pytorch(opened: tuple[Choices, Run], counts: tuple[int, int]) -> None:
    """Without any roi too: a ReduceMin of nothing once had a wrong shape in ONNX Runtime."""
    module, run = opened
    for seed in range(4):
        inputs = choices_inputs([], seed, counts)
        if module.padded and not any(counts):  # rows of zeros stand for no roi
            inputs = *inputs[:4], (torch.randn(2, CLASSES), torch.randn(2, 4 * CLASSES), torch.zeros(2, 5))
        expected = module(*inputs)[2 + module.padded :]
        found = run(*arrays(inputs))[2 + module.padded :]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-4)
        assert found[2].any() == any(counts), "scores of detections"


@pytest.mark.parametrize("columns", [[], [5], [7, 2], [11, 0, 4, 9, 3], list(range(12))])
def test_equal_scores_by_lower_index(opened: tuple[Choices, Run], columns: list[int]) -> None:
    """Few, none, or more than the limit are chosen; PyTorch's topk leaves the order of equal ones open."""
    module, run = opened
    for seed in range(6):
        chosen = [(1, column) for column in columns] + [(0, 6)]
        inputs = choices_inputs(chosen, seed, (2, 2))
        found = run(*arrays(inputs))
        row, column = found[:2]
        present = found[2] if module.padded else np.ones(len(row), bool)
        ranked = sorted(columns, key=lambda column: (-inputs[0][1, column].item(), column))[:3]
        assert row[present].tolist() == [0] + [1] * len(ranked)
        assert column[present].tolist() == [6, *ranked]
        if module.padded:
            assert present.tolist() == [True, False, False, *(place < len(ranked) for place in range(3))]
            assert row.tolist() == [0] * 3 + [1] * 3
