"""What goes into a graph: arrays that fit it, and boxes of the caller as rois on its canvas."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from toy_model import SPEC, toy_proto, write_toy

from edgemask.canvas import Placement, placement_of
from edgemask.errors import ModelFileError, UsageError
from edgemask.runtimes import Detector, read_model, write_model
from edgemask.runtimes.inputs import checked_inputs, rois_of
from edgemask.spec import ModelSpec

TAKES = SPEC.replace(proposals="input")
PADDED = TAKES.replace(outputs="padded", max_proposals=3, canvas=(64, 96), batch=2)
IMAGE = Placement((100, 200), (50, 100), (64, 128), resized_beyond_reference=False)
SQUARE = np.zeros((64, 64, 3), np.uint8)


def images(count: int = 1, height: int = 64, width: int = 96) -> NDArray[np.float32]:
    return np.zeros((count, 3, height, width), np.float32)


def sizes(count: int = 1) -> NDArray[np.int64]:
    return np.array([[60, 90]] * count, np.int64)


def rois(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 5)


def test_inputs_by_name() -> None:
    assert list(checked_inputs(images(), sizes(), None, SPEC)) == ["images", "image_sizes"]
    given = images(2), sizes(2), rois((0, 1, 2, 3, 4), (1, 5, 6, 7, 8))
    found = checked_inputs(*given, TAKES.replace(batch=None))
    assert list(found) == ["images", "image_sizes", "proposals"]
    assert all(one is other for one, other in zip(found.values(), given, strict=True))
    assert len(checked_inputs(images(), sizes(), rois(), TAKES)["proposals"]) == 0, "an image may have none"


def test_padded_inputs_have_one_shape() -> None:
    given = np.zeros((6, 5), np.float32)
    assert checked_inputs(images(2), sizes(2), given, PADDED)["proposals"] is given
    for rows in (0, 3, 5, 7):
        with pytest.raises(UsageError, match=rf"proposals: expected \[6, 5\], got \[{rows}, 5\]"):
            checked_inputs(images(2), sizes(2), np.zeros((rows, 5), np.float32), PADDED)


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        (None, "expected boxes for each image, got None"),
        (rois((0, 1, 2, 3, 4)).astype(np.float64), "expected float32 of 2 dimensions, got float64"),
        (np.zeros((1, 4), np.float32), r"expected \[1, 5\].*, got \[1, 4\]"),
        (np.zeros(5, np.float32), r"of 2 dimensions, got float32 \[5\]"),
        ([[0, 1, 2, 3, 4]], r"of 2 dimensions, got list \[1, 5\]"),
        (rois((1, 1, 2, 3, 4)), r"batch indices below 1 in column 0, got \[1.0\]"),
        (rois((-1, 1, 2, 3, 4)), "batch indices below 1"),
        (rois((0.5, 1, 2, 3, 4)), "batch indices below 1"),
        (rois((np.nan, 1, 2, 3, 4)), "batch indices below 1"),
        (rois((0, 1, 2, 3, 4), (0, 1, np.nan, 3, 4)), r"finite numbers, got \[0.0, 1.0, nan, 3.0, 4.0\]"),
        (rois((0, 1, 2, np.inf, 4)), "finite numbers"),
    ],
)
def test_proposals_that_do_not_fit_the_graph(proposals: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^proposals: .*{message}"):
        checked_inputs(images(), sizes(), proposals, TAKES)


def test_proposals_of_a_graph_that_finds_its_own() -> None:
    with pytest.raises(UsageError, match="None: this model finds its own, got some") as caught:
        checked_inputs(images(), sizes(), rois(), SPEC)
    assert caught.value.remedy == "export it with proposals='input'"


def test_boxes_are_scaled_to_the_canvas() -> None:
    other = Placement((30, 20), (60, 60), (64, 64), resized_beyond_reference=False)
    boxes = [[[0, 0, 200, 100], [20, 10, 30, 40]], np.array([[10, 15, 20, 30]], np.float64)]
    found = rois_of(boxes, [IMAGE, other], 2, TAKES)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.tolist() == [[0, 0, 0, 100, 50], [0, 10, 5, 15, 20], [1, 30, 30, 60, 60]]


def test_padded_rows_are_zeros_of_their_image() -> None:
    boxes = [[[2, 4, 6, 8]], [], [[0, 0, 2, 2], [4, 4, 6, 6], [8, 8, 10, 10]]]
    found = rois_of(boxes, [IMAGE] * 3, 4, PADDED)
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    expected = np.zeros((4, 3, 4))
    expected[0, 0] = [1, 2, 3, 4]
    expected[2] = [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]
    np.testing.assert_array_equal(found[:, 1:].reshape(4, 3, 4), expected)
    with pytest.raises(UsageError, match="proposals: expected at most 3 for an image, got 4") as caught:
        rois_of([boxes[0], boxes[2] + boxes[0]], [IMAGE] * 2, 2, PADDED)
    assert "export it with more" in str(caught.value.remedy)
    assert len(rois_of([boxes[2] + boxes[0]], [IMAGE], 1, TAKES.replace(max_proposals=3))) == 4, "flat rows are free"


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 4), np.float32), np.zeros((0, 4))])
def test_no_boxes(nothing: Any) -> None:
    assert rois_of([nothing], [IMAGE], 1, TAKES).shape == (0, 5)
    found = rois_of([nothing, [[2, 4, 6, 8]]], [IMAGE] * 2, 2, TAKES)
    assert found.tolist() == [[1, 1, 2, 3, 4]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16, np.float16, np.float64])
def test_any_numbers(dtype: Any) -> None:
    found = rois_of([np.array([[2, 4, 60, 80]], dtype)], [IMAGE], 1, TAKES)
    assert found.tolist() == [[0, 1, 2, 30, 40]]


def test_rounding_beyond_the_border_is_cut_off() -> None:
    found = rois_of([[[-0.01, -0.005, 200.01, 100.005], [0, 0, 200, 100]]], [IMAGE], 1, TAKES)
    assert found[0].tolist() == found[1].tolist() == [0, 0, 0, 100, 50]


@pytest.mark.parametrize(
    "box",
    [
        [-0.02, 0, 9, 9],
        [0, -0.02, 9, 9],
        [0, 0, 200.03, 9],
        [0, 0, 9, 100.03],
        [0, 0, 100, 200],  # height and width in the wrong order
        [10, 10, 5, 20],  # width where the right side belongs
        [10, 10, 10, 20],
        [10, 10, 20, 10],
        [200.002, 0, 200.008, 9],  # nothing is left of it within the image
        [0, np.nan, 9, 9],
        [0, 0, np.inf, 9],
        [-1e300, 0, 9, 9],  # more than float32 holds
    ],
)
def test_what_is_no_box_of_the_image(box: list[float]) -> None:
    inside = r"boxes \(x1, y1, x2, y2\) with an area, inside the image of 100 x 200 pixels \(H x W\)"
    with pytest.raises(UsageError, match=f"^proposals: expected {inside}, got ") as caught:
        rois_of([[[0, 0, 9, 9], box, [0, 0, 8, 8]]], [IMAGE], 1, TAKES)
    with np.errstate(over="ignore"):
        shown = str(np.array(box, np.float32).tolist())
    assert shown in caught.value.problem, "the first that is wrong is named"
    assert "cut them off" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("boxes", "got"),
    [
        ([0, 0, 9, 9], r"int64 \[4\]"),
        ([[0, 0, 9]], r"int64 \[1, 3\]"),
        ([[0, 0, 9, 9, 0.5]], r"float64 \[1, 5\]"),
        ([["0", "0", "9", "9"]], r"<U1 \[1, 4\]"),
        ([[True, False, True, True]], r"bool \[1, 4\]"),
        ([[0, 0, 9, None]], r"object \[1, 4\]"),
        ([[[0, 0, 9, 9]]], r"int64 \[1, 1, 4\]"),
        ([[0, 0, 9], [0, 0, 9, 9]], "rows of different lengths"),
        (5, r"int64 \[\]"),
        (None, r"object \[\]"),
        (np.zeros((0, 2, 4)), r"float64 \[0, 2, 4\]"),
    ],
)
def test_what_is_no_list_of_boxes(boxes: Any, got: str) -> None:
    with pytest.raises(UsageError, match=rf"proposals: expected numbers \[N, 4\] for each image, got {got}"):
        rois_of([boxes], [IMAGE], 1, TAKES)


def taking_proto() -> onnx.ModelProto:
    """The toy, whose boxes depend on an input `proposals`: the largest of its numbers, times nothing."""
    proto = toy_proto()
    proto.graph.input.append(helper.make_tensor_value_info("proposals", TensorProto.FLOAT, ["rois", 5]))
    (product,) = (node for node in proto.graph.node if node.output[0] == "stage/product")
    product.input[1] = "stage/sum"
    place = [*proto.graph.node].index(product)
    # Of an empty tensor the sum is 0, while the maximum would be no number.
    for node in (
        helper.make_node("Add", ["stage/longest", "stage/rois"], ["stage/sum"]),
        helper.make_node("ReduceSum", ["proposals"], ["stage/rois"], keepdims=0),
    ):
        proto.graph.node.insert(place, node)
    return proto


class Noting(Detector):
    """Keeps the rois that it was run with."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_model(path), "cpu")
        self.rois: list[NDArray[np.float32] | None] = []

    def run(self, images: Any, image_sizes: Any, proposals: Any = None) -> Any:
        self.rois.append(proposals)
        return super().run(images, image_sizes, proposals)


@pytest.fixture
def taking(tmp_path: Path) -> Noting:
    write_model(taking_proto(), TAKES, tmp_path / "m.onnx")
    return Noting(tmp_path / "m.onnx")


def test_predict_gives_each_image_its_own_boxes(taking: Noting) -> None:
    half = np.zeros((128, 128, 3), np.uint8)
    assert len(taking.predict(SQUARE, proposals=[[0, 0, 8, 8]])) == 2
    found = taking.predict((SQUARE, half), proposals=([[1, 2, 3, 4]], np.array([[2, 4, 6, 8], [0, 0, 128, 128]])))
    assert [one.image_size for one in found] == [(64, 64), (128, 128)]
    taking.predict([SQUARE], proposals=[[]])
    rows = [[[0, 0, 0, 8, 8]], [[0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4], [0, 0, 0, 64, 64]], []]
    assert [given.tolist() for given in taking.rois if given is not None] == rows
    assert taking.predict([], proposals=[]) == []
    stacked = np.tile([0, 0, 8, 8.0], (2, 3, 1))
    assert len(taking.predict([SQUARE, SQUARE], proposals=stacked)) == 2


def test_predict_refuses_proposals_that_do_not_fit(taking: Noting, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="proposals: expected boxes for each image, got None") as caught:
        taking.predict(SQUARE)
    assert "without its RPN" in str(caught.value.remedy)
    for given in ([], [[], []]):
        with pytest.raises(UsageError, match=f"one array for each of 1 images, got {len(given)}"):
            taking.predict([SQUARE], proposals=given)
    with pytest.raises(UsageError, match="inside the image of 64 x 64 pixels"):
        taking.predict(SQUARE, proposals=[[0, 0, 65, 9]])
    assert taking.rois == [], "nothing was run"
    with Detector(read_model(write_toy(tmp_path / "own.onnx")), "cpu") as detector:
        for source, proposals in ((SQUARE, [[0, 0, 9, 9]]), (SQUARE, []), ([SQUARE], [[]])):
            with pytest.raises(UsageError, match="proposals: expected None: this model finds its own"):
                detector.predict(source, proposals=proposals)
        assert len(detector.predict(SQUARE)) == 2


def test_a_batch_is_filled_up_without_rois(tmp_path: Path) -> None:
    """The last image stands in for missing ones, its boxes do not."""
    proto = taking_proto()
    for value in proto.graph.input[:2]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    write_model(proto, TAKES.replace(batch=3), tmp_path / "m.onnx")
    with Noting(tmp_path / "m.onnx") as detector:
        detector.predict([SQUARE] * 2, proposals=[[[0, 0, 8, 8]], [[0, 0, 4, 4]]])
        assert [given.tolist() for given in detector.rois if given is not None] == [[[0, 0, 0, 8, 8], [1, 0, 0, 4, 4]]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TAKES, "takes no proposals"),
        (SPEC.replace(outputs="padded"), "gives no num_detections"),
        (SPEC.replace(tasks=("boxes", "masks", "keypoints")), "gives no keypoint_heatmaps"),
        (SPEC.replace(tasks=("boxes", "keypoints"), mask_size=None, outputs="padded"), "keypoint_heatmaps, num_det"),
    ],
)
def test_a_spec_that_its_graph_does_not_keep(tmp_path: Path, spec: ModelSpec, message: str) -> None:
    write_model(toy_proto(), spec, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=rf"the graph of .*m\.onnx .*{re.escape(message)}") as caught:
        read_model(tmp_path / "m.onnx")
    assert caught.value.remedy == "export the model again"


def test_scaling_is_that_of_the_placement() -> None:
    """Whatever the sizes are, a box over the whole image covers the whole resized image, and no more than rounding."""
    spec = TAKES.replace(min_size=100, max_size=160)
    chance = np.random.default_rng(0)
    for height, width in chance.integers(3, 2000, (200, 2)).tolist():
        if max(height, width) > 100 * min(height, width):
            continue
        placement = placement_of((height, width), spec)
        (found,) = rois_of([[[0, 0, width, height]]], [placement], 1, spec)
        np.testing.assert_allclose(found, [0, 0, 0, placement.size[1], placement.size[0]], rtol=2e-7)
