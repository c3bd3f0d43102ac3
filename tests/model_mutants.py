"""Model files damaged in the ways that bytes go wrong, and changed and sealed again as a stranger can."""

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import onnx
from google.protobuf.message import Message
from odd_values import NUMBERS, TEXTS, changed_json

from edgemask.spec import SPEC_KEY

ENTRY = b"\x0a\x0fedgemask.digest\x12\x40"  # what stands before the 64 digits of a digest
PAGES = (
    b"<!DOCTYPE html><html><head><title>404</title></head></html>",
    b"\n  <html lang='en'>",
    b"<?xml version='1.0'?><net name='model' version='11'>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    b'{"error": "Repository not found"}',
    b"PK\x03\x04",
    b"",
)
Mutation = Callable[[bytes, Random], bytes]


def sealed(data: bytes) -> bytes:
    """The bytes with a true digest where a digest stands; as they are where none does."""
    head, entry, rest = data.partition(ENTRY)
    digest = hashlib.sha256(head + entry + b"0" * 64 + rest[64:]).hexdigest().encode()
    return head + entry + digest + rest[64:] if entry and len(rest) >= 64 else data


def flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def flipped_weight(data: bytes, random: Random) -> bytes:
    weights = [tensor.raw_data for tensor in onnx.load_from_string(data).graph.initializer]
    return _flipped_in(data, random.choice(weights), random)


def flipped_name(data: bytes, random: Random) -> bytes:
    node = random.choice(onnx.load_from_string(data).graph.node)
    return _flipped_in(data, random.choice([node.name, node.op_type, node.output[0]]).encode(), random)


def flipped_spec(data: bytes, random: Random) -> bytes:
    return _flipped_in(data, _metadata(data)[SPEC_KEY].encode(), random)


def flipped_digest(data: bytes, random: Random) -> bytes:
    start = data.index(ENTRY)
    return _flipped_in(data, data[start : start + len(ENTRY) + 64], random)


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.choice((random.randrange(len(data)), len(data) - 1 - random.randrange(40)))]


def inserted(data: bytes, random: Random) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randint(1, 64)) + data[place:]


def without_block(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + data[end:]


def doubled_block(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:end] + data[start:]


def swapped_blocks(data: bytes, random: Random) -> bytes:
    first, second, third, fourth = sorted(random.sample(range(len(data) + 1), 4))
    return data[:first] + data[third:fourth] + data[second:third] + data[first:second] + data[fourth:]


def joined(data: bytes, random: Random) -> bytes:
    """Two files in one, which protobuf reads as one message."""
    other = onnx.load_from_string(data)
    other.graph.name += "_"
    if random.random() < 0.5:
        del other.metadata_props[:]
    second = sealed(other.SerializeToString())
    return random.choice((data + data, data + second, second + data))


def changed_length(data: bytes, random: Random) -> bytes:
    """Another length of one of protobuf's fields."""
    place = random.choice(list(_lengths(data, 0, len(data))))
    value = random.choice((0, 1, 0x7F, data[place] ^ 1, (data[place] + 1) & 0xFF, 0xFF))
    return data[:place] + bytes([value]) + data[place + 1 :]


def page(data: bytes, random: Random) -> bytes:
    return random.choice(PAGES) + random.choice((b"", data, random.randbytes(200)))


def changed_field(data: bytes, random: Random) -> bytes:
    """Another value of one field, at any depth, in a message that is whole."""
    proto = onnx.load_from_string(data)
    message = random.choice(list(_messages(proto)))
    if not (fields := [field for field in message.DESCRIPTOR.fields if random.random() < 0.5]):
        return data
    _change(message, random.choice(fields), random)
    return proto.SerializeToString()


def changed_spec(data: bytes, random: Random) -> bytes:
    """Another value in the spec, at any depth."""
    proto = onnx.load_from_string(data)
    for entry in proto.metadata_props:
        if entry.key == SPEC_KEY:
            entry.value = changed_json(entry.value, random)
    return proto.SerializeToString()


MUTATIONS: tuple[Mutation, ...] = (
    flipped,
    flipped_weight,
    flipped_name,
    flipped_spec,
    flipped_digest,
    cut,
    inserted,
    without_block,
    doubled_block,
    swapped_blocks,
    joined,
    changed_length,
    page,
    changed_field,
    changed_spec,
)


def mutant(data: bytes, number: int) -> tuple[str, bytes]:
    """What number `number` is called, and its bytes, which differ from the file's; every other one is sealed again."""
    random = Random(number)
    mutation = MUTATIONS[number // 2 % len(MUTATIONS)]
    name = mutation.__name__ + (", sealed again" if number % 2 else "")
    changed = data
    while changed == data:
        changed = mutation(data, random)
        if number % 2:
            changed = sealed(changed)
        if mutation is flipped_digest and number % 2:  # the seal would mend it
            changed = sealed(flipped(changed, random))
    return name, changed


def _flipped_in(data: bytes, piece: bytes, random: Random) -> bytes:
    place = data.index(piece) + random.randrange(max(1, len(piece)))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def _block(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data))
    return start, min(len(data), start + random.choice((1, 8, 100, len(data) // 3)))


def _metadata(data: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}


def _messages(root: Any) -> Iterator[Any]:
    yield root
    for field, value in root.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for message in [value] if isinstance(value, Message) else value:
                yield from _messages(message)


def _change(message: Any, field: Any, random: Random) -> None:
    value = getattr(message, field.name)
    if not isinstance(value, Message | str | bytes | int | float):  # a repeated field
        if len(value) and random.random() < 0.5:
            del value[random.randrange(len(value))]
        elif field.type == field.TYPE_MESSAGE:
            value.add()
            if len(value) > 1:
                value[-1].CopyFrom(random.choice(value))
        else:
            value.append(_other_value(field, random))
    elif field.type == field.TYPE_MESSAGE:
        message.ClearField(field.name) if message.HasField(field.name) else value.SetInParent()
    else:
        setattr(message, field.name, _other_value(field, random))


def _other_value(field: Any, random: Random) -> Any:
    if field.type == field.TYPE_STRING:
        return random.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return random.randbytes(random.choice((0, 1, 8, 1000)))
    if field.type == field.TYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice((0.0, float("nan"), -1e30))
    limit = 2**31 if field.type == field.TYPE_INT32 else 2**63
    numbers = [number for number in NUMBERS if -limit <= number < limit]
    return abs(random.choice(numbers)) if field.type == field.TYPE_UINT64 else random.choice(numbers)


def _lengths(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[int]:
    """Where the lengths of protobuf's fields stand, three levels deep."""
    place = start
    while place < end:
        tag, place = _varint(data, place)
        if tag & 7 == 0:
            _, place = _varint(data, place)
        elif tag & 7 == 2:
            yield place
            length, place = _varint(data, place)
            if depth == 0 and tag >> 3 in (7, 14):  # graph and metadata
                yield from _lengths(data, place, place + length, depth + 1)
            place += length
        else:
            place += 8 if tag & 7 == 1 else 4


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
