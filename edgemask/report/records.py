"""Records of this package as JSON text."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(record: object) -> str:
    """Returns a record as JSON text, indented, in ASCII, the same for equal records.

    A dataclass becomes an object of its fields and of the public properties that its class defines (`passed`,
    `failures` ...), but for fields with the metadata `{"json": False}`; NaN and infinity become null, tuples lists,
    paths text, numpy scalars and arrays numbers. `assets/validation.schema.json` describes the record of a validation.

    Raises:
        TypeError: something that JSON has no form for.
    """
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def names(record_type: type[Any]) -> list[str]:
    """The fields and properties of a dataclass that belong to its JSON form."""
    fields = [field.name for field in dataclasses.fields(record_type) if field.metadata.get("json", True)]
    own = vars(record_type).items()
    return [*fields, *(name for name, member in own if isinstance(member, property) and name[0] != "_")]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in names(type(value))}
    raise TypeError(f"a record holds a {type(value).__name__}, which JSON has no form for")
