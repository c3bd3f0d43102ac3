"""RunFacts: which model, with which weights and settings, a stored run is of."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from edgemask.checks import Described, choice, json_object, pattern, refuse, text, texts_by_name
from edgemask.environment import environment
from edgemask.errors import ModelFileError, UsageError
from edgemask.spec import ModelSpec

SHA256 = pattern(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")
_SHOWN_LIMIT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run is of, frozen and checked. All but the date has to agree for a run to be continued.

    Args:
        kind: what predicted, `pytorch` or `onnx`.
        name: of the model, without folders: a stored run says nothing about the machine that it was made on.
        device: where it ran.
        sha256: 64 hex digits, of the weights of a PyTorch model or of the bytes of an ONNX file.
        spec: what was asked of the model: canvas, thresholds, classes.
        versions: of the packages that it ran with.
        date: when the run began, ISO 8601.

    Raises:
        UsageError: a value that cannot be meant, as `expected ..., got ...`.
    """

    kind: str
    name: str
    device: str
    sha256: str
    spec: ModelSpec
    versions: Mapping[str, str]
    date: str

    def __post_init__(self) -> None:
        choice("pytorch", "onnx")("kind", self.kind)
        text("name", self.name)
        if {"/", "\\"} & set(self.name):
            refuse("name", "a name without folders", self.name, "give the last part of the path alone")
        text("device", self.device)
        SHA256("sha256", self.sha256)
        if not isinstance(self.spec, ModelSpec):
            refuse("spec", "a ModelSpec", Described(type(self.spec).__name__))
        object.__setattr__(self, "versions", MappingProxyType(texts_by_name("versions", self.versions)))
        _check_date(self.date)

    @classmethod
    def of(cls, *, kind: str, name: str, device: str, sha256: str | None, spec: ModelSpec) -> Self:
        """Returns the facts of a run that begins now, with the versions that are installed here.

        Raises:
            UsageError: as the class; None for the sha256, too: a run of unknown weights cannot be told from another.
        """
        here = environment(threads=1)  # of which nothing but versions and date is kept
        sha256 = SHA256("sha256", sha256)
        return cls(
            kind=kind, name=name, device=device, sha256=sha256, spec=spec, versions=here.versions, date=here.date
        )

    def to_record(self) -> dict[str, Any]:
        """Returns the facts as JSON values."""
        record = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return record | {"versions": dict(self.versions), "spec": json.loads(self.spec.to_json())}

    @classmethod
    def from_record(cls, value: Any) -> Self:
        """Reads what `to_record` gave; keys that a newer minor format brought are left out.

        Raises:
            UsageError: anything else.
        """
        record = json_object("facts", value)
        names = [entry.name for entry in dataclasses.fields(cls)]
        if missing := [name for name in names if name not in record]:
            refuse("facts", "all fields of RunFacts", Described(f"none named {', '.join(missing)}"))
        try:
            spec = ModelSpec.from_json(json.dumps(record["spec"]))
        except ModelFileError as error:
            raise UsageError(error.problem, error.remedy) from error
        return cls(**{name: record[name] for name in names} | {"spec": spec})

    def fingerprint(self) -> str:
        """Returns a sha256 over all but the date: equal for runs of which one may continue the other."""
        return hashlib.sha256(json.dumps(self._lasting(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: "RunFacts") -> tuple[str, ...]:
        """Says what else than the date another run is of, as `device: 'cpu', now 'cuda:0'`."""
        before, now = _flat(self._lasting()), _flat(other._lasting())
        changed = [name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name)]
        return tuple(f"{name}: {_shown(before.get(name))}, now {_shown(now.get(name))}" for name in changed)

    def _lasting(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_record().items() if name != "date"}


def _check_date(value: Any) -> None:
    try:
        datetime.datetime.fromisoformat(text("date", value))
    except ValueError:  # UsageError is one as well
        refuse("date", "a date in ISO 8601, as 2026-11-22 or 2026-11-22T12:00:00+00:00", value)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Entries of the spec and of the versions as entries of their own."""
    flat = {}
    for name, value in record.items():
        if name in ("spec", "versions"):
            flat.update({f"{name}.{key}": entry for key, entry in value.items()})
        else:
            flat[name] = value
    return flat


def _shown(value: Any) -> str:
    shown = "nothing" if value is None else ascii(value)
    return shown if len(shown) <= _SHOWN_LIMIT else f"{shown[: _SHOWN_LIMIT - 3]}..."
