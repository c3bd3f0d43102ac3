"""The reader of the text of a spec, to be fuzzed. See `scripts/fuzz.py`."""

import contextlib
from random import Random

import odd_values

from edgemask.errors import EdgemaskError
from edgemask.spec import ModelSpec

LONGEST = 4096
TOKENS = ("null", "true", "NaN", "1e999", "-1", "[]", "{}", r"\u001b", r"\ud800", "9" * 30, '"', ",", ":")


def run(data: bytes) -> None:
    """Reads the text of a spec; what it takes survives a round trip."""
    with contextlib.suppress(EdgemaskError):
        spec = ModelSpec.from_json(data.decode("utf-8", "surrogateescape"))
        assert ModelSpec.from_json(spec.to_json()) == spec


def seeds() -> list[bytes]:
    plain = ModelSpec(class_names=("dot", "line"), category_ids=(7, 9), min_size=64, max_size=128, mask_size=4)
    full = plain.replace(
        tasks=("boxes", "keypoints"),
        mask_size=None,
        num_keypoints=17,
        canvas=(64, 128),
        fixed_size=(64, 96),
        batch=None,
        precision="int8",
        ops=({"name": "n", "op": "BatchedNms", "attributes": {"a": 0.5}, "inputs": ["x"], "output": "y"},),
        quantization={
            "recipe": {"name": "default"},
            "layers": 1,
            "left_out": ["x"],
            "calibration": {"images": 2, "sha256": "0" * 64},
            "accuracy": None,
        },
        extra={"later": [1, 2.5, None, {"a": "ä"}]},
    )
    return [plain.to_json().encode(), full.to_json().encode()]


def changed_value(data: bytes, random: Random) -> bytes:
    return odd_values.changed_json(data, random).encode()


MUTATIONS = (changed_value,)
