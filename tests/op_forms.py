"""The two ops in every form, each as a function of arrays, and the comparisons that the tests share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgemask import ops
from edgemask.export.onnx_ops import BODY_OPSET, MIN_IR_VERSION, local_functions
from edgemask.ops import DOMAIN, DOMAIN_VERSION
from edgemask.optest.running import ROI_ALIGN_TOLERANCE as ROI_ALIGN_TOLERANCE
from edgemask.runtimes.functions import for_openvino
from edgemask.runtimes.ov import shared_core

Array = NDArray[Any]
Form = Callable[[Sequence[Array]], Array]
Case = list[Array]
NMS_KINDS = ("nested", "ordered", "repeated", "grid", "spread")


def roi_align_attributes(levels: int, **changes: Any) -> dict[str, Any]:
    """All attributes of the node, in its notation: torchvision's box pooler unless changed."""
    return {
        "output_height": 7,
        "output_width": 7,
        "sampling_ratio": 2,
        "coordinate_transformation_mode": "output_half_pixel",
        "spatial_scales": [2.0 ** -(level + 2) for level in range(levels)],
        "canonical_scale": 224.0,
        "canonical_level": 4,
        **changes,
    }


def roi_align_model(attributes: Mapping[str, Any], *, static: bool = False) -> onnx.ModelProto:
    levels = len(attributes["spatial_scales"])
    inputs: dict[str, list[int | str]] = {
        f"level_{level}": ["B", "C", f"H{level}", f"W{level}"] for level in range(levels)
    }
    output = ["R", "C", attributes["output_height"], attributes["output_width"]]
    return _model(
        f"MultiScaleRoiAlign_L{levels}",
        {**inputs, "rois": ["R", 5]},
        (TensorProto.FLOAT, output),
        attributes,
        static=static,
    )


def nms_model(attributes: Mapping[str, Any]) -> onnx.ModelProto:
    inputs: dict[str, list[int | str]] = {"boxes": ["B", "N", 4], "scores": ["B", "C", "N"]}
    return _model("BatchedNms", inputs, (TensorProto.INT64, ["M", 3]), attributes)


def _model(
    op_type: str,
    inputs: Mapping[str, Sequence[int | str]],
    output: tuple[int, Sequence[int | str]],
    attributes: Mapping[str, Any],
    *,
    static: bool = False,
) -> onnx.ModelProto:
    node = helper.make_node(op_type, list(inputs), ["output"], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        op_type,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("output", *output)],
    )
    opsets = [helper.make_opsetid("", BODY_OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=MIN_IR_VERSION)
    model.functions.extend(local_functions(model, static))
    return model


def nms_case(random: np.random.Generator, kind: str, sizes: tuple[int, int, int]) -> Case:
    """Boxes and scores of so many images, classes and boxes.

    Boxes on a small grid, where most overlaps are equal fractions and some corners are flipped; one inside the other;
    each several times; and anywhere, with ordered corners, near to each other or spread over a canvas. Scores are tied,
    except for the boxes near to each other.
    """
    batch, classes, amount = sizes
    boxes: Array = random.integers(0, 7, (batch, amount, 4)).astype(np.float32)
    if kind == "nested":  # along x: every overlap is k / m for k, m up to 20
        boxes[..., :2], boxes[..., 3] = 0, 1
        boxes[..., 2] = random.integers(1, 21, (batch, amount))
    elif kind == "ordered":
        boxes = np.sort(random.uniform(0, 30, (batch, amount, 2, 2)), axis=2).reshape(batch, amount, 4)
    elif kind == "repeated":
        boxes = boxes[:, random.integers(0, max(1, amount // 3), amount)] if amount else boxes
    elif kind == "spread":
        boxes[..., :2] = random.uniform(0, 1300, (batch, amount, 2))
        boxes[..., 2:] = boxes[..., :2] + np.exp(random.uniform(0, 6, (batch, amount, 2)))
    scores = random.choice([-0.5, 0.0, 0.05, 0.3, 0.7, 0.9], (batch, classes, amount))
    if kind == "ordered":
        scores = random.uniform(0, 1, scores.shape)
    return [boxes.astype(np.float32), scores.astype(np.float32)]


def roi_align_reference(attributes: Mapping[str, Any]) -> Form:
    rest = {key: value for key, value in attributes.items() if key not in ("output_height", "output_width")}
    size = (attributes["output_height"], attributes["output_width"])
    return lambda case: ops.multi_scale_roi_align(case[:-1], case[-1], output_size=size, **rest)


def nms_reference(attributes: Mapping[str, Any]) -> Form:
    return lambda case: ops.batched_nms(*case, **attributes)


def roi_align_in_torch(attributes: Mapping[str, Any]) -> Form:
    import torch

    import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask

    def run(case: Sequence[Array]) -> Array:
        features = [torch.from_numpy(feature) for feature in case[:-1]]
        pooled = torch.ops.edgemask.multi_scale_roi_align(features, torch.from_numpy(case[-1]), **attributes)
        return np.asarray(pooled)

    return run


def nms_in_torch(attributes: Mapping[str, Any]) -> Form:
    import torch

    import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask

    return lambda case: np.asarray(
        torch.ops.edgemask.batched_nms(*(torch.from_numpy(array) for array in case), **attributes)
    )


def on_onnxruntime(model: onnx.ModelProto) -> Form:
    """The model with its local functions, as ONNX Runtime takes it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda case: np.asarray(session.run(None, dict(zip(names, case, strict=True)))[0])


def on_openvino(model: onnx.ModelProto, prepare: Callable[[onnx.ModelProto], onnx.ModelProto] = for_openvino) -> Form:
    """The model as edgemask gives it to OpenVINO; another `prepare` leaves out what `for_openvino`
    corrects."""
    core = shared_core()
    readable = core.read_model(prepare(model).SerializeToString(), b"")
    compiled = core.compile_model(readable, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()
    return lambda case: np.array(request.infer(list(case))[0])


def largest_error(reference: Form, form: Form, cases: Iterable[Case]) -> float:
    """The largest absolute difference over the cases; NaN where either side has one, infinite for another
    shape."""
    errors = [0.0]
    for case in cases:
        expected, actual = reference(case), form(case)
        same_shape = expected.shape == actual.shape
        errors.append(float(np.abs(expected - actual).max(initial=0.0)) if same_shape else np.inf)
    return float(np.max(errors))


def different_selections(reference: Form, form: Form, cases: Iterable[Case]) -> int:
    """How many cases do not give the same rows in the same order."""
    return sum(not np.array_equal(reference(case), form(case)) for case in cases)
