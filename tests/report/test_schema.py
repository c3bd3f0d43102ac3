"""The schema of the JSON record: every record follows it, and it cannot drift from the record's classes."""

import copy
import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from report_record import RECORDS

from edgemask.report import to_json
from edgemask.report.records import names
from edgemask.validation.reports import FORMAT_VERSION, Validation

SCHEMA: dict[str, Any] = json.loads(files("edgemask").joinpath("assets/validation.schema.json").read_bytes())
VALIDATOR = Draft202012Validator(SCHEMA)
PLAIN = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
Path = tuple[str | int, ...]


def types_of(record: type[Any]) -> dict[str, Any]:
    """The type of each entry of a dataclass in JSON."""
    hints = typing.get_type_hints(record)
    getters = {name: vars(record).get(name) for name in names(record)}
    return {
        name: typing.get_type_hints(member.fget)["return"] if isinstance(member, property) else hints[name]
        for name, member in getters.items()
    }


def shape(hint: Any, found: dict[str, type[Any]]) -> dict[str, Any]:
    """The schema of a type, without words; dataclasses on the way are collected in `found`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in found:
            found[hint.__name__] = hint
            for entry in types_of(hint).values():
                shape(entry, found)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        parts = [shape(part, found) for part in inner]
        if all(part.keys() == {"type"} for part in parts):
            return {"type": list(dict.fromkeys(kind for part in parts for kind in listed(part["type"])))}
        return {"anyOf": parts}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": shape(inner[1], found)}
    if origin is tuple and inner[1:] == (...,):
        return {"type": "array", "items": shape(inner[0], found)}
    if origin is tuple:
        parts = [shape(part, found) for part in inner]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if hint is float:
        return {"type": ["number", "null"]}  # NaN and infinity are null
    if hint in (object, Any):
        return {}
    return {"type": PLAIN[hint]}


def listed(kind: str | list[str]) -> list[str]:
    return [kind] if isinstance(kind, str) else kind


def wordless(schema: Any) -> Any:
    if isinstance(schema, list):
        return [wordless(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: wordless(entry) for key, entry in schema.items() if key not in ("description", "pattern")}


def definition(record: type[Any], found: dict[str, type[Any]]) -> dict[str, Any]:
    properties = {name: shape(hint, found) for name, hint in types_of(record).items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"] == f"urn:edgemask:validation:{FORMAT_VERSION}"


def test_schema_says_what_the_classes_say() -> None:
    """A field or property that is new, gone or of another type must be written into the schema."""
    found: dict[str, type[Any]] = {}
    shape(Validation, found)
    root = found.pop("Validation")
    expected = {name: definition(record, {}) for name, record in found.items()}
    assert {name: wordless(entry)["properties"] for name, entry in SCHEMA["$defs"].items()} == {
        name: entry["properties"] for name, entry in expected.items()
    }
    assert {name: wordless(entry) for name, entry in SCHEMA["$defs"].items()} == expected
    own = {key: wordless(SCHEMA)[key] for key in ("type", "properties", "required")}
    assert own == definition(root, {})


def test_schema_describes_every_entry() -> None:
    for name, entry in {"Validation": SCHEMA, **SCHEMA["$defs"]}.items():
        assert entry["description"].endswith("."), name
        for key, value in entry["properties"].items():
            assert len(value.get("description", "")) > 10, f"{name}.{key}"


@pytest.mark.parametrize("name", RECORDS)
def test_records_follow_the_schema(name: str) -> None:
    record = json.loads(to_json(RECORDS[name]()))
    assert [error.message for error in VALIDATOR.iter_errors(record)] == []


def entries(value: Any, path: Path = ()) -> typing.Iterator[Path]:
    """The paths of all entries of objects; of a list its first element stands for the others."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            yield from entries(entry, (*path, key))
    elif isinstance(value, list) and value:
        yield from entries(value[0], (*path, 0))


def is_free(path: Path) -> bool:
    """Whether an entry is one of a mapping by names of the world: a task, a package, a key."""
    return any(key in ("versions", "tasks", "intervals", "attributes", "counts") for key in path[-2:-1]) or (
        path[-2:-1] == ("values",) and "baseline" in path
    )


def test_no_entry_may_be_missing() -> None:
    record = json.loads(to_json(RECORDS["failing"]()))
    required = [path for path in entries(record) if not is_free(path)]
    assert len(required) > 200
    # One at a time on the same record, for the time that copies would take.
    accepted = []
    for path in required:
        holder = record
        for step in path[:-1]:
            holder = holder[step]
        kept = dict(holder)
        del holder[path[-1]]
        if VALIDATOR.is_valid(record):
            accepted.append(path)
        holder.clear()
        holder.update(kept)
    assert accepted == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format_version",), "2.0"),
        (("format_version",), None),
        (("passed",), "yes"),
        (("reports",), {}),
        (("reports", 0, "model", "bytes"), 1.5),
        (("reports", 0, "model", "device"), None),
        (("reports", 0, "images", "unreadable", 0), ["cut.jpg"]),
        (("reports", 0, "parity", "matched"), None),
        (("reports", 0, "parity", "matched_share"), "0.99"),
        (("reports", 0, "coco", "tasks", "boxes", "images"), -0.5),
        (("reports", 0, "measures", 0, "side"), "both"),
        (("reports", 0, "measures", 0, "passed"), None),
        (("reports", 0, "limits", 0, "kind"), "less"),
        (("reports", 0, "gallery", 0, "size"), [480, 640, 3]),
        (("reports", 0, "gallery", 0, "mismatches", 0, "box"), [1.0, 2.0, 3.0]),
        (("reports", 0, "gallery", 0, "mismatches", 0, "kind"), "gone"),
        (("reports", 0, "environment", "versions", "numpy"), 2.3),
    ],
)
def test_a_changed_entry_is_refused(path: Path, value: Any) -> None:
    record = json.loads(to_json(RECORDS["failing"]()))
    holder = record
    for step in path[:-1]:
        holder = holder[step]
    assert path[-1] in holder if isinstance(holder, dict) else len(holder) > path[-1]  # type: ignore[operator]
    holder[path[-1]] = value
    assert not VALIDATOR.is_valid(record)


def test_a_later_minor_version_may_add() -> None:
    record = json.loads(to_json(RECORDS["failing"]()))
    newer = copy.deepcopy(record)
    newer["format_version"] = "1.7"
    newer["more"] = newer["reports"][0]["more"] = newer["reports"][0]["model"]["more"] = 1
    assert VALIDATOR.is_valid(newer)


def test_what_was_not_measured_is_null() -> None:
    record = json.loads(to_json(RECORDS["unmeasured"]()))
    (report,) = record["reports"]
    assert report["latency"]["median"] is None
    assert report["parity"]["matched_share"] is None
    assert report["coco"]["tasks"]["masks"]["candidate"]["ap"] is None
    assert VALIDATOR.is_valid(record)
