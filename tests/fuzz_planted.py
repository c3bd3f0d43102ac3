"""A function with a fault, by which a test sees that the fuzzer finds one. See `scripts/fuzz.py`."""

LONGEST = 16
MUTATIONS = ()
TOKENS = ()


def run(data: bytes) -> None:
    if data[:1] == b"e" and data[1:2] == b"m" and data[2:3] == b"!":
        raise KeyError(data)


def seeds() -> list[bytes]:
    return [b"nothing"]
