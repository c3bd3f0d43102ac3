"""ModelSpec: a checked record that comes back from JSON as it went in, whatever else the file holds."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from edgemask.checks import is_control, printable
from edgemask.errors import EdgemaskError, ModelFileError, UsageError
from edgemask.spec import CLASS_LIMIT, TEXT_LIMIT, ModelSpec, class_names_without_background

OP = {
    "name": "nms/BatchedNms",
    "op": "BatchedNms",
    "attributes": {"iou_threshold": 0.5, "max_per_class": 100},
    "inputs": ["nms/Transpose", "nms/Where"],
    "output": "nms",
}
QUANTIZATION = {
    "recipe": {"name": "default", "method": "mse"},
    "layers": 40,
    "left_out": ["backbone/1/Conv"],
    "calibration": {"images": 100, "sha256": "fedcba9876543210" * 4},
    "accuracy": {"max_drop": 0.01},
}
FULL = ModelSpec(
    tasks=("boxes", "masks", "keypoints"),
    class_names=("person", "Öl-Fass"),
    category_ids=(1, 90),
    min_size=800,
    max_size=1333,
    fixed_size=(480, 640),
    image_mean=(0.1, 0.2, 0.3),
    image_std=(0.4, 0.5, 0.6),
    canvas=(800, 1088),
    size_divisible=16,
    batch=None,
    score_threshold=0.25,
    nms_threshold=0.6,
    max_proposals=500,
    proposals="input",
    max_detections=50,
    mask_size=28,
    num_keypoints=17,
    outputs="padded",
    precision="int8",
    ops=(OP,),
    quantization=QUANTIZATION,
    builder="maskrcnn_resnet50_fpn",
    builder_arguments={"trainable": [1, 2.5, None, True, {"a": "b"}]},
    versions={"torch": "2.15.0"},
    source_sha256="0123456789abcdef" * 4,
    parity={"matched": 0.999},
    extra={"from_the_future": {"x": [1]}},
)


def small(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {"class_names": ("cell",), "min_size": 256, "max_size": 320}
    return ModelSpec(**(values | changes))


def record(**changes: Any) -> str:
    return json.dumps(json.loads(FULL.to_json()) | changes)


def test_full_record_differs_from_every_default() -> None:
    plain = small()
    same = [f.name for f in dataclasses.fields(FULL) if getattr(FULL, f.name) == getattr(plain, f.name)]
    assert same == ["format_version"]  # so the round trip below would notice a field that is forgotten


@pytest.mark.parametrize("spec", [FULL, small()])
def test_round_trip(spec: ModelSpec) -> None:
    text = spec.to_json()
    assert ModelSpec.from_json(text) == spec
    assert ModelSpec.from_json(text).to_json() == text


def test_json_is_sorted_ascii() -> None:
    text = FULL.to_json()
    assert text.isascii()
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_unknown_keys_of_a_newer_minor_format_survive() -> None:
    spec = ModelSpec.from_json(record(format_version="1.7", tiling={"overlap": 32}))
    assert spec.extra == {"from_the_future": {"x": [1]}, "tiling": {"overlap": 32}}
    again = json.loads(spec.to_json())
    assert (again["format_version"], again["tiling"]) == ("1.7", {"overlap": 32})


@pytest.mark.parametrize("version", ["2.0", "10.3"])
def test_newer_major_format_says_how_to_go_on(version: str) -> None:
    with pytest.raises(ModelFileError, match=f"got '{version}'") as caught:
        ModelSpec.from_json(record(format_version=version, tasks="not even a list"))
    assert caught.value.remedy
    assert "update edgemask" in caught.value.remedy


@pytest.mark.parametrize("key", sorted(json.loads(small().to_json())))
@pytest.mark.parametrize("value", [{"a": 1}, [[]], -1, "\x1b[2J", 1e400, 10**400, True, "x" * 5000])
def test_hostile_value_is_a_model_file_error_or_a_sound_record(key: str, value: object) -> None:
    text = json.dumps(json.loads(small().to_json()) | {key: value})
    if key in {"builder_arguments", "parity"} and value == {"a": 1}:
        assert getattr(ModelSpec.from_json(text), key) == value
        return
    with pytest.raises(ModelFileError) as caught:
        ModelSpec.from_json(text)
    assert len(str(caught.value)) < 400
    assert not any(map(is_control, caught.value.problem))


@pytest.mark.parametrize("key", sorted(json.loads(small().to_json()).keys() - {"proposals", "ops", "quantization"}))
def test_missing_key_is_named(key: str) -> None:
    values = json.loads(FULL.to_json())
    del values[key]
    with pytest.raises(ModelFileError, match=key):
        ModelSpec.from_json(json.dumps(values))


def test_what_version_1_0_lacks_has_its_old_meaning() -> None:
    values = json.loads(record(format_version="1.0"))
    del values["proposals"], values["ops"], values["quantization"]
    old = FULL.replace(proposals="rpn", ops=None, quantization=None, format_version="1.0")
    assert ModelSpec.from_json(json.dumps(values)) == old


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 0}, "expected a whole number from 1"),
        ({"left_out": ["\x1b[2J"]}, "without control characters"),
        ({"calibration": {"images": 100}}, "expected the keys images, sha256"),
        ({"calibration": {"images": 100, "sha256": "0"}}, "64 lower-case hexadecimal digits"),
        ({"more": 1}, "expected the keys recipe, layers"),
    ],
)
def test_a_record_of_a_quantization_is_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(quantization=QUANTIZATION | change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "7",
        '"text"',
        "{",
        "{}",
        "\x00",
        "\ud800",
        '{"format_version": NaN}',
        "[" * 100_000,
        '{"format_version": "1.0", "a": ' + "[" * 900 + "]" * 900 + "}",
        "9" * 5000,
        " " * (TEXT_LIMIT + 1),
        b"{}",
        None,
    ],
    ids=lambda text: ascii(text)[:16],
)
def test_garbage_is_a_model_file_error(text: Any) -> None:
    with pytest.raises(ModelFileError):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "tasks: expected a list of 1 to 4 entries"),
        ({"tasks": ("boxes", "poses")}, r"tasks\[1\]: expected boxes or masks .* got 'poses'"),
        ({"tasks": ("boxes", "boxes")}, "each task once"),
        ({"tasks": ("masks",)}, "boxes, with masks"),
        ({"class_names": ()}, "class_names: expected a list of 1"),
        ({"class_names": "cell"}, "class_names: expected a list"),
        ({"class_names": ("a\nb",)}, "without control characters"),
        ({"class_names": ("a\u202eb",)}, "without control characters"),
        ({"class_names": ("\ud800",)}, "without control characters"),
        ({"class_names": ("x" * 201,)}, "1 to 200 characters"),
        ({"class_names": ("",)}, "1 to 200 characters"),
        ({"class_names": ("x",) * (CLASS_LIMIT + 1)}, "1 to 10000 entries"),
        ({"category_ids": (1, 2)}, r"one per class name \(1\), got 2"),
        ({"class_names": ("a", "b"), "category_ids": (3, 3)}, "distinct"),
        ({"category_ids": (-1,)}, "whole number from 0"),
        ({"min_size": 0}, "min_size: expected a whole number from 1 to 1000000, got 0"),
        ({"min_size": True}, "got True"),
        ({"max_size": 320.0}, "whole number"),
        ({"fixed_size": (1, 2, 3)}, "fixed_size: expected a list of 2"),
        ({"canvas": (256, 100_000)}, r"canvas\[1\]"),
        ({"canvas": (256, 250)}, r"multiples of size_divisible 32, got \(256, 250\)"),
        ({"image_mean": (0.0, float("nan"), 0.0)}, r"image_mean\[1\].* got nan"),
        ({"image_std": (1, 1, 0)}, r"image_std\[2\]"),
        ({"batch": 0}, "batch"),
        ({"score_threshold": 1.5}, "score_threshold: expected a number from 0 to 1, got 1.5"),
        ({"nms_threshold": float("inf")}, "got inf"),
        ({"max_proposals": 0}, "max_proposals"),
        ({"max_detections": 0}, "max_detections"),
        ({"tasks": ("boxes",), "mask_size": 28}, "mask_size: expected None without masks"),
        ({"num_keypoints": 17}, "num_keypoints: expected None without keypoints"),
        ({"outputs": "ragged"}, "flat or padded"),
        ({"precision": "fp8"}, "fp32 or fp16 or int8"),
        ({"builder": ""}, "builder"),
        ({"builder_arguments": {"a": object()}}, "builder_arguments: expected JSON values"),
        ({"builder_arguments": {"a": float("nan")}}, "builder_arguments: expected JSON values"),
        ({"builder_arguments": [1]}, "builder_arguments: expected a dictionary"),
        ({"ops": [1]}, r"ops\[0\]: expected a dictionary"),
        ({"ops": [{"name": "nms/BatchedNms"}]}, r"ops\[0\]: expected the keys name, op, .* got \['name'\]"),
        ({"ops": [OP | {"output": ""}]}, r"ops\[0\]\['output'\]: expected 1 to 1000"),
        ({"ops": [OP | {"name": "nms\x1b[2J"}]}, r"ops\[0\]\['name'\]: expected 1 to 1000 .* got 'nms\\x1b"),
        ({"ops": [OP | {"inputs": []}]}, r"ops\[0\]\['inputs'\]: expected a list of 1 to"),
        ({"ops": [OP | {"attributes": 1}]}, r"ops\[0\]\['attributes'\]: expected a dictionary"),
        ({"versions": {"torch": 2}}, r"versions\['torch'\]"),
        ({"source_sha256": "ABC"}, "64 lower-case"),
        ({"parity": 1}, "parity"),
        ({"extra": {"batch": 1}}, r"extra: .* got \['batch'\]"),
        ({"format_version": "one"}, "major.minor"),
        ({"format_version": "2.0"}, "older major version, got '2.0'"),
    ],
)
def test_refusals_tell_expected_and_got(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small(**changes)


def test_lists_and_numpy_numbers_become_plain() -> None:
    spec = small(class_names=["a", "b"], min_size=np.int64(7), image_mean=[np.float32(0.5), 1, 0], canvas=[32, 64])
    assert (spec.class_names, spec.min_size, spec.image_mean) == (("a", "b"), 7, (0.5, 1.0, 0.0))
    assert spec.category_ids == (1, 2)
    assert spec.canvas == (32, 64)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_names_in_a_graph_may_be_longer_than_other_names() -> None:
    assert small(ops=[OP | {"name": "n" * 1000}]).ops == (OP | {"name": "n" * 1000},)


def test_json_values_are_copies() -> None:
    arguments = {"anchors": [32, 64]}
    spec = small(builder_arguments=arguments)
    arguments["anchors"].append(128)
    assert spec.builder_arguments == {"anchors": [32, 64]}


def test_too_long_to_be_read_again_is_not_written() -> None:
    spec = small(class_names=tuple("ä" * 200 for _ in range(CLASS_LIMIT)))
    with pytest.raises(UsageError, match="at most 1048576 characters"):
        spec.to_json()


def test_replace_checks_again() -> None:
    assert FULL.replace(precision="fp16").precision == "fp16"
    assert FULL.replace(class_names=("x",), category_ids=()).category_ids == (1,)
    with pytest.raises(UsageError, match="one per class name") as caught:
        FULL.replace(class_names=("x",))
    assert caught.value.remedy == "leave category_ids=() to number them by label"


def test_label_names_start_at_one() -> None:
    assert [FULL.label_name(label) for label in (1, 2)] == ["person", "Öl-Fass"]
    for label in (0, 3, -1):
        with pytest.raises(EdgemaskError, match=f"1 to 2, got {label}"):
            FULL.label_name(label)


def test_background_is_dropped_only_in_front() -> None:
    assert class_names_without_background(["__background__", "a"]) == ("a",)
    assert class_names_without_background(["a", "__background__"]) == ("a", "__background__")
    assert class_names_without_background([]) == ()


def test_printable_escapes_what_steers_a_terminal() -> None:
    assert printable("a\x1b[31m\u202e\n\ud800ö猫") == "a\\x1b[31m\\u202e\\n\\ud800ö猫"
