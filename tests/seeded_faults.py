"""Faults as they happen to exporters and runtimes, each put into a sound file or into the runtime that reads it.

from seeded_faults import FAULTS, model
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from families import load
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgemask import canvas
from edgemask.masks import paste_masks
from edgemask.runtimes import read_model, write_model

Proto = onnx.ModelProto


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        stage: the first stage that it spoils.
        edit: puts it into the graph of a file ...
        patch: ... or names what of the runtime it takes the place of, and by what.
    """

    stage: str
    edit: Callable[[Proto], None] | None = None
    patch: tuple[str, Any] | None = None

    @contextlib.contextmanager
    def within(self, path: Path, copy: Path) -> Iterator[Path]:
        """Gives the file to run while the block lasts: a copy with the fault, or the file itself."""
        if self.edit is not None:
            file = read_model(path)
            self.edit(file.proto)
            write_model(file.proto, file.spec, copy)
            yield copy
        if self.patch is not None:
            with mock.patch(*self.patch):
                yield path


def model() -> Any:
    """The trained model that is exported, and the reference: `seeded_faults:model`."""
    return load("mask_bottleneck")


def set_attribute(stage: str, name: str, value: Any) -> Callable[[Proto], None]:
    """Changes an attribute of the op that pools for a stage."""

    def edit(proto: Proto) -> None:
        (node,) = [node for node in proto.graph.node if node.name.startswith(f"{stage}/pool/MultiScaleRoiAlign")]
        (attribute,) = [attribute for attribute in node.attribute if attribute.name == name]
        attribute.CopyFrom(helper.make_attribute(name, value))

    return edit


def function(proto: Proto, name: str) -> onnx.FunctionProto:
    (found,) = [function for function in proto.functions if function.name.startswith(name)]
    return found


def place_of(nodes: Any, output: str) -> int:
    return next(index for index, node in enumerate(nodes) if output in node.output)


def drop_level_tolerance(proto: Proto) -> None:
    body = function(proto, "MultiScaleRoiAlign").node
    body[place_of(body, "tolerance")].CopyFrom(helper.make_node("Constant", [], ["tolerance"], value_float=1.0))


def half_precision_areas(proto: Proto) -> None:
    """As a converter to float16 leaves it: above 65,504 square pixels the area is infinite."""
    body = function(proto, "MultiScaleRoiAlign").node
    place = place_of(body, "area")
    body[place].output[0] = "exact"
    body.insert(place + 1, helper.make_node("Cast", ["exact"], ["half"], to=TensorProto.FLOAT16))
    body.insert(place + 2, helper.make_node("Cast", ["half"], ["area"], to=TensorProto.FLOAT))


def suppress_at_the_threshold(proto: Proto) -> None:
    """`>=` for `>`: a threshold that is one float32 lower."""
    body = function(proto, "BatchedNms").node
    place = place_of(body, "overlap")
    body[place].output[0] = "exact"
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    body.insert(place + 1, helper.make_node("Constant", [], ["below_one"], value_float=below_one))
    body.insert(place + 2, helper.make_node("Mul", ["exact", "below_one"], ["overlap"]))


def swap_colours(proto: Proto) -> None:
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == "images":
                node.input[index] = "images/swapped"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "blue_first"))
    swap = helper.make_node("Gather", ["images", "blue_first"], ["images/swapped"], "stage/Gather_swapped", axis=1)
    proto.graph.node.insert(0, swap)


def shift_labels(proto: Proto) -> None:
    node = proto.graph.node[place_of(proto.graph.node, "labels")]
    node.output[list(node.output).index("labels")] = "labels/own"
    for other in proto.graph.node:
        for index, name in enumerate(other.input):
            if name == "labels":
                other.input[index] = "labels/own"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "labels/one"))
    proto.graph.node.append(helper.make_node("Add", ["labels/own", "labels/one"], ["labels"], "nms/Add_shifted"))


def antialiased(image: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
    """Resizes as Pillow does where nobody tells it otherwise."""
    for channel, plane in enumerate(planes):
        picture = Image.fromarray(image[..., channel].astype(np.float32))
        plane[:] = np.asarray(picture.resize(plane.shape[::-1], Image.Resampling.BILINEAR))


def one_column_less(height: int, width: int, spec: Any) -> tuple[int, int]:
    rows, columns = canvas_size(height, width, spec)
    return rows, columns - 1


canvas_size = canvas.eager_size


def pasted_small(
    masks: NDArray[np.float32], boxes: NDArray[np.float32], image_size: tuple[int, int], threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Pastes at the size of the network, half of the image's, and enlarges the bitmaps."""
    size = image_size[0] // 2, image_size[1] // 2
    small = paste_masks(masks, boxes / np.float32(2), size, threshold)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    missing = image_size[0] - large.shape[1], image_size[1] - large.shape[2]
    return np.pad(large, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")


FAULTS = {
    "aligned flipped": Fault(
        "box_head", edit=set_attribute("box_head", "coordinate_transformation_mode", "half_pixel")
    ),
    "aligned flipped for masks": Fault(
        "mask_head", edit=set_attribute("mask_head", "coordinate_transformation_mode", "half_pixel")
    ),
    "sampling ratio 1": Fault("box_head", edit=set_attribute("box_head", "sampling_ratio", 1)),
    "level tolerance dropped": Fault("box_head", edit=drop_level_tolerance),
    "RGB for BGR": Fault("stage/resize", edit=swap_colours),
    "resize off by one": Fault("stage/resize", patch=("edgemask.canvas.eager_size", one_column_less)),
    "resize antialiased": Fault("stage/resize", patch=("edgemask.canvas._resize_into", antialiased)),
    "suppression at the threshold": Fault("proposals", edit=suppress_at_the_threshold),
    "areas in float16": Fault("box_head", edit=half_precision_areas),
    "masks pasted at network size": Fault("paste", patch=("edgemask.detections.paste_masks", pasted_small)),
    "labels shifted": Fault("nms", edit=shift_labels),
}
