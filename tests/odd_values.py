"""Values that nobody means, and how they get into files."""

import json
from collections.abc import Callable, Sequence
from random import Random

TEXTS = ("", "\x1b[2J", "../../secret", "\x00", "x" * 5000, "com.microsoft", "edgemask", "__import__('os')")
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**62)
OWN_SHARE = 0.25  # of mutations that know what the bytes mean, beside those of a fuzzer
VALUES = (*TEXTS, *NUMBERS, 0.5, None, True, [], {}, [[]], ["\x1b"], {"a": 1}, 1e300)


def changed_json(text: str | bytes, random: Random) -> str:
    """A JSON object with another value in one place, at any depth."""
    record = json.loads(text)
    place = record
    while True:
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.5:
            break
        place = place[key]
    place[key] = random.choice(VALUES)
    return json.dumps(record)


def own_mutation(
    mutations: Sequence[Callable[[bytes, Random], bytes]], data: bytes, longest: int, seed: int
) -> bytes | None:
    """What one of the mutations makes of data; None where the fuzzer's own are to be taken."""
    random = Random(seed)
    if not mutations or random.random() > OWN_SHARE:
        return None
    try:
        changed = random.choice(mutations)(data, random)
    except Exception:  # what it takes apart was broken by another mutation before
        return None
    return changed if 0 < len(changed) <= longest else None
