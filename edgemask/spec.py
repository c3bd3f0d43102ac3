"""ModelSpec: everything about a model that travels as JSON inside its ONNX file.

A spec read from a file is data from a stranger: every value is checked for type, range and length, and
nothing in it can name a path, a library or a provider option.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from edgemask.checks import (
    Check,
    Described,
    choice,
    json_object,
    number,
    optional,
    pattern,
    record_of,
    refuse,
    several,
    text,
    texts_by_name,
    whole,
)
from edgemask.errors import ModelFileError, UsageError

SPEC_KEY = "edgemask.spec"
DIGEST_KEY = "edgemask.digest"

FORMAT_VERSION = "1.3"
# Fields that a later minor version brought, by their value in files that lack them.
_LATER_FIELDS = {"proposals": "rpn", "ops": None, "quantization": None}
TASKS = ("boxes", "masks", "keypoints", "semantic")

TEXT_LIMIT = 1 << 20
CLASS_LIMIT = 10_000
KEYPOINT_LIMIT = 1024  # of an object
SIDE_LIMIT = 16_384
# Either of min_size and max_size may be huge to leave the other in charge; only the canvas costs memory.
RESIZE_LIMIT = 1_000_000
CATEGORY_LIMIT = 2**53
OP_LIMIT = 64  # custom ops in a file, and inputs of one
LAYER_LIMIT = 10_000


def class_names_without_background(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names without a leading `__background__`, so that label l is `names[l - 1]`."""
    names = tuple(names)
    return names[1:] if names[:1] == ("__background__",) else names


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a runtime has to know about a model, frozen and checked.

    Lists are taken as tuples and numpy scalars as Python numbers; JSON values are deep copies.

    Args:
        tasks: what the graph gives, out of `boxes`, `masks`, `keypoints`, `semantic`.
        class_names: C - 1 names without background; label l (1 ... C-1) is `class_names[l - 1]`.
        category_ids: C - 1 distinct ids of the data set, for COCO results; left empty: the labels.
        min_size: pixels of the resized short side, as torchvision's GeneralizedRCNNTransform in eval mode.
        max_size: pixels that the resized long side may not pass; it wins.
        fixed_size: (H, W) to which every image is stretched instead; torchvision's own argument is (W, H).
        image_mean: of R, G, B in 0-1.
        image_std: of R, G, B in 0-1.
        canvas: (H, W) of the network input, multiples of size_divisible; None: the resized size rounded up.
        size_divisible: pixels.
        batch: images per run; None: any number.
        score_threshold: detections with a lower score are not given, 0-1.
        nms_threshold: IoU, 0-1.
        max_detections: per image.
        max_proposals: rois per image that the box head scores; None: as many as the PyTorch model has.
        proposals: `rpn`, or `input` where the caller gives the rois that the box head scores (Fast R-CNN).
        mask_size: M of the `[N, M, M]` masks; None: no masks, or not known before the export.
        num_keypoints: K of the `[N, K, 3]` keypoints; None as for mask_size.
        outputs: `flat` (the rows of all images in turn) or `padded` (a fixed number of rows per image).
        precision: of the heavy operators.
        ops: the custom ops that the exporter wrote, in the graph's order: `name` of the node, `op` its type,
            `attributes`, and the names of the tensors around it, `inputs` and `output`, which stay where its body is
            inlined. None: not recorded.
        quantization: how the file was quantized, JSON values: `recipe`, its fields; `layers`, how many were quantized;
            `left_out`, names of those that the recipe would quantize and that stayed in FP32; `calibration`, on how
            many `images` and the `sha256` of these; `accuracy`, what was measured against FP32, or None. None: it is
            not.
        builder: name of the function that built the PyTorch model.
        builder_arguments: its arguments, JSON values.
        versions: of the packages that wrote the file.
        source_sha256: 64 hex digits, of the source weights.
        parity: summary of the comparison with the PyTorch model, JSON values.
        extra: keys that a newer minor format wrote, kept through a round trip.
        format_version: `major.minor` of this record.

    Raises:
        UsageError: a value that cannot be meant, as `expected ..., got ...`.
    """

    tasks: tuple[str, ...] = ("boxes", "masks")
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    min_size: int
    max_size: int
    fixed_size: tuple[int, int] | None = None
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    canvas: tuple[int, int] | None = None
    size_divisible: int = 32
    batch: int | None = 1
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    max_proposals: int | None = None
    proposals: Literal["rpn", "input"] = "rpn"
    mask_size: int | None = None
    num_keypoints: int | None = None
    outputs: Literal["flat", "padded"] = "flat"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    ops: tuple[dict[str, Any], ...] | None = None
    quantization: dict[str, Any] | None = None
    builder: str | None = None
    builder_arguments: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    source_sha256: str | None = None
    parity: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    format_version: str = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.class_names) + 1)))
        _check_together(self)

    def replace(self, **changes: Any) -> Self:
        """Returns a checked copy with some fields changed.

        A new number of classes needs new category_ids too; `category_ids=()` numbers them by label.
        """
        return dataclasses.replace(self, **changes)

    def label_name(self, label: int) -> str:
        """Returns the class name of a label 1 ... C-1.

        Raises:
            UsageError: no such label.
        """
        if not 1 <= label <= len(self.class_names):
            refuse("label", f"1 to {len(self.class_names)}", label)
        return self.class_names[label - 1]

    def to_json(self) -> str:
        """Returns the record as ASCII JSON with sorted keys, the same text for the same spec.

        Raises:
            UsageError: the text would be longer than a reader accepts.
        """
        record = {name: getattr(self, name) for name in _CHECKS.keys() - {"extra"}} | self.extra
        text = json.dumps(record, sort_keys=True, ensure_ascii=True, allow_nan=False)
        if len(text) > TEXT_LIMIT:
            raise UsageError(f"specification: expected at most {TEXT_LIMIT} characters, got {len(text)}")
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: anything else, whatever it is.
        """
        try:
            record = _LATER_FIELDS | _parse(text)
            _version("format_version", record.get("format_version"))
            names = _CHECKS.keys() - {"extra"}
            if missing := sorted(names - record.keys()):
                refuse("keys", "all fields of ModelSpec", Described(f"none named {', '.join(missing)}"))
            return cls(**{name: record.pop(name) for name in names}, extra=record)
        except UsageError as error:
            problem, remedy = error.problem, error.remedy
        except RecursionError:
            problem, remedy = "expected shallow JSON, got values nested too deep", None
        raise ModelFileError(f"specification inside the model file: {problem}", remedy or "export the model again")


def _parse(text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        refuse("specification", "text", Described(type(text).__name__))
    if len(text) > TEXT_LIMIT:
        refuse("specification", f"at most {TEXT_LIMIT} characters", len(text))
    try:
        record = json.loads(text, parse_constant=lambda constant: refuse("number", "a finite one", constant))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"expected JSON, got {text[:40]!a} ({error})") from error
    if not isinstance(record, dict):
        refuse("specification", "a JSON object", record)
    return record


def _version(name: str, value: Any) -> str:
    version: str = pattern(r"[0-9]{1,4}\.[0-9]{1,4}", "major.minor")(name, value)
    if int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0]):
        refuse(
            name,
            f"{FORMAT_VERSION} or an older major version",
            value,
            "update edgemask here, or export the model with the version that is installed here",
        )
    return version


_size = several(whole(1, SIDE_LIMIT), 2, 2)
# Made of the paths of a user's own modules, which may be long.
_graph_name = pattern(r"[^\x00-\x1f\x7f-\x9f]{1,1000}", "1 to 1000 characters without control characters")

_sha256 = pattern(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")
_op = record_of(
    {
        "name": _graph_name,
        "op": text,
        "attributes": json_object,
        "inputs": several(_graph_name, 1, OP_LIMIT),
        "output": _graph_name,
    }
)
_quantization = record_of(
    {
        "recipe": json_object,
        "layers": whole(1, LAYER_LIMIT),
        "left_out": several(_graph_name, 0, LAYER_LIMIT),
        "calibration": record_of({"images": whole(1, CATEGORY_LIMIT), "sha256": _sha256}),
        "accuracy": optional(json_object),
    }
)

_CHECKS: dict[str, Check] = {
    "format_version": _version,
    "tasks": several(choice(*TASKS), 1, len(TASKS)),
    "class_names": several(text, 1, CLASS_LIMIT),
    "category_ids": several(whole(0, CATEGORY_LIMIT), 0, CLASS_LIMIT),
    "min_size": whole(1, RESIZE_LIMIT),
    "max_size": whole(1, RESIZE_LIMIT),
    "fixed_size": optional(_size),
    "image_mean": several(number(-1e6, 1e6), 3, 3),
    "image_std": several(number(1e-6, 1e6), 3, 3),
    "canvas": optional(_size),
    "size_divisible": whole(1, 1024),
    "batch": optional(whole(1, 1024)),
    "score_threshold": number(0, 1),
    "nms_threshold": number(0, 1),
    "max_detections": whole(1, 100_000),
    "max_proposals": optional(whole(1, 100_000)),
    "proposals": choice("rpn", "input"),
    "mask_size": optional(whole(1, 1024)),
    "num_keypoints": optional(whole(1, KEYPOINT_LIMIT)),
    "outputs": choice("flat", "padded"),
    "precision": choice("fp32", "fp16", "int8"),
    "ops": optional(several(_op, 0, OP_LIMIT)),
    "quantization": optional(_quantization),
    "builder": optional(text),
    "builder_arguments": json_object,
    "versions": texts_by_name,
    "source_sha256": optional(_sha256),
    "parity": optional(json_object),
    "extra": json_object,
}


def _check_together(spec: ModelSpec) -> None:
    if len(set(spec.tasks)) != len(spec.tasks):
        refuse("tasks", "each task once", spec.tasks)
    if ("boxes" in spec.tasks) == ("semantic" in spec.tasks):
        refuse("tasks", "boxes, with masks and keypoints or without, or semantic alone", spec.tasks)
    if "semantic" in spec.tasks and len(spec.tasks) > 1:
        refuse("tasks", "semantic alone", spec.tasks)
    if "semantic" in spec.tasks and spec.proposals == "input":
        refuse("proposals", "rpn without boxes among the tasks", spec.proposals)
    for task, name in (("masks", "mask_size"), ("keypoints", "num_keypoints")):
        if task not in spec.tasks and getattr(spec, name) is not None:
            refuse(name, f"None without {task} among the tasks", getattr(spec, name))
    if len(spec.category_ids) != len(spec.class_names):
        refuse(
            "category_ids",
            f"one per class name ({len(spec.class_names)})",
            len(spec.category_ids),
            "leave category_ids=() to number them by label",
        )
    if len(set(spec.category_ids)) != len(spec.category_ids):
        refuse("category_ids", "distinct ids", spec.category_ids)
    if spec.canvas is not None and any(side % spec.size_divisible for side in spec.canvas):
        refuse("canvas", f"multiples of size_divisible {spec.size_divisible}", spec.canvas)
    if clash := sorted(spec.extra.keys() & _CHECKS.keys()):
        refuse("extra", "keys that are no field of ModelSpec", clash)
